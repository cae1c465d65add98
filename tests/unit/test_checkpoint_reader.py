"""A checkpoint that would run a program is refused before it does, and every one of ours is read."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from recdistill.checkpoint_reader import ALLOWED, check_checkpoint
from recdistill.errors import ArtifactError


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def state(**more: Any) -> dict[str, Any]:
    return {
        "model": {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor([3]), "h": torch.ones(2).half()},
        "optimizer": more,
    }


def saved(out: Path, **more: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state(**more), checkpoint_id=out)
    return out


def load(path: Path, **more: Any) -> dict[str, Any]:
    into = state(**more)
    into["model"]["w"].zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_checkpoint(path)
        dcp.load(into, checkpoint_id=path)
    return into


def test_tensors_and_plain_values_are_read(tmp_path: Path) -> None:
    values = {"step": 7, "lr": 0.1, "words": ["a", None, True], "shape": (1, 2)}
    found = load(saved(tmp_path / "c", **values), **dict.fromkeys(values))
    assert found["model"]["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["optimizer"] == values


def test_a_value_that_is_a_program_is_refused_before_it_runs(tmp_path: Path) -> None:
    path = saved(tmp_path / "c", step=Touch(tmp_path / "ran"))
    with pytest.raises(ArtifactError, match=r"optimizer\.step is no plain value"):
        load(path, step=None)
    assert not (tmp_path / "ran").exists()


def test_a_list_that_is_a_program_is_refused_before_it_runs(tmp_path: Path) -> None:
    path = saved(tmp_path / "c")
    (path / ".metadata").write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises(ArtifactError, match="which no checkpoint of ours holds"):
        load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../outside.distcp", "/etc/hostname"])
def test_a_list_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "c")
    metadata = pickle.loads((path / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = name
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ArtifactError, match="outside the checkpoint"):
        check_checkpoint(path)


@pytest.mark.parametrize("data", [b"", b"\x80", b"not a pickle", pickle.dumps({"a": 1}), pickle.dumps(None)])
def test_a_list_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / ".metadata").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"metadata: cannot be read as a checkpoint"):
        check_checkpoint(tmp_path)


def test_what_is_allowed_makes_values_and_does_nothing() -> None:
    assert not {name for _, name in ALLOWED} & {"eval", "exec", "getattr", "system", "load", "open", "import_module"}
    assert {module for module, _ in ALLOWED} <= {
        "torch",
        "torch.serialization",
        "collections",
        "pathlib",
        "torch.distributed.checkpoint.metadata",
        "torch.distributed.checkpoint.filesystem",
    }
