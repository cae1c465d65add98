"""What is left of a teacher's subclasses when its training ends: the head, and how much of it is used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.distill.subclass import Classes, SubLogits, noise, sub_logits
from recdistill.models.heads import HEAD, read_head
from recdistill.models.spec import LightGCNSpec, ModelSpec, RankerSpec, TrainSpec
from recdistill.store import aside
from recdistill.teaching import Teaching
from recdistill.types import Dataset, Float

PAIRS = 20_000  # whose subclasses are counted


def classes_of(spec: ModelSpec, settings: TrainSpec) -> Classes | None:
    """Return the head that a teacher trains, as wide as the vectors that labels keep of it; None if it trains none."""
    asked = settings.subclasses
    if asked is None:
        return None
    assert not isinstance(spec, RankerSpec)
    prior = int(isinstance(spec, LightGCNSpec) and spec.popularity > 0)  # one column more
    first = noise(spec.dim, spec.space, spec.temperature)
    head = SubLogits(spec.dim + prior, asked.count, noise=first, given=prior)
    return Classes(head, **asked.model_dump(exclude={"count"}))


def taught_subs(teaching: Teaching | None) -> int:
    """Return how many sub-logits the teacher has whose labels teach; 0 where they keep none."""
    labels = None if teaching is None else teaching.labels
    return 0 if labels is None or labels.subclasses is None else len(labels.subclasses[1])


def kept_head(out: Path, best: int, vectors: tuple[Float, Float], dataset: Dataset) -> dict[str, Any]:
    """Leave the head of the best validation in `out`, take the others away; return the fact of how it is used.

    `vectors` are those of that validation, as labels keep them. Of a model that trained no head there is no fact.
    """
    steps = list(out.glob("subclasses-*.safetensors"))
    if not steps:
        return {}
    with aside(out / HEAD) as file:
        file.write_bytes((out / f"subclasses-{best}.safetensors").read_bytes())
    for old in steps:
        old.unlink()
    head = read_head(out)
    assert head is not None
    return {"subclass_usage": usage(*vectors, head, dataset)}


def usage(users: Float, items: Float, head: tuple[Float, Float], dataset: Dataset) -> dict[str, float]:
    """Return for "taken" and "not_taken" how evenly their pairs fall into the S subclasses, from 0 to 1.

    It is the entropy of how often each is the likeliest of its class, over log S: among training interactions, evenly
    apart, and among the same users with items at random. Vectors are those that the head reads.
    """
    train = dataset.train
    every = np.linspace(0, len(train) - 1, min(PAIRS, len(train))).round().astype(np.int64)
    owners, taken = train.users()[every], np.asarray(train.items)[every]
    other = np.random.Generator(np.random.Philox(17)).integers(dataset.num_items, size=len(every))
    weight, bias = map(torch.from_numpy, head)
    found = {}
    for name, chosen, part in (("taken", taken, 0), ("not_taken", other, 1)):
        left, right = torch.from_numpy(users[owners]), torch.from_numpy(items[chosen])
        subs = sub_logits(left, right.unsqueeze(1), weight, bias)[:, 0].chunk(2, dim=1)[part]
        found[name] = evenness(subs.argmax(1), subs.shape[1])
    return found


def evenness(chosen: Tensor, count: int) -> float:
    """Return the entropy of how often each of `count` is `chosen` [n], over log `count`."""
    shares = chosen.bincount(minlength=count).double() / max(1, len(chosen))
    return -float(torch.special.xlogy(shares, shares).sum()) / math.log(count)
