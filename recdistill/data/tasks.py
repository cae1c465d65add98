"""What the log declares of each interaction besides that it happened: the targets of a ranker's further heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recdistill.errors import DataError
from recdistill.types import Dataset

if TYPE_CHECKING:
    from recdistill.models.spec import TaskSpec


def targets(dataset: Dataset, tasks: Mapping[str, TaskSpec]) -> dict[str, Tensor]:
    """Return for each task whether each training interaction is one of it: name -> [n] of 1, 0, NaN where unknown.

    Raises DataError if the data lacks the column or the event, or if a task is true or false of every interaction,
    from which nothing can be learned.
    """
    found = {}
    for name, task in tasks.items():
        where = f"teacher.model.tasks.{name}"
        if task.event is not None:
            events = dataset.train.events
            if events is None or task.event not in dataset.events:
                known = ", ".join(dataset.events) or "none"
                raise DataError(f"no event {task.event!r} in the log", where=where, fix=f"its events are: {known}")
            told = np.where(events < 0, np.nan, events == dataset.events.index(task.event))
        else:
            weights = dataset.train.weights
            if weights is None:
                raise DataError("the log has no weights", where=where, fix="name their column in log.weight")
            assert task.min_weight is not None  # the specification asks for one of the two
            told = np.where(np.isnan(weights), np.nan, weights >= task.min_weight)
        known = told[~np.isnan(told)]
        if not len(known) or known.min() == known.max():
            what = "it is the same of every training interaction, so there is nothing to learn"
            raise DataError(what, where=where, fix="choose another event or min_weight, or drop the task")
        found[name] = torch.from_numpy(told.astype(np.float32))
    return found
