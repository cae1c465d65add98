"""From one lookup's scores and vectors to what each term compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from recdistill.distill import align
from recdistill.distill.auxiliary import Exit, Head
from recdistill.distill.catalogue import against_rest
from recdistill.distill.graph import smooth
from recdistill.distill.subclass import SubLogits
from recdistill.distill.terms import AlignTerm, ListTerm, key
from recdistill.models.encoders import Encoded
from recdistill.types import Batch, Candidates

Compared = dict[str, tuple[Tensor, Candidates]]
"""Term -> the student's scores [R,K] and what they are compared with."""


class Seat(NamedTuple):
    """Where everybody sits whose vector a step asks for."""

    own: slice  # the users of the batch
    listed: slice  # those whose lists are compared
    crowd: int  # the first of those that lists of items name


def asked_items(
    listing: Sequence[ListTerm], aligning: Sequence[AlignTerm], batch: Batch, num_items: int
) -> list[tuple[Tensor, bool]]:
    """Return the items whose vectors the terms ask for beside scores, in the order in which they are given out.

    Beside each stands whether every process asks for the same.
    """
    lesson = batch.lesson
    found: list[tuple[Tensor, bool]] = [] if lesson.items is None else [(lesson.items, False)]
    for term in listing:
        if term.rest:
            found.append((torch.arange(num_items, device=batch.users.device), True))
        if term.gradient is None and not term.subs:
            continue
        if term.in_batch:  # negatives that the batch shares are asked for once
            negatives = batch.negatives[..., : term.in_batch].reshape(-1)
            found += [(batch.positives, False), (negatives, batch.negatives.dim() == 1)]
        else:
            found.append((lesson.candidates[term.name].items.reshape(-1), False))
    for term in aligning:
        if term.preserve is not None:
            found.append((lesson.candidates[term.name].items.reshape(-1), False))
        if term.filter is not None and "items" in term.sides:
            found.append((lesson.around[term.name].items.reshape(-1), False))
    return found


def list_scores(
    listing: Sequence[ListTerm],
    plain: Sequence[ListTerm],
    batch: Batch,
    seat: Seat,
    scores: Sequence[Tensor],
    encoded: Encoded | None,
    own: Mapping[str, nn.Module],
    temperature: float,
) -> Compared:
    """Return the student's scores for every list term; `plain` are those whose scores follow the batch's own two.

    A term that compares sub-logits has them after each item's score, [R,K,1+2S].
    """
    lesson = batch.lesson
    found = {t.name: (score, lesson.candidates[t.name]) for t, score in zip(plain, scores[2:], strict=True)}
    given = iter(() if encoded is None else encoded.others)
    at = seat.crowd
    items = None if lesson.items is None else next(given)
    for term in listing:
        if term.name in found:
            continue
        candidates = lesson.candidates[term.name]
        if term.rest:
            assert encoded is not None
            assert candidates.seen is not None
            left = encoded.left[seat.listed] / temperature
            student = against_rest(left, next(given), candidates.items[:, :-1], *candidates.seen)
        elif term.subs:
            assert encoded is not None
            left = encoded.left[seat.listed].float() / temperature
            right = next(given).float().view(*candidates.items.shape, -1)
            subs = cast(SubLogits, own[f"{key(term)}_subs"])(left, right)
            student = torch.cat([_each(left, right).unsqueeze(2), subs], dim=2)
        elif term.gradient is not None:
            assert encoded is not None
            head = cast(Head | Exit, own[f"{key(term)}_head"])
            hidden = encoded.shared[seat.own if term.in_batch else seat.listed]
            left = head.user_side(hidden[:, : encoded.left.shape[1]] if term.exit else hidden)
            right = head.item_side(next(given))
            if term.in_batch:
                negatives = head.item_side(next(given))
                shared = batch.negatives.dim() == 1
                rest = left @ negatives.T if shared else _each(left, negatives.view(len(left), -1, left.shape[1]))
                student = torch.cat([(left * right).sum(1, keepdim=True), rest], dim=1) / temperature
            else:
                student = _each(left, right.view(*candidates.items.shape, -1)) / temperature
        elif term.in_batch:
            student = torch.cat([scores[0], scores[1][:, : term.in_batch]], dim=1)
        else:
            assert encoded is not None
            assert items is not None
            size = candidates.items.numel()
            crowd = encoded.left[at : at + size].view(*candidates.items.shape, -1)
            at += size
            student = _each(items, crowd) / temperature
        found[term.name] = student, candidates
    return found


