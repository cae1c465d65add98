"""Where keys are trusted, what none of them signed does not serve, whoever wrote what into the registry."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from recdistill import registry, registry_served, registry_signed, tracking
from recdistill import registry_versions as held
from recdistill.errors import ArtifactError
from recdistill.registry_across import promote_across

DATASET: tracking.DatasetFacts = {"name": "logs", "digest": "ab" * 32, "rows": 7}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("keys"), Ed25519PrivateKey.generate()
    (folder / "k.pem").write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    half = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "k.pub").write_bytes(half)
    return folder / "k.pem", folder / "k.pub"


@pytest.fixture
def held_versions(new_registry, make_bundle, tmp_path):
    """A registry with three versions that passed; of the second and third the data is newer."""
    uri = new_registry(tmp_path / "mlflow")
    (tmp_path / "report").mkdir()
    run = tracking.record(uri, "e", "first", [], DATASET, tmp_path / "report")
    bundles = [make_bundle(tmp_path / f"b{n}", seed=n, data_end=f"2026-01-0{n + 1}") for n in range(3)]
    for bundle in bundles:
        registry.register(uri, "m", bundle, run, {})
    return uri, bundles


def aliases(uri):
    return {a: v["version"] for v in registry.history(uri, "m") for a in v["aliases"]}


def tag(uri, version, **tags):
    with tracking.store(uri) as client:
        held.tag(client, "m", version, {f"recdistill.{k}": v for k, v in tags.items()})


def test_only_what_a_trusted_key_signed_is_promoted_rolled_back_to_and_read(held_versions, keys):
    uri, bundles = held_versions
    key, half = keys
    with pytest.raises(ArtifactError, match="m version 1: the bundle is not signed"):
        registry.promote(uri, "m", 1, gates=[], trust=[half])
    with pytest.raises(ArtifactError, match="is not signed"):
        registry.promote(uri, "m", 1, force=True, trust=[half])
    assert aliases(uri) == {"candidate": 3}
    registry_signed.endorse(uri, "m", 1, key, bundles[0])
    assert registry.promote(uri, "m", 1, gates=[], trust=[half]).version == 1
    # Whoever can write tags makes a newer version pass; where a key is trusted it is no choice all the same.
    tag(uri, 3, gate="passed", signature="ed25519:AAAA")
    registry_signed.endorse(uri, "m", 2, key)
    assert registry.promote(uri, "m", 2, gates=[], trust=[half]).version == 2
    assert registry.champion(uri, "m", trust=[half])[0] == 2
    tag(uri, 3, gate="withdrawn")
    tag(uri, 1, signature="ed25519:AAAA")
    with pytest.raises(ArtifactError, match="m version 1: the bundle is not signed by a key"):
        registry.rollback(uri, "m", [half])
    assert aliases(uri)["champion"] == 2
    registry_signed.endorse(uri, "m", 1, key)
    assert registry.rollback(uri, "m", [half]).version == 1
    tag(uri, 1, signature="")
    with pytest.raises(ArtifactError, match="is not signed"):
        registry.champion(uri, "m", trust=[half])


def test_a_bundle_put_in_the_place_of_a_signed_one_is_refused(held_versions, keys, make_bundle, tmp_path):
    uri, bundles = held_versions
    key, half = keys
    registry_signed.endorse(uri, "m", 1, key, bundles[0])
    other = make_bundle(tmp_path / "wild", seed=9)
    tag(uri, 1, manifest_sha256=registry.manifest_sha256(other))  # and the files beside it
    with pytest.raises(ArtifactError, match="is not signed by a key"):
        registry.fetch(uri, "m", 1, trust=[half])


def test_code_in_the_registry_is_not_run_by_who_reads_a_bundle(held_versions, keys, tmp_path):
    uri, bundles = held_versions
    registry_signed.endorse(uri, "m", 1, keys[0], bundles[0])
    ran = tmp_path / "ran"
    codes = [
        file for file in (tmp_path / "mlflow").rglob("*.py") if "artifacts" in file.parts or file.name == "serve.py"
    ]
    assert codes
    for file in codes:
        file.write_text(f"open({str(ran)!r}, 'w').write('x')\n")
    registry.fetch(uri, "m", 1, tmp_path / "copy", trust=[keys[1]])
    assert not ran.exists()


def test_a_signature_goes_with_its_bundle_to_another_registry(held_versions, keys, new_registry, tmp_path):
    uri, _ = held_versions
    there = new_registry(tmp_path / "there")
    registry.promote(uri, "m", 1, gates=[])
    with pytest.raises(ArtifactError, match="is not signed"):
        promote_across(uri, there, "m", 1, trust=[keys[1]])
    registry_signed.endorse(uri, "m", 1, keys[0])
    assert promote_across(uri, there, "m", 1, trust=[keys[1]]).version == 1
    assert registry.champion(there, "m", trust=[keys[1]])[0] == 1


def test_a_run_signs_what_it_registers_and_only_that_serves(held_versions, keys, tmp_path):
    uri, bundles = held_versions
    key, half = keys
    trusting = registry.RegistrySpec(model="m", trust=(str(half),))
    with pytest.raises(ArtifactError, match="version 2: the bundle is not signed"):
        registry_signed.decide(uri, trusting, 2, bundles[1], [])
    assert "champion" not in aliases(uri)
    signing = trusting.model_copy(update={"sign": str(key)})
    assert registry_signed.decide(uri, signing, 2, bundles[1], [], serve=False).alias is None
    assert registry_signed.decide(uri, signing, 2, bundles[1], []).alias == "champion"
    asked = registry_served.wanted(uri, "m")
    registry_served.served_model(uri, asked, tmp_path / "served", [half])
    with pytest.raises(ArtifactError, match="version 1: the bundle is not signed"):
        registry_served.served_model(uri, registry_served.wanted(uri, "m@1"), tmp_path / "other", [half])
