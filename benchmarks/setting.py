"""What every part of a run is given: the log, vectors, how long it may take, and the peers' environments."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.environments import environment
from benchmarks.handover import write_log
from benchmarks.workers import Crew, crew

OURS = "ours.py"
VECTORS = {  # of a model that has learned something: scores of a trained model are no noise
    "dim": 64,
    "model": {"space": "cosine", "temperature": 0.1},
    "train": {"batch": 8192, "negatives": 512, "lr": 0.3},
}


@dataclass(frozen=True)
class Setting:
    """One run of `make bench`."""

    data: Path | None  # folder of train.parquet and test.parquet
    folder: Path  # for what is handed over, and what the peers say
    environments: Path
    quick: bool

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 5

    def share(self, work: int) -> int:
        """Return how much of the work of a round there is, which is less where it must be quick."""
        return max(1, work // 4) if self.quick else work

    def python(self, name: str) -> Path | str:
        """Return the Python of a peer's environment, or why it has none."""
        return environment(name, self.environments)

    @cached_property
    def log(self) -> str:
        """Return the file of the log, test users thinned out where it must be quick."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return str(write_log(self.folder / "log.npz", self.data, share=8 if self.quick else 1))

    @cached_property
    def vectors(self) -> str:
        """Return the file of vectors, [U,64] and [I,64], that a few epochs of training gave."""
        out = self.folder / "vectors.npz"
        with self.crew("vectors") as made:
            made.add("vectors", OURS, "train", data=self.log, steps=None, **VECTORS)
            worker = made.need("vectors")
            for _ in range(1 if self.quick else 4):
                worker()
            worker.ask(do="save", path=str(out))
        return str(out)

    @cached_property
    def items(self) -> int:
        return int(np.load(self.log)["items"])

    @contextmanager
    def crew(self, part: str) -> Iterator[Crew]:
        print(f"{part} ...", file=sys.stderr, flush=True)
        with crew(self.folder / "said" / part) as made:
            yield made
