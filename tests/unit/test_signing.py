from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from recdistill.errors import ArtifactError, ConfigError
from recdistill.signing import check, holds, ready, sign

DIGEST = "ab" * 32


def written(folder: Path, name: str, key: object = None) -> tuple[Path, Path]:
    made = key or Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_what_a_trusted_key_signed_holds(tmp_path: Path) -> None:
    (ours, our_half), (_, other_half) = written(tmp_path, "ours"), written(tmp_path, "other")
    signature = sign(ours, "m", DIGEST)
    assert holds(signature, "m", DIGEST, [other_half, our_half])
    assert not holds(signature, "m", DIGEST, [other_half])
    check(signature, "m", DIGEST, [our_half], "here")
    with pytest.raises(ArtifactError, match="here: the bundle is not signed by a key that is trusted") as caught:
        check(signature, "m", DIGEST, [other_half], "here")
    assert caught.value.exit_code == 5


def test_a_signature_is_of_one_model_and_one_bundle(tmp_path: Path) -> None:
    key, half = written(tmp_path, "k")
    signature = sign(key, "m", DIGEST)
    assert not holds(signature, "m2", DIGEST, [half])
    assert not holds(signature, "m", "cd" * 32, [half])
    assert not holds(sign(key, "m\n" + DIGEST, ""), "m", DIGEST, [half])


@pytest.mark.parametrize(
    "given", [None, "", "x", "ed25519:", "ed25519:@@@", "ed25519:AAAA", "rsa:AAAA", "ed25519:\xe9"]
)
def test_what_is_no_signature_does_not_hold(tmp_path: Path, given: str | None) -> None:
    _, half = written(tmp_path, "k")
    assert not holds(given, "m", DIGEST, [half])
    with pytest.raises(ArtifactError, match="is not signed"):
        check(given, "m", DIGEST, [half], "here")


def test_where_no_key_is_named_nothing_is_asked() -> None:
    check(None, "m", DIGEST, [], "here")
    assert holds(None, "m", DIGEST, [])


def test_keys_that_are_none_are_told_before_a_run(tmp_path: Path) -> None:
    private, public = written(tmp_path, "k")
    curve, curve_half = written(tmp_path, "curve", generate_private_key(SECP256R1()))
    ready(private, [public])
    for key, trust, says in (
        (tmp_path / "no.pem", [], "no.pem: the key cannot be read"),
        (public, [], "no private key"),
        (curve, [], "not of ed25519"),
        (None, [private], "no public key"),
        (None, [public, curve_half], "not of ed25519"),
        (None, [tmp_path], "the key cannot be read"),
    ):
        with pytest.raises(ConfigError, match=says) as caught:
            ready(key, trust)
        assert "openssl" in str(caught.value)
