"""What a training leaves on disk on its way: checkpoints to go on from, and the weights of the best validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from recdistill.checkpoint import save_checkpoint
from recdistill.finite import Totals, means, sound
from recdistill.models.build import Model
from recdistill.models.tables import Distributed
from recdistill.store import aside
from recdistill.train import Progress, Stopwatch
from recdistill.types import Dataset
from recdistill.world import World


@dataclass(frozen=True, slots=True)
class Keeper:
    """Writes what the loop asks it to; its time is not the training's."""

    out: Path
    model: Distributed
    plain: Model
    judge: Callable[[], float | None]  # the quality of `plain` on the validation part
    world: World
    clock: Stopwatch
    steps: int
    every: int  # steps between checkpoints
    keep: bool  # the weights of every validation, not of the best alone
    prune: Callable[[int], None] | None  # deletes what nobody needs who goes on from a checkpoint
    settle: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None  # what serves, from what was learned
    name: str = "fit"  # of the training, for who reads that it failed

    def evaluate(self, step: int) -> float | None:
        """Validate the weights as they are, and keep them beside the checkpoints; collective.

        Raises StageError if one of them is no number.
        """
        with self.clock.stopped():
            weights = self.model.gather()
            sound(weights, self.world, where=self.name, what=f"the weights after step {step}")
            plain, head = self.served(weights), only(weights, "classes.head.")
            return self.world.share(lambda: self._keep_best(step, plain, head))

    def save(self, now: Progress, totals: Totals | None) -> None:
        """Write a checkpoint where it is time to; collective."""
        if now.step % self.every or now.step >= self.steps:
            return
        self.leave(now, totals)

    def leave(self, now: Progress, totals: Totals | None) -> None:
        """Write a checkpoint; collective. Raises StageError if a loss so far, or what it would hold, is no number."""
        with self.clock.stopped():
            # What the ranks have summed each for itself is averaged, or the others' part would be lost on the way.
            sums = now.sums if totals is None else means(totals, self.world, where=self.name)
            progress = asdict(replace(now, sums=sums))
            sound(self.model.state(), self.world, where=self.name, what=f"weights and optimizer after step {now.step}")
            save_checkpoint(self.out, self.model, now.step, progress, self.world, keep=self.keep)
            if self.prune is not None:
                self.world.share(partial(self.prune, now.step))

    def served(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return of all that was gathered the weights that serve."""
        learned = only(weights, "model.")
        return learned if self.settle is None else self.settle(learned)

    def _keep_best(self, step: int, weights: dict[str, Tensor], head: dict[str, Tensor]) -> float | None:
        """Those that prove not the best go with the next checkpoint."""
        self.plain.load_state_dict(weights)
        with aside(self.out / f"weights-{step}.safetensors") as file:
            save_file(weights, file)
        if head:
            with aside(self.out / f"subclasses-{step}.safetensors") as file:
                save_file(head, file)
        value = self.judge()
        self.plain.train()
        return value


def reached(at: Progress, model: Model, dataset: Dataset, seconds: float, epochs: float) -> dict[str, Any]:
    """Return what is told of a training that came to `at`, of which this process did so many `epochs` in `seconds`.

    Of a run that was killed, or a part of one, those are the rest; the seconds are of steps alone.
    """
    count, judged = sum(p.numel() for p in model.parameters()), len(dataset.valid) and at.best_step
    facts = {"steps": at.step, "best_step": at.best_step, "valid_ndcg_at_10": at.best if judged else None}
    return facts | {"parameters": count, "seconds_per_epoch": seconds / epochs if epochs else None}


def only(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): w.contiguous() for name, w in weights.items() if name.startswith(prefix)}