def _each(left: Tensor, right: Tensor) -> Tensor:
    """Return the inner products of each row's vector [n,D] with vectors of its own [n,K,D]: [n,K]."""
    return torch.bmm(right, left.unsqueeze(2)).squeeze(2)


def live(
    listing: Sequence[ListTerm],
    plain: Sequence[ListTerm],
    compared: Compared,
    spoken: Sequence[Tensor],
) -> Compared:
    """Return `compared` with what the partner says in this step as the teacher's scores, or as the learner's."""
    said = {t.name: score for t, score in zip(plain, spoken[2:], strict=True)}
    found = dict(compared)
    for term in listing:
        if term.teacher == "labels":
            continue
        student, candidates = compared[term.name]
        batched = [spoken[0], spoken[1][:, : term.in_batch]]
        partner = torch.cat(batched, dim=1) if term.in_batch else said[term.name]
        teacher, learner = (partner, student) if term.teacher == "partner" else (student, partner)
        known = teacher.detach().masked_fill(candidates.items < 0, -torch.inf)
        found[term.name] = learner, replace(candidates, teacher=known)
    return found


def align_values(
    aligning: Sequence[AlignTerm],
    batch: Batch,
    seat: Seat,
    listing: Sequence[ListTerm],
    encoded: Encoded,
    own: Mapping[str, nn.Module],
) -> dict[str, Tensor]:
    """Return the value of each term over vectors: the mean over its sides of the mean over a side's entities."""
    return dict(_aligned(aligning, batch, seat, listing, encoded, own))


def _aligned(
    aligning: Sequence[AlignTerm],
    batch: Batch,
    seat: Seat,
    listing: Sequence[ListTerm],
    encoded: Encoded,
    own: Mapping[str, nn.Module],
) -> Iterator[tuple[str, Tensor]]:
    lesson = batch.lesson
    if lesson.items is None:
        return
    given = iter(encoded.others)
    sides = {"users": encoded.left[seat.listed], "items": next(given)}
    for term in listing:  # whose vectors come first, and whose crowd sits first
        for _ in range(int(term.rest or term.subs) + (0 if term.gradient is None else 2 if term.in_batch else 1)):
            next(given)
    at = seat.crowd + sum(lesson.candidates[t.name].items.numel() for t in listing if t.side == "items")
    for term in aligning:
        kept = next(given) if term.preserve is not None else None
        taught = dict(zip(("users", "items"), lesson.features[term.name], strict=True))
        around: Mapping[str, Tensor] = {}
        weights: Mapping[str, Tensor] = {}
        if term.filter is not None:
            near = lesson.around[term.name]
            weights = {"users": near.user_weights, "items": near.item_weights}
            if "users" in term.sides:
                size = near.users.numel()
                around = {"users": encoded.left[at : at + size]}
                at += size
            if "items" in term.sides:
                around = {**around, "items": next(given)}
        value = torch.zeros((), device=encoded.left.device)
        for side in term.sides:
            module = own[f"{key(term)}_{side}"]
            student, teacher = sides[side], taught[side]
            if term.filter is not None:
                alpha, keep = term.filter["alpha"], term.filter["keep"]
                near_by = around[side].view(*weights[side].shape, -1)
                student = smooth(student, near_by, weights[side], alpha=alpha, keep=keep if module.training else 1.0)
            value = value + module(student, teacher, lesson.at).mean() / len(term.sides)
        if term.preserve is not None and kept is not None:
            value = value + term.preserve["weight"] * _kept(term, batch, sides, kept, taught, own).mean()
        yield term.name, value


def _kept(
    term: AlignTerm,
    batch: Batch,
    sides: Mapping[str, Tensor],
    kept: Tensor,
    taught: Mapping[str, Tensor],
    own: Mapping[str, nn.Module],
) -> Tensor:
    """Return by how much the adapters change the student's ranking of a few items of each user, [R] (PCKD)."""
    assert term.preserve is not None
    shape = batch.lesson.candidates[term.name].items.shape
    items = kept.view(*shape, -1)
    before = _each(sides["users"], items)
    maps = [cast(align.Distance, own[f"{key(term)}_{side}"]).adapter for side in ("users", "items")]
    left = maps[0](sides["users"], taught["users"], batch.lesson.at)
    right = maps[1](kept, batch.lesson.kept[term.name], batch.lesson.at)
    after = _each(left, right.view(*shape, -1))
    return align.preserve(before, after, temperature=term.preserve["temperature"])
