"""The models of a teacher, loaded and ready to score; several speak as one, in log-probabilities.

What one of them says of item i is log p(i|u), the log-softmax of its scores over all it may recommend to the user, at
its own temperature. A mixture is log sum_m w_m p_m. With folds, an item is left to the models that did not learn from
it: all of them for what the user never took, one for each training interaction; their chances are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recdistill.data.sequences import Sequences
from recdistill.fit import load
from recdistill.mixture import Real
from recdistill.models.build import ModelSpec, history_length
from recdistill.models.ranker import Ranker
from recdistill.scoring import Scorer, encoder_scorer, mask_seen, ranker_scorer, scaled, vectors
from recdistill.topk import Precision, blocks
from recdistill.types import Dataset, Float, Int, Interactions

WEIGHTS = "weights.safetensors"
USERS_AT_ONCE = 16  # whose whole catalogue is in memory together where only some of it is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """One model that can score."""

    score: Scorer
    size: int  # bytes of what it scores with
    vectors: tuple[Float, Float] | None  # of an encoder: their inner product is its score


def ready(
    spec: ModelSpec,
    path: Path,
    dataset: Dataset,
    sequences: Sequences,
    weights: str = WEIGHTS,
    compute: Precision = "fp32",
) -> Ready:
    """Load the model that was fitted to `dataset` at `path`; `sequences` is what it may read of the users.

    A ranker's scores are computed in `compute`; an encoder's vectors are as they are.
    """
    model, history = load(spec, dataset, path, weights), history_length(spec)
    if isinstance(model, Ranker):
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        dtype = torch.bfloat16 if compute == "bf16" else torch.float32
        score = ranker_scorer(model, sequences, history, dataset.num_items, dtype)
        return Ready(score=score, size=size, vectors=None)
    users, items = scaled(vectors(model, dataset, sequences, history), model.temperature)
    return Ready(score=encoder_scorer(users, items), size=users.nbytes + items.nbytes, vectors=(users, items))


def stored(path: Path) -> Ready:
    """Return what scores by vectors that are on disk in `path`: their inner product is the score."""
    users, items = (np.load(path / f"{side}.npy", mmap_mode="r") for side in ("users", "items"))
    return Ready(score=encoder_scorer(users, items), size=users.nbytes + items.nbytes, vectors=(users, items))


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """What one model contributes: its scores over a temperature, without what it may not recommend."""

    score: Scorer
    temperature: float
    seen: Interactions | None


def together(voices: Sequence[Voice], share: Real, segment: Int, *, whole: bool) -> Scorer:
    """Return log sum_m share_m p_m, each p_m normalised over its own candidates.

    share [S,M] by segment of the user, segment [U]; a member without a share is not asked. `whole` says that the
    candidates are the catalogue, of which some are asked for; else they are the items that are asked for.
    """

    def score(users: Int, items: Tensor | None) -> Tensor:
        if whole and items is not None:  # a chance is one among all, so all are scored, of few users at a time
            parts = [slice(*part) for part in blocks(len(users), USERS_AT_ONCE)]
            return torch.cat([said(users[part], None).gather(1, items[part].clamp(min=0)) for part in parts])
        return said(users, items)

    def said(users: Int, items: Tensor | None) -> Tensor:
        with np.errstate(divide="ignore"):
            logs = torch.from_numpy(np.log(share[segment[users]])).float()
        found: Tensor | None = None
        for m, voice in enumerate(voices):
            at = torch.isfinite(logs[:, m]).nonzero()[:, 0]
            if not len(at):
                continue
            own = _chances(voice, users[at.numpy()], None if items is None else items[at]) + logs[at, m : m + 1]
            if found is None:
                found = torch.full((len(users), own.shape[1]), -torch.inf)
            found[at] = torch.logaddexp(found[at], own)
        assert found is not None, "every segment has a member"
        return found

    return score


def _chances(voice: Voice, users: Int, items: Tensor | None) -> Tensor:
    """Return log p over the candidates `items` [n,C], the whole catalogue if None; -inf for what is none."""
    scores = voice.score(users, items)
    whole = items is None
    asked = torch.arange(scores.shape[1]).expand(len(users), -1) if items is None else items
    scores = scores.masked_fill(asked < 0, -torch.inf)
    if voice.seen is not None:
        scores = mask_seen(scores, asked, voice.seen, users, whole=whole)
    return (scores / voice.temperature).log_softmax(1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def averaged(scorers: Sequence[Scorer]) -> Scorer:
    """Return the log of the mean chance over those of `scorers` that give an item any: the fold teachers of an item."""
    if len(scorers) == 1:
        return scorers[0]

    def score(users: Int, items: Tensor | None) -> Tensor:
        total, count = scorers[0](users, items), None
        count = torch.isfinite(total).float()
        for one in scorers[1:]:
            said = one(users, items)
            total = torch.logaddexp(total, said)
            count += torch.isfinite(said)
        return total - count.clamp(min=1).log()

    return score


def lined(scorer: Scorer, scale: float, shift: float) -> Scorer:
    """Return scale * score + shift."""
    if scale == 1 and shift == 0:
        return scorer
    return lambda users, items: scorer(users, items) * scale + shift


def lined_vectors(users: Float, items: Float, scale: float, shift: float) -> tuple[Float, Float]:
    """Return vectors whose inner product is scale * score + shift."""
    left = users * np.float32(scale)
    if shift == 0:
        return left, items
    extra = math.copysign(math.sqrt(abs(shift)), shift), math.sqrt(abs(shift))
    sides = zip((left, items), extra, strict=True)
    left, right = (np.column_stack([side, np.full(len(side), value, np.float32)]) for side, value in sides)
    return left, right
