"""The trainings of a sweep: each a piece that a process of its own can make, cached like every stage."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing import get_context, parent_process
from threading import Thread

from pipelines.rounds import Source, learn
from pipelines.sweep_judge import judge
from recdistill import stages
from recdistill.config import Config
from recdistill.errors import RecdistillError
from recdistill.models.spec import Fitted
from recdistill.stages import Data, Run
from recdistill.types import Artifact, Log, quiet

Name = tuple[str, bool]
"""The fingerprint of a training, and whether it is measured too."""
Tick = Callable[[str, float | None], None]
"""Told of each piece that is done: its name, and its validation NDCG@10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One training: a student of `config`, taught by `source` unless it is a scratch one."""

    name: str
    config: Config
    data: Data
    seed: int
    taught: bool
    source: Source | None = None
    factor: float = 1.0  # of the weight of every term
    judged: bool = True  # measured on the test part too

    def fit(self, run: Run) -> Artifact:
        """Return the trained model, found or built."""
        student = self.config.student
        train = student.train.model_copy(update={"seed": self.seed})
        if not self.taught:
            name = f"{self.name}, seed {self.seed}"
            return stages.fit(self.data, student.model, train, self.config.exec, run, name=name)
        assert self.source is not None
        terms = [t.model_copy(update={"weight": t.weight * self.factor}) for t in self.config.distill]
        config = self.config.model_copy(update={"distill": tuple(terms)})
        return learn(config, self.data, self.source, train, run, name=self.name)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came of a piece: its artifacts, or why there are none."""

    fit: Artifact | None = None
    judged: Artifact | None = None
    reason: str = ""

    @property
    def hit(self) -> bool:
        """Say whether all of it was found."""
        return self.fit is not None and self.fit.hit and (self.judged is None or self.judged.hit)

    @property
    def valid(self) -> float | None:
        """Return the NDCG@10 on the validation part."""
        return None if self.fit is None else self.fit.manifest.facts.get("valid_ndcg_at_10")


def make(pieces: Sequence[Piece], run: Run, jobs: int, tick: Tick) -> list[Made]:
    """Return what comes of each of `pieces`, in their order, made in `jobs` processes; equal ones are made once."""
    planned = [_make(piece, replace(run, dry=True, log=quiet)) for piece in pieces]
    names = [_name(made, i) for i, made in enumerate(planned)]
    unique = dict(zip(names, pieces, strict=True))
    done = {name for name, made in zip(names, planned, strict=True) if made.hit}
    found: dict[Name, Made] = {}
    missing = {name: piece for name, piece in unique.items() if name not in done}
    near = {name: unique[name] for name in done} | (missing if jobs == 1 else {})
    for name, made in chain(_alone(near, run), _together(missing, run, jobs) if jobs > 1 and missing else ()):
        found[name] = made
        tick(unique[name].name, made.valid)
    for _ in names[len(unique) :]:  # twins of those
        tick("", None)
    return [found[name] for name in names]


def _name(made: Made, i: int) -> Name:
    return (str(i) if made.fit is None else made.fit.fingerprint, made.judged is not None)


def reason(error: BaseException) -> str:
    """Return in one line why something failed."""
    text = str(error) if isinstance(error, RecdistillError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def shown(log: Log) -> Log:
    """Return what logs a training in the one bar `this fit`; nothing where there are no bars."""
    return (lambda _, done, total, values: log("this fit", done, total, values)) if sys.stderr.isatty() else quiet


def _make(piece: Piece, run: Run) -> Made:
    """Train and measure one piece; what goes wrong is what came of it."""
    try:
        fit = piece.fit(run)
        fitted = Fitted(piece.config.student.model, fit)
        return Made(fit=fit, judged=judge(piece.data, fitted, piece.config, run) if piece.judged else None)
    except Exception as error:
        return Made(reason=reason(error))


def _alone(pieces: Mapping[Name, Piece], run: Run) -> Iterator[tuple[Name, Made]]:
    for name, piece in pieces.items():
        yield name, _make(piece, replace(run, log=shown(run.log)))


def _together(pieces: Mapping[Name, Piece], run: Run, jobs: int) -> Iterator[tuple[Name, Made]]:
    start, device = get_context("spawn"), run.world.device
    pool = ProcessPoolExecutor(jobs, mp_context=start, initializer=_begin)
    try:
        waiting = {pool.submit(_elsewhere, piece, replace(run, log=quiet), device): n for n, piece in pieces.items()}
        for future in as_completed(waiting):
            error = future.exception()
            yield waiting[future], future.result() if error is None else Made(reason=reason(error))
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Make a process one thread wide before any library counts the cores, and have it end with the one that asked."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "NUMBA_NUM_THREADS": "1"}
    warnings.simplefilter("ignore")


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a sweep that was killed must not keep the locks of what its processes were building


def _elsewhere(piece: Piece, run: Run, device: str) -> Made:
    from recdistill.world import world

    with world(device="cpu" if device == "cpu" else "auto", threads=1) as joined:
        return _make(piece, replace(run, world=joined))
