"""What is served of the registry: the version that a name means, and nothing that was changed since."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from pipelines.__main__ import main
from recdistill import registry, tracking
from recdistill.errors import ArtifactError
from recdistill.registry_served import served_model, wanted
from recdistill.results import GateResult
from recdistill.store import sha256

FAIL = GateResult(gate="p95_ms", passed=False, measured=9.0, required="<= 5", reason="p95_ms is 9, required <= 5")


@pytest.fixture(scope="module")
def uri(new_registry, make_bundle, tmp_path_factory):
    """A registry of three versions: the champion, one that failed its gates, and one that was never judged."""
    folder = tmp_path_factory.mktemp("checked")
    uri = new_registry(folder)
    for n in (1, 2, 3):
        bundle = make_bundle(folder / f"b{n}", seed=n, data_end=f"2026-01-0{n}")
        dataset: tracking.DatasetFacts = {"name": "d", "digest": "0" * 32, "rows": 1}
        run = tracking.record(uri, "serve", "r", [], dataset, folder / "none")
        assert registry.register(uri, "m", bundle, run, {}) == n
    registry.promote(uri, "m", 1, gates=[])
    with pytest.raises(registry.GateRejected):
        registry.promote(uri, "m", 2, gates=[FAIL])
    return uri


@pytest.fixture
def model(uri):
    """The directory of version 1 as the registry has it; what a test changes there is put back."""
    folder = registry.fetch(uri, "m", 1).parent.parent
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts}
    yield folder
    for file in [f for f in folder.rglob("*") if f.is_file() and f not in before]:
        file.unlink()
    for file, data in before.items():
        file.write_bytes(data)


def test_a_name_means_its_champion_an_alias_or_a_version(uri):
    assert wanted(uri, "m") == wanted(uri, "m@champion")
    assert (wanted(uri, "m").version, wanted(uri, "m").alias, wanted(uri, "m").gate) == (1, "champion", "passed")
    assert (wanted(uri, "m@candidate").version, wanted(uri, "m@candidate").gate) == (3, "never judged")
    assert (wanted(uri, "m@2").version, wanted(uri, "m@2").alias, wanted(uri, "m@2").gate) == (2, None, "failed")
    assert wanted(uri, "m").data_end == "2026-01-01"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "'nobody' has no champion; it has no aliases"),
        ("m@previous", r"no previous; it has candidate \(version 3\), champion \(version 1\)"),
        ("m@7", "7"),
    ],
)
def test_what_is_not_there_is_named(uri, name, said):
    with pytest.raises(ArtifactError, match=said):
        wanted(uri, name)


def test_what_is_served_is_the_registered_data_and_the_code_of_this_package(uri, model, tmp_path):
    made = served_model(uri, wanted(uri, "m"), tmp_path / "model")
    assert sha256(made / "artifacts" / "bundle" / "manifest.json") == wanted(uri, "m").manifest
    assert (made / "serve.py").read_bytes() == (model / "serve.py").read_bytes()
    assert [f.name for f in tmp_path.iterdir() if "registry" in f.name] == []


MARK = "import pathlib; pathlib.Path({!r}).touch()\n"


def damage(model: Path, name: str, mark: Path) -> None:
    bundle = model / "artifacts" / "bundle"
    if name == "index":
        data = bytearray((bundle / "index.faiss").read_bytes())
        data[-1] ^= 1
        (bundle / "index.faiss").write_bytes(data)
    elif name == "manifest":  # of an index that was changed, and says so
        damage(model, "index", mark)
        said = json.loads((bundle / "manifest.json").read_text())
        said["files"]["index.faiss"] = sha256(bundle / "index.faiss")
        (bundle / "manifest.json").write_text(json.dumps(said))
    elif name == "extra":
        (bundle / "extra.bin").write_bytes(b"x")
    elif name == "missing":
        (bundle / "popular.npy").unlink()
    elif name == "code":
        (model / "serve.py").write_text(MARK.format(str(mark)) + (model / "serve.py").read_text())
    elif name == "no code":
        (model / "serve.py").unlink()
    elif name == "more code":
        (model / "code").mkdir(exist_ok=True)
        (model / "code" / "numpy.py").write_text(MARK.format(str(mark)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("index", r"index\.faiss: contents differ from the manifest"),
        ("manifest", r"manifest\.json is not the one that was registered"),
        ("extra", r"extra\.bin, which its manifest does not name"),
        ("missing", r"popular\.npy: the file is missing"),
        ("code", r"serve\.py is not the code that was registered"),
        ("no code", r"serve\.py is not the code that was registered"),
        ("more code", r"code that nobody registered lies beside it: code/numpy\.py"),
    ],
)
def test_what_was_changed_is_refused_before_anything_of_it_runs(uri, model, tmp_path, name, said, capsys):
    damage(model, name, tmp_path / "ran")
    with pytest.raises(ArtifactError, match=said):
        served_model(uri, wanted(uri, "m"), tmp_path / "model")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "model").exists()
    assert main(["serve", "m", "--mlflow", uri, "--port", "0"]) == 5
    assert "fix:" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_manifest_of_the_model_that_names_other_code_changes_nothing(uri, model, tmp_path):
    (tmp_path / "evil.py").write_text(MARK.format(str(tmp_path / "ran")))
    text = (model / "MLmodel").read_text().replace("mlflow.pyfunc.loaders.code_model", "evil")
    (model / "MLmodel").write_text(text)
    made = served_model(uri, wanted(uri, "m"), tmp_path / "model")
    assert "evil" not in (made / "MLmodel").read_text()
    assert not (tmp_path / "ran").exists()


def test_code_without_a_recorded_sha256_is_that_of_this_package_or_refused(uri, model, tmp_path):
    with tracking.store(uri) as client:
        before = client.get_model_version("m", "1").tags["recdistill.code_sha256"]
        client.delete_model_version_tag("m", "1", "recdistill.code_sha256")
    try:
        assert served_model(uri, wanted(uri, "m"), tmp_path / "a").is_dir()
        damage(model, "code", tmp_path / "ran")
        with pytest.raises(ArtifactError, match="is not the code of this package, and no sha256 was recorded"):
            served_model(uri, wanted(uri, "m"), tmp_path / "b")
    finally:
        with tracking.store(uri) as client:
            client.set_model_version_tag("m", "1", "recdistill.code_sha256", before)


def test_the_command_says_what_it_cannot_do(uri, capsys):
    assert main(["serve", "m@1", "--follow", "5", "--mlflow", uri]) == 2
    assert "nothing to follow" in capsys.readouterr().err
    assert main(["serve", "m@previous", "--mlflow", uri]) == 5
    assert main(["serve", "m", "--mlflow", "sqlite:////nowhere/mlflow.db"]) == 5
    assert main(["serve", "m", "--workers", "0", "--mlflow", uri]) == 2
    capsys.readouterr()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "m", "--port", str(port), "--mlflow", uri]) == 2
    assert f"nothing can be served at 127.0.0.1:{port}" in capsys.readouterr().err
