"""The file of a teacher's head of sub-logits, beside its weights and beside its vectors in a label store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recdistill.errors import ArtifactError
from recdistill.store import aside
from recdistill.types import Float

HEAD = "subclasses.safetensors"


def read_head(folder: Path) -> tuple[Float, Float] | None:
    """Return the weights [2S,D] and biases [2S] of the head in `folder`; None where there is none.

    Raises ArtifactError for a file that is no such head.
    """
    path = folder / HEAD
    if not path.is_file():
        return None
    try:
        found = load_file(path)
        weight, bias = (np.ascontiguousarray(found[name], dtype=np.float32) for name in ("weight", "bias"))
        assert weight.ndim == 2
        assert bias.shape == (len(weight),)
        assert not len(bias) % 2
    except (OSError, SafetensorError, KeyError, AssertionError) as cause:
        fix = "delete the directory and run the same command again"
        raise ArtifactError(f"cannot be read as a head of sub-logits ({cause!r})", where=str(path), fix=fix) from cause
    return weight, bias


def write_head_file(folder: Path, weight: Float, bias: Float) -> None:
    """Write weights [2S,D] and biases [2S] as the head in `folder`."""
    parts = {"weight": weight, "bias": bias}
    with aside(folder / HEAD) as file:
        save_file({name: np.ascontiguousarray(part, dtype=np.float32) for name, part in parts.items()}, file)
