"""Checkpoints read without running what they hold.

torch.distributed.checkpoint unpickles the file that lists a checkpoint, and every value in it that is no tensor. What
was pickled can be a program, and a partial directory is as open to others as the store is, so here a checkpoint may
name only the types that ours are made of.
"""

from __future__ import annotations

import io
import pickle  # of which only the reading is used, and that of the types below alone
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader
from torch.distributed.checkpoint.planner import ReadItem

from recdistill.errors import ArtifactError

LIST = ".metadata"
FIX = "delete the partial directory: the training begins again"
_METADATA, _FILES = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"
ALLOWED = {
    (_METADATA, name)
    for name in (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    )
}
ALLOWED |= {(_FILES, "_StorageInfo"), (_FILES, "_StoragePrefix"), ("torch", "Size"), ("collections", "OrderedDict")}
ALLOWED |= {("torch.serialization", "_get_layout"), ("pathlib", "PosixPath"), ("pathlib", "Path")}
ALLOWED |= {
    ("torch", str(kind).removeprefix("torch.")) for kind in vars(torch).values() if isinstance(kind, torch.dtype)
}


class _Plain(pickle.Unpickler):
    """Reads what is made of ALLOWED types and of none other."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint of ours holds")
        return super().find_class(module, name)


class Reader(FileSystemReader):
    """Reads a checkpoint's list only after it has been found to be one."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
        check_list(Path(self.path))
        return super().read_metadata(*args, **kwargs)


class Planner(DefaultLoadPlanner):
    """Reads values that are no tensors only after they have been found to be plain numbers, words and lists."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        try:
            torch.load(value, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as cause:
            what = f"the checkpoint's {read_item.dest_index.fqn} is no plain value ({str(cause).splitlines()[0]})"
            raise ArtifactError(what, where="checkpoint", fix=FIX) from cause
        value.seek(0)
        super().load_bytes(read_item, value)


def check_list(path: Path) -> None:
    """Raise ArtifactError unless the checkpoint at `path` lists nothing but tensors and values in files of its own."""
    file = path / LIST
    try:
        with file.open("rb") as stream:
            found = _Plain(stream).load()
        names = {info.relative_path for info in found.storage_data.values()}
    except Exception as cause:  # what a pickle that is none makes its reader raise has no end
        raise ArtifactError(f"cannot be read as a checkpoint ({cause})", where=str(file), fix=FIX) from cause
    if outside := sorted(str(name) for name in names if not isinstance(name, str) or Path(name).name != name):
        raise ArtifactError(f"names {outside[0]!r}, outside the checkpoint", where=str(file), fix=FIX)
