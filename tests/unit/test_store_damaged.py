"""What is wrong with a damaged artifact is said before anything of it is used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from recdistill.errors import ArtifactError
from recdistill.store import Step, build, open_artifact, verify
from recdistill.types import Artifact
from recdistill.whole import untouched
from recdistill.world import World

ALONE = Step("split", 1, {"k": 1}, {"ingest": "aa"})


def write_two(out: Path) -> dict[str, int]:
    (out / "a.txt").write_text("alpha")
    (out / "deep").mkdir(exist_ok=True)
    (out / "deep" / "b.bin").write_bytes(bytes(range(10)))
    return {"rows": 3}


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return build(tmp_path, World(), ALONE, write_two)


def test_truncated_and_missing_files_do_not_open(artifact: Artifact) -> None:
    (artifact.path / "a.txt").write_text("alp")
    with pytest.raises(ArtifactError, match=r"a\.txt: 3 bytes where the manifest says 5"):
        open_artifact(artifact.path)
    (artifact.path / "a.txt").unlink()
    with pytest.raises(ArtifactError, match=r"a\.txt: the file is missing\n  fix: delete the directory"):
        open_artifact(artifact.path)
    (artifact.path / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"no manifest\.json: not a whole artifact"):
        open_artifact(artifact.path)


def test_a_damaged_hit_is_an_error_and_not_built_over(tmp_path: Path, artifact: Artifact) -> None:
    (artifact.path / "a.txt").write_text("alp")
    with pytest.raises(ArtifactError, match=r"a\.txt"):
        build(tmp_path, World(), ALONE, write_two)
    assert (artifact.path / "a.txt").read_text() == "alp"


def test_a_flipped_bit_is_found_by_verify(artifact: Artifact) -> None:
    verify(artifact)
    data = bytearray((artifact.path / "deep" / "b.bin").read_bytes())
    data[3] ^= 1
    (artifact.path / "deep" / "b.bin").write_bytes(data)
    opened = open_artifact(artifact.path)  # the size is right, and opening does not read
    with pytest.raises(ArtifactError, match=r"b\.bin: contents differ"):
        verify(opened)


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def test_a_stage_that_reads_a_flipped_bit_is_refused_before_it_reads(tmp_path: Path, artifact: Artifact) -> None:
    flip(artifact.path / "deep" / "b.bin", 3)
    with pytest.raises(ArtifactError, match=r"b\.bin: contents differ from the manifest\n  fix: delete the directory"):
        build(tmp_path, World(), ALONE, write_two)
    shutil.rmtree(artifact.path)
    assert not build(tmp_path, World(), ALONE, write_two).hit


def test_a_flipped_bit_of_the_manifest_is_found(artifact: Artifact) -> None:
    file = artifact.path / "manifest.json"
    flip(file, file.read_text().index('"rows": 3') + len('"rows": '))
    assert json.loads(file.read_text())["facts"] == {"rows": 2}
    with pytest.raises(ArtifactError, match=r"manifest\.json is not what was written"):
        open_artifact(artifact.path)


def test_an_artifact_that_was_copied_is_hashed_once_and_found(tmp_path: Path, artifact: Artifact) -> None:
    shutil.copytree(tmp_path / "split", tmp_path / "copy" / "split")
    assert build(tmp_path / "copy", World(), ALONE, write_two).hit
    assert untouched(tmp_path / "copy" / "split" / ALONE.fingerprint)


def test_a_directory_without_its_manifest_is_refused_before_anything_is_spent(tmp_path: Path, artifact: Artifact):
    (artifact.path / "manifest.json").unlink()

    def never(out: Path) -> None:
        raise AssertionError("it was worked for what cannot get its name")

    with pytest.raises(ArtifactError, match=r"no manifest\.json: not a whole artifact"):
        build(tmp_path, World(), ALONE, never)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"files": 3}', '{"files": {"a.txt": {}}}', '{"files": {}}'])
def test_a_manifest_that_is_none_is_refused(artifact: Artifact, text: str) -> None:
    (artifact.path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read"):
        open_artifact(artifact.path)


def test_a_manifest_that_is_not_text_is_refused(artifact: Artifact) -> None:
    (artifact.path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read"):
        open_artifact(artifact.path)


def change(artifact: Artifact, **values: object) -> None:
    file = artifact.path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_newer_format_is_refused(artifact: Artifact) -> None:
    change(artifact, format=2)
    with pytest.raises(ArtifactError, match="written in format 2; this version reads up to 1"):
        open_artifact(artifact.path)


def test_a_newer_format_with_more_to_say_is_refused_as_newer(artifact: Artifact) -> None:
    change(artifact, format=2, signature="abc")
    with pytest.raises(ArtifactError, match="written in format 2"):
        open_artifact(artifact.path)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "deep/../../outside.txt"])
def test_a_manifest_cannot_name_what_lies_outside(artifact: Artifact, name: str) -> None:
    (artifact.path.parent / "outside.txt").write_text("x")
    change(artifact, files={name: {"sha256": "", "size": 1}})
    with pytest.raises(ArtifactError, match="outside the artifact"):
        open_artifact(artifact.path)


def test_a_link_that_leads_outside_is_no_file_of_an_artifact(artifact: Artifact) -> None:
    outside = artifact.path.parent / "outside.txt"
    (artifact.path / "a.txt").rename(outside)
    (artifact.path / "a.txt").symlink_to(outside)
    with pytest.raises(ArtifactError, match="outside the artifact"):
        open_artifact(artifact.path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "."])
def test_a_name_that_no_file_can_have_is_refused(artifact: Artifact, name: str) -> None:
    change(artifact, files={name: {"sha256": "", "size": 1}})
    with pytest.raises(ArtifactError, match=r"outside the artifact|is missing"):
        open_artifact(artifact.path)
