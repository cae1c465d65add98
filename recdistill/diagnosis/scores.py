"""What a diagnosis reads from scores of the whole catalogue, block by block of users, each model beside the teacher."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recdistill.calibrate import fit_temperature
from recdistill.diagnose.chances import Mask
from recdistill.diagnose.deviation import exaggeration, spectrum_of_scores, spectrum_of_vectors, top_odds
from recdistill.diagnose.fidelity import divergence
from recdistill.diagnose.flatness import Parameters, flatness
from recdistill.diagnose.frontier import likelihood, teacher_chance
from recdistill.diagnose.noise import moments, noise, together
from recdistill.diagnosis.form import Bin, Direction, Exaggeration, Reliability, Rise, Variance, make
from recdistill.diagnosis.voices import Heard
from recdistill.heldout import Held, Sheet, rows_at_once
from recdistill.metrics import Values
from recdistill.reliability import listwise
from recdistill.topk import blocks
from recdistill.types import Float, Int, Interactions, Vectors

WEIGHTS = (0.25, 0.5, 0.75, 1.0)  # of the teacher, at which gradient noise is told
RHOS, DRAWS = (0.01, 0.05, 0.2), 10
FLAT_PAIRS = 2_000_000  # scores of one evaluation of the loss
DIRECTIONS = 16


class Apart(NamedTuple):
    """How far a model's chances are from the teacher's, one value a scored user [m] each."""

    kl: Values
    teacher_odds: Values
    odds: Values


def apart(scores: Tensor, teacher: Tensor) -> Apart:
    """Return the divergence from the teacher, and both log-odds of the teacher's first item; scores [m,I] of both."""
    parts = []
    for start, stop in blocks(len(scores), rows_at_once(scores)):
        one, other = scores[start:stop].numpy(), teacher[start:stop].numpy()
        parts.append((divergence(one, other), *top_odds(one, other)))
    if not parts:
        return Apart(*(np.zeros(0) for _ in range(3)))
    return Apart(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def slope(part: str, model: str, found: Apart) -> Exaggeration:
    """Return the line of the model's log-odds on the teacher's."""
    line = exaggeration(found.teacher_odds, found.odds)
    return make(
        Exaggeration,
        part=part,
        model=model,
        slope=line.slope,
        intercept=line.intercept,
        unsure=line.unsure,
        users=line.users,
    )


def traded(heard: Heard, teacher: Tensor | None, lists: Int, held: Held) -> tuple[Values, Values]:
    """Return the teacher's log-chances of what the model shows, and the model's of what is held out: [m] each.

    `lists` [m,K] are those of the scored users; NaN where there are no scores.
    """
    nothing = np.full(len(lists), np.nan)
    chance, likely = nothing.copy(), nothing.copy()
    for start, stop in blocks(len(lists), _at_once(heard, teacher)):
        inside = (held.rows >= start) & (held.rows < stop)
        if teacher is not None:
            chance[start:stop] = teacher_chance(lists[start:stop], teacher[start:stop].numpy(), lists.shape[1])
        if heard.scores is not None:
            part = heard.scores[start:stop].numpy()
            likely[start:stop] = likelihood(part, held.rows[inside] - start, held.items[inside])
    return chance, likely


def reliability(model: str, scores: Tensor, held: Held) -> Reliability:
    """Return how well the softmax of `scores` [m,I] tells what is held out, and the temperature that would."""
    sheets = [Sheet(scores, held)]
    found, users = listwise(sheets, 1.0), len(held.users)
    bins = [
        Bin(
            chance=row["expected"] * users / row["pairs"],
            observed=row["observed"] * users / row["pairs"],
            pairs=row["pairs"],
        )
        for row in found["table"]
    ]
    temperature = fit_temperature(sheets)
    return make(Reliability, model=model, ece=found["ece"], nll=found["nll"], temperature=temperature, bins=bins)


def variance(model: str, scores: Tensor, teacher: Tensor, items: Float, held: Held) -> Variance:
    """Return how much gradient noise the teacher takes away on what is held out, which neither model learned from.

    `items` [I,D] are the model's vectors, through which a user's gradient passes.
    """
    found = []
    for start, stop in blocks(len(scores), rows_at_once(scores)):
        one, other = scores[start:stop].numpy(), teacher[start:stop].numpy()
        taken = _taken(held, start, stop, one.shape[1])
        found.append(moments(one, other, taken, items, np.isfinite(one) & np.isfinite(other)))
    whole = together(found)
    each = {weight: noise(whole, weight) for weight in WEIGHTS}
    first = each[WEIGHTS[0]]
    ratios = {f"{weight:g}": value.ratio for weight, value in each.items()}
    return make(Variance, model=model, rho2=first.rho2, best=first.best, ratios=ratios, users=whole.rows)


def rises(model: str, vectors: tuple[Float, Float], held: Held, *, seed: int) -> list[Rise]:
    """Return what noise in every vector costs in list cross-entropy on what is held out, at each size of noise.

    `vectors` are those of all users and items; of the scored users as many are taken as are quick.
    """
    rows = held.users[: max(1, FLAT_PAIRS // len(vectors[1]))]
    kept = held.rows < len(rows)
    at, items = torch.from_numpy(held.rows[kept]), torch.from_numpy(held.items[kept])
    weight = torch.from_numpy(held.weight[kept]).float()
    known = _seen(held.seen, rows, len(vectors[1]))

    def loss(parameters: Parameters) -> float:
        scores = (parameters["users"] @ parameters["items"].T).masked_fill_(known, -torch.inf)
        logs = scores[at, items] - scores.logsumexp(1)[at]
        there = torch.isfinite(logs)
        return float(-(weight * logs.masked_fill(~there, 0.0)).sum() / (weight * there).sum())

    sides = {"users": torch.from_numpy(vectors[0][rows]), "items": torch.from_numpy(np.array(vectors[1]))}
    found = flatness(sides, loss, rhos=RHOS, draws=DRAWS, seed=seed)
    each = zip(found.rhos, found.rise, found.error, strict=True)
    return [
        make(Rise, model=model, rho=float(rho), rise=float(rise), error=float(error), loss=found.loss)
        for rho, rise, error in each
    ]


def directions(model: str, heard: Heard, teacher: Heard, counts: Int) -> list[Direction]:
    """Return what the model makes of the teacher's first directions: of vectors where both have them, else of scores.

    Of scores it is over the pairs that both models score, of some users. Empty where one has none.
    """
    if heard.vectors is not None and teacher.vectors is not None:
        one, other = (Vectors(users=users, items=items) for users, items in (heard.vectors, teacher.vectors))
        found = spectrum_of_vectors(one, other, counts, k=DIRECTIONS)
    elif heard.scores is not None and teacher.scores is not None:
        # A pair that is no candidate is given the row's mean, which centring makes nothing.
        filled = [_filled(scores) for scores in _together(heard.scores, teacher.scores)]
        found = spectrum_of_scores(filled[0], filled[1], counts, k=DIRECTIONS)
    else:
        return []
    each = zip(found.teacher, found.residual, found.gain, found.popularity, strict=True)
    return [
        make(
            Direction, model=model, direction=i, teacher=float(t), residual=float(r), gain=float(g), popularity=float(p)
        )
        for i, (t, r, g, p) in enumerate(each, start=1)
    ]


def _at_once(heard: Heard, teacher: Tensor | None) -> int:
    scores = heard.scores if teacher is None else teacher
    return max(1, len(heard.lists)) if scores is None else rows_at_once(scores)


def _together(scores: Tensor, teacher: Tensor) -> tuple[Values, Values]:
    rows = max(1, FLAT_PAIRS // max(1, scores.shape[1]))
    one, other = scores[:rows].double().numpy(), teacher[:rows].double().numpy()
    both = np.isfinite(one) & np.isfinite(other)
    return np.where(both, one, np.nan), np.where(both, other, np.nan)


def _filled(scores: Values) -> Values:
    known = np.isfinite(scores)
    mean = np.where(known, scores, 0.0).sum(1, keepdims=True) / np.maximum(known.sum(1, keepdims=True), 1)
    return np.where(known, scores, mean)


def _taken(held: Held, start: int, stop: int, num_items: int) -> Mask:
    inside = (held.rows >= start) & (held.rows < stop)
    taken = np.zeros((stop - start, num_items), bool)
    taken[held.rows[inside] - start, held.items[inside]] = True
    return taken


def _seen(seen: Interactions, users: Int, num_items: int) -> Tensor:
    counts = np.diff(seen.indptr)[users]
    row = np.repeat(np.arange(len(users)), counts)
    at = np.arange(len(row)) + np.repeat(np.asarray(seen.indptr)[users] - (np.cumsum(counts) - counts), counts)
    known = torch.zeros(len(users), num_items, dtype=torch.bool)
    known[torch.from_numpy(row), torch.from_numpy(np.asarray(seen.items)[at])] = True
    return known
