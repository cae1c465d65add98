"""How long the teacher takes for the same answer, in a process of its own, in turns with the student's.

The same users in the same order, the same k, one thread, one user at a time. A ranker over a large catalogue takes a
good part of a second for each, so it is asked fewer: as many as SECONDS allow, spread evenly over the turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import RecdistillError
from recdistill.held import id_bytes, total
from recdistill.turns import Answer, Take, Worker, work_in_turns

if TYPE_CHECKING:
    from recdistill.types import Dataset, Features

WARMUP, WARM = 200, 5.0  # queries, or seconds, before any that is timed
QUERIES = 1000
SECONDS = 60.0  # of all that is asked; what is begun is finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the process measures; paths as text, specifications as plain values."""

    ingested: str
    divided: str
    models: Sequence[Mapping[str, Any]]  # each with its path and its spec
    folds: int
    recipe: str | None
    labels: Mapping[str, Any]
    scratch: Mapping[str, Any]  # the encoder that finds a ranker's candidates
    k: int
    turns: int
    repeats: int
    queries: int = QUERIES
    seconds: float = SECONDS


def worker(request: Request) -> Worker:
    """Return the process that measures the teacher, for `take_turns` beside the student's."""
    return Worker("recdistill.teacher_latency", asdict(request))


def begin(given: dict[str, Any]) -> tuple[Take, Answer]:
    """Load the teacher and warm it up; a turn asks its even share of the queries, or of the seconds."""
    import torch

    torch.set_num_threads(1)
    asked = Request(**given)
    dataset, lister, held = _opened(asked)
    users = list(np.random.default_rng(0).integers(dataset.num_users, size=asked.queries))  # the student's are the same
    each = _warm(lister, users)
    budget = {"queries": asked.queries, "seconds": asked.seconds, "turns": asked.turns, "repeats": asked.repeats}
    take, times = evenly(lambda n: _ask(lister, users[n]), **budget, leads=each < asked.seconds / asked.turns / 4)

    def answer() -> dict[str, Any]:
        from recdistill.latency_stats import summarise

        asked_of_it = sum(map(len, times))
        row = {"model": "teacher", "part": "total", **summarise([np.array(part) for part in times])}
        told = {"held": held, "queries": asked_of_it, "torch_threads": torch.get_num_threads()}
        return {"row": row | {"size_bytes": total(held)}, "told": told | _short(asked_of_it, asked)}

    return take, answer


def evenly(
    ask: Callable[[int], float], *, queries: int, seconds: float, turns: int, repeats: int, leads: bool
) -> tuple[Take, list[list[float]]]:
    """Return what takes a turn, and the times of each repeat, which turns fill.

    `ask` asks query n and returns its seconds. A turn asks its share of the `queries`, unless its share of the
    `seconds` is spent. `leads`: it begins with one that is not timed, which finds the caches as others left them;
    beside what slow ones take that is nothing.
    """
    times: list[list[float]] = [[] for _ in range(repeats)]
    spent = 0.0

    def take(turn: int) -> None:
        nonlocal spent
        done, share = sum(map(len, times)), (turn + 1) / turns
        if leads:
            spent += ask(done - 1)
        while done < round(queries * share) and spent < seconds * share:
            times[turn * repeats // turns].append(took := ask(done))
            spent, done = spent + took, done + 1

    return take, times


def _short(queries: int, asked: Request) -> dict[str, str]:
    if queries >= asked.queries:
        return {}
    return {"note": f"{queries} queries of {asked.queries} fitted in {asked.seconds:g} s: p99 is little to go by"}


def _ask(lister: Callable[[Any], object], user: np.int64) -> float:
    started = time.perf_counter()
    lister(np.array([user], np.int64))
    return time.perf_counter() - started


def _warm(lister: Callable[[Any], object], users: Sequence[np.int64]) -> float:
    """Ask until it is warm; returns the seconds that one query takes by then."""
    times, stop = list[float](), time.perf_counter() + WARM
    for user in users[-WARMUP:]:
        times.append(_ask(lister, user))
        if time.perf_counter() > stop:
            break
    return float(np.median(times))


def _opened(asked: Request) -> tuple[Dataset, Callable[[Any], object], dict[str, int]]:
    """Return the data, what lists the best unseen items of a user, and the bytes of each part that it holds."""
    from pydantic import TypeAdapter

    from recdistill.data.dataset import read_dataset
    from recdistill.data.sequences import Sequences
    from recdistill.distill.spec import LabelsSpec
    from recdistill.labelling import candidates, lister_of, ready_teacher
    from recdistill.models.recipe import Teacher
    from recdistill.models.spec import Fitted, ModelSpec
    from recdistill.store import open_artifact

    def restore(model: Mapping[str, Any]) -> Fitted:
        return Fitted(TypeAdapter(ModelSpec).validate_python(model["spec"]), open_artifact(Path(model["path"])))

    dataset = read_dataset(Path(asked.ingested), Path(asked.divided))
    sequences = Sequences.of(dataset.train)
    recipe = None if asked.recipe is None else open_artifact(Path(asked.recipe))
    teacher = Teacher(models=tuple(map(restore, asked.models)), folds=asked.folds, recipe=recipe)
    spec = TypeAdapter(LabelsSpec).validate_python(asked.labels)
    scratch = restore(asked.scratch)
    choose = candidates(dataset, teacher, scratch, spec, sequences, dataset.train)
    made = ready_teacher(dataset, teacher, sequences, dataset.train, whole=choose is None, compute=spec.compute)
    lister = lister_of(made, dataset, teacher, asked.k, dataset.train, choose)
    near = choose is not None and spec.candidates is not None and spec.candidates.ann > 0
    held = {
        "weights": made.size,
        "features": sum(map(_feature_bytes, (dataset.user_features, dataset.item_features))) if teacher.ranks else 0,
        "candidates": _vector_bytes(scratch.artifact.path) if near else 0,
        "ids": id_bytes(dataset.user_ids) + id_bytes(dataset.item_ids),
        "histories": dataset.train.indptr.nbytes + dataset.train.items.nbytes,  # read, or left out of every list
    }
    return dataset, lister, {part: size for part, size in held.items() if size}


def _feature_bytes(features: Features) -> int:
    columns = [*features.categorical.values(), *features.numeric.values()]
    return sum(c.nbytes for c in columns) + sum(a.nbytes + b.nbytes for a, b in features.multi.values())


def _vector_bytes(path: Path) -> int:
    """Return the bytes of the vectors by which an encoder at `path` finds what is near."""
    return sum(np.load(path / f"{side}.npy", mmap_mode="r").nbytes for side in ("users", "items"))


if __name__ == "__main__":
    sys.exit(work_in_turns(Path(sys.argv[1]), begin, RecdistillError))
