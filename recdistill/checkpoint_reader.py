"""Checkpoints looked through before they are read, so that nothing they hold is run.

torch.distributed.checkpoint unpickles the file that lists a checkpoint, and every value in it that is no tensor. What
was pickled can be a program, and a partial directory is as open to others as the store is, so here a checkpoint may
name only the types that ours are made of.
"""

from __future__ import annotations

import io
import pickle  # of which only the reading is used, and that of the types below alone
import pickletools
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from recdistill.errors import ArtifactError

LIST = ".metadata"
PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
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


def check_checkpoint(path: Path) -> None:
    """Raise ArtifactError unless the checkpoint at `path` is made of tensors and plain values in files of its own."""
    file = path / LIST
    try:
        data = file.read_bytes()
        places = (int(argument or 0) for code, argument, _ in pickletools.genops(data) if code.name in PUTS)
        if any(place > len(data) for place in places):  # for which its reader would take all memory there is
            raise pickle.UnpicklingError("it counts more values than it has bytes")
        found = _Plain(io.BytesIO(data)).load()
        values = {name for name, kind in found.state_dict_metadata.items() if isinstance(kind, BytesStorageMetadata)}
        places = {index.fqn: info for index, info in found.storage_data.items()}
        names = {str(info.relative_path) for info in found.storage_data.values()}
    except Exception as cause:  # what a pickle that is none makes its reader raise has no end
        raise ArtifactError(f"cannot be read as a checkpoint ({cause})", where=str(file), fix=FIX) from cause
    if outside := sorted(name for name in names if Path(name).name != name):
        raise ArtifactError(f"names {outside[0]!r}, outside the checkpoint", where=str(file), fix=FIX)
    for name in sorted(values):
        _check_value(path, name, places.get(name))


def _check_value(path: Path, name: str, place: Any) -> None:
    try:
        with (path / place.relative_path).open("rb") as stream:
            stream.seek(place.offset)
            torch.load(io.BytesIO(stream.read(place.length)), weights_only=True)
    except Exception as cause:
        what = f"{name} is no plain value ({str(cause).splitlines()[0] if str(cause) else cause!r})"
        raise ArtifactError(what, where=str(path), fix=FIX) from cause
