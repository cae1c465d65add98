"""The label store: a teacher's ranked lists as Arrow IPC shards of fixed-size lists, memory-mapped, in user order.

    pl.read_ipc("labels/*.arrow")        user, items [K], scores [K], residual; one row a user
    labels/labels.json                   which teacher, which score space, how deep, over how many users and items

Row `u` of the whole store is user `u`. Items are dense rows in teacher order, -1 (score -inf) where a list is
shorter. `residual` is the logsumexp of the teacher's scores that are not in the list, so that a softmax over the list
can be told from one over everything the teacher scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recdistill.errors import ArtifactError
from recdistill.store import aside
from recdistill.types import Float, Int, Labels

PER_SHARD = 65_536  # users a shard: the unit of work that a killed run does not lose
FACTS = "labels.json"
REBUILD = "delete the directory and run the same command again"


def shard_path(out: Path, shard: int) -> Path:
    """Return where shard `shard` of the store `out` is."""
    return out / f"labels-{shard:05d}.arrow"


def missing_shards(out: Path, num_users: int, per_shard: int = PER_SHARD) -> Iterator[tuple[int, Int]]:
    """Yield (shard, its users) for each shard that is not written yet; a shard is renamed into place when whole."""
    for shard, start in enumerate(range(0, num_users, per_shard)):
        if not shard_path(out, shard).is_file():
            yield shard, np.arange(start, min(start + per_shard, num_users), dtype=np.int64)


def write_shard(out: Path, shard: int, users: Int, items: Int, scores: Float, residual: Float) -> None:
    """Write the lists of `users` [n]: items [n,K], scores [n,K] in teacher order, residual [n]."""
    depth = items.shape[1]
    table = pa.table(
        {
            "user": pa.array(users, pa.int64()),
            "items": pa.FixedSizeListArray.from_arrays(pa.array(items.reshape(-1), pa.int32()), depth),
            "scores": pa.FixedSizeListArray.from_arrays(pa.array(scores.reshape(-1), pa.float32()), depth),
            "residual": pa.array(residual, pa.float32()),
        }
    )
    batch = table.combine_chunks().to_batches()[0]
    with (
        aside(shard_path(out, shard)) as file,
        pa.OSFile(str(file), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_batch(batch)


def coverage(labels: Labels) -> dict[str, Any]:
    """Return how many users have a list, and how long the lists are."""
    lengths = np.concatenate([(shard >= 0).sum(1) for shard in labels.items])
    return {
        "users": len(lengths),
        "users_with_labels": int((lengths > 0).sum()),
        "mean_length": round(float(lengths.mean()), 3) if len(lengths) else 0.0,
        "shortest": int(lengths.min(initial=labels.depth)),
    }


def open_labels(path: Path, *, num_users: int | None = None, num_items: int | None = None) -> Labels:
    """Map the label store at `path`; raises ArtifactError if it is not whole, or of other users or items."""
    facts = read_facts(path)
    for name, wanted in (("num_users", num_users), ("num_items", num_items)):
        if wanted is not None and facts[name] != wanted:
            what = f"labels over {facts[name]} {name.removeprefix('num_')}, data of {wanted}"
            raise ArtifactError(what, where=str(path), fix="label again with the data at hand")
    shards = -(-facts["num_users"] // facts["per_shard"])
    parts = [_open_shard(shard_path(path, s), s * facts["per_shard"], facts["depth"]) for s in range(shards)]
    items, scores, residual = zip(*parts, strict=True) if parts else ((), (), ())
    found = sum(len(part) for part in items)
    if found != facts["num_users"]:
        what = f"{found} users in the shards where {FACTS} says {facts['num_users']}"
        raise ArtifactError(what, where=str(path), fix=REBUILD)
    return Labels(items=items, scores=scores, residual=residual, per_shard=facts["per_shard"], facts=facts)


def read_facts(path: Path) -> Mapping[str, Any]:
    """Return what labels.json says; raises ArtifactError if it is missing or malformed."""
    file = path / FACTS
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        assert all(isinstance(facts[name], int) for name in ("num_users", "num_items", "depth", "per_shard"))
        assert min(facts["per_shard"], facts["depth"]) > 0, "a shard or a list of no length"
    except FileNotFoundError:
        raise ArtifactError("not a label store: there is no labels.json", where=str(path), fix=REBUILD) from None
    except (ValueError, KeyError, TypeError, AssertionError) as cause:
        raise ArtifactError(f"cannot be read ({cause!r})", where=str(file), fix=REBUILD) from cause
    return facts


def _open_shard(path: Path, start: int, depth: int) -> tuple[Any, Any, Any]:
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all().combine_chunks()
        columns = [table.column(name).chunk(0) for name in ("user", "items", "scores", "residual")]
    except (OSError, pa.ArrowException, KeyError, IndexError) as cause:
        raise ArtifactError(f"cannot be read as a shard of labels ({cause})", where=str(path), fix=REBUILD) from cause
    users, items, scores, residual = columns
    if items.type != pa.list_(pa.int32(), depth) or scores.type != pa.list_(pa.float32(), depth):
        what = f"lists of type {items.type} and {scores.type} where {FACTS} says a depth of {depth}"
        raise ArtifactError(what, where=str(path), fix=REBUILD)
    if len(users) and (users[0].as_py() != start or users[-1].as_py() != start + len(users) - 1):
        raise ArtifactError(f"does not start at user {start}", where=str(path), fix=REBUILD)
    return (
        items.flatten().to_numpy().reshape(-1, depth),
        scores.flatten().to_numpy().reshape(-1, depth),
        residual.to_numpy(),
    )
