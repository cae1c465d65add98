"""What a teacher says of a user: an encoder over the whole catalogue, any scorer over it or over candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recdistill.candidates import REST, Pool, inclusion, logq_of, once, sampled, uniform, unlisted
from recdistill.labels import Lister, Lists
from recdistill.scoring import Chooser, Scorer, ranked
from recdistill.topk import Precision, TopK, blocks, exact_topk
from recdistill.types import Float, Int, Interactions

USERS_AT_ONCE = 4096  # whose candidates are in memory together; what is said of a user does not depend on it


def encoder_lister(
    users: Float, items: Float, depth: int, seen: Interactions | None, *, rest: int = 0, precision: Precision = "fp32"
) -> Lister:
    """Return the lists of an encoder over the whole catalogue, from vectors whose inner product is its logit.

    users [U,D], items [I,D]; `rest` uniform samples a user of what is outside its list.
    """

    def score(rows: Int, asked: Tensor | None) -> Tensor:
        assert asked is not None
        picked = torch.from_numpy(items[asked.clamp(min=0).numpy()])
        return torch.bmm(picked, torch.from_numpy(users[rows]).unsqueeze(2)).squeeze(2)

    def lister(rows: Int) -> Lists:
        lists = listed(exact_topk(users, items, depth, seen=seen, rows=rows, precision=precision))
        return _with_rest(lists, score, rows, rest, len(items), seen) if rest else lists

    return lister


def scored_lister(
    scorer: Scorer,
    num_items: int,
    depth: int,
    *,
    seen: Interactions | None,
    choose: Pool | None = None,
    rest: int = 0,
) -> Lister:
    """Return the lists of `scorer` over the candidates `choose` gives, the whole catalogue if None.

    With candidates the lists say with which probability each item was scored, and the residual is an estimate over the
    whole catalogue. `rest` is how many samples a user are kept of what was scored outside the list.
    """

    def lister(rows: Int) -> Lists:
        if choose is None:
            lists = listed(ranked(scorer, rows, depth, num_items=num_items, seen=seen))
            return _with_rest(lists, scorer, rows, rest, num_items, seen) if rest else lists
        parts = (rows[start:stop] for start, stop in blocks(len(rows), USERS_AT_ONCE))
        return together([_from_candidates(scorer, part, depth, num_items, seen, choose, rest) for part in parts])

    return lister


def listed(best: TopK) -> Lists:
    """Return the best of everything as lists: all was scored, and the residual is exact."""
    return Lists(best.items.numpy(), best.scores.numpy(), best.residual.numpy())


def together(parts: Sequence[Lists]) -> Lists:
    """Return the lists of several blocks of users as one; all have the same columns."""
    columns = zip(*parts, strict=True)
    return Lists._make(None if column[0] is None else np.concatenate(column) for column in columns)


def _from_candidates(
    scorer: Scorer, users: Int, depth: int, num_items: int, seen: Interactions | None, choose: Pool, rest: int
) -> Lists:
    chosen = choose.pick(users)
    width = max(depth, chosen.items.shape[1])  # everything that is scored, in order
    best = ranked(scorer, users, width, num_items=num_items, seen=seen, choose=_lookup(users, chosen.items))
    items, scores = best.items.numpy(), best.scores.numpy()
    logq = logq_of(chosen, items)
    lists = Lists(items[:, :depth], scores[:, :depth], unlisted(scores, logq, depth), logq[:, :depth])
    if not rest:
        return lists
    tail = sampled(items[:, depth:], scores[:, depth:], logq[:, depth:], users, rest, num_items)
    return lists._replace(rest_items=tail[0], rest_scores=tail[1], rest_logq=tail[2])


def _with_rest(lists: Lists, scorer: Scorer, users: Int, rest: int, num_items: int, seen: Interactions | None) -> Lists:
    """Return `lists` over the whole catalogue with `rest` uniform draws that are in no list of theirs, scored."""

    def part(start: int, stop: int) -> Lists:
        block, own = users[start:stop], Lists._make(None if column is None else column[start:stop] for column in lists)
        drawn = uniform(block, rest, num_items, REST)
        items = once(drawn, np.zeros(drawn.shape, np.float32)).items
        row = np.arange(len(block))[:, None] * (num_items + 1)
        items = np.where(np.isin(items + row, own.items + row), -1, items)
        best = ranked(scorer, block, rest, num_items=num_items, seen=seen, choose=_lookup(block, items))
        found = best.items.numpy()
        logq = np.where(found < 0, np.float32(0), inclusion(rest, num_items))
        return own._replace(rest_items=found, rest_scores=best.scores.numpy(), rest_logq=logq)

    return together([part(start, stop) for start, stop in blocks(len(users), USERS_AT_ONCE)])


def _lookup(users: Int, items: Int) -> Chooser:
    """Return a function that gives the rows of `items` [n,C] of any of `users` [n]."""
    order = np.argsort(users, kind="stable")

    def choose(some: Int) -> Int:
        return items[order[np.searchsorted(users, some, sorter=order)]]

    return choose
