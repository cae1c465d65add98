"""What a user writes about a training that begins where yesterday's ended."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveFloat, PositiveInt

from recdistill.spec import Spec


class WarmSpec(Spec):
    """What such a training does otherwise than one that begins at random."""

    epochs: PositiveInt
    """Instead of `train.epochs`: much is learned already."""
    lr: PositiveFloat | None = None
    """Instead of `train.lr`; left out, that. Optimizers begin anew, and Adagrad's first steps are its longest."""

    @property
    def changes(self) -> dict[str, Any]:
        """Return what it changes of a TrainSpec, by name."""
        return self.model_dump(exclude_none=True)
