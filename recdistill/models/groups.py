"""Items to score, group by group: what that costs, and how groups are picked from everybody's scores of everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recdistill.models.inner import own_scores
from recdistill.models.inner_nested import own_nested
from recdistill.models.lengths import lengths_over
from recdistill.models.rounding import Cutter
from recdistill.models.together import Span

PICKED = 32  # scores of one product of matrices that take about as long as one of a pair looked up for itself


class Group(NamedTuple):
    """Items to score for some of a call's users: [K] shared by those rows, or [rows,K] of each row.

    With `places` [rows,L] the scores are those at each such place of the past, in order, [places,K], as a sequence
    model alone can tell them; the items may then be [rows,L,K] of each place.
    """

    items: Tensor
    rows: slice = slice(None)
    places: Tensor | None = None


def work(groups: Sequence[Group], rows: int) -> int:
    """Return what the scores of `groups` cost one by one, in scores that a product gives."""
    shared = sum(len(range(*g.rows.indices(rows))) * len(g.items) for g in groups if g.items.dim() == 1)
    return shared + PICKED * sum(g.items.numel() for g in groups if g.items.dim() != 1)


def spans(groups: Sequence[Group], users: int) -> list[Span] | None:
    """Return which of `users` each group is of and how many items each of them has; None where a group shares some."""
    if any(group.items.dim() != 2 for group in groups):
        return None
    return [(*group.rows.indices(users)[:2], group.items.shape[1]) for group in groups]


def picked(table: Tensor, everything: Tensor, groups: Sequence[Group]) -> list[Tensor]:
    """Return the scores of `groups` from everybody's of everything, 0 for no item."""
    scores = []
    for group, part in zip(groups, _parts(table, groups), strict=True):
        if group.items.dim() == 1:
            whole = len(group.items) == len(everything) and torch.equal(group.items, everything)
            scores.append(part if whole else part[:, group.items.clamp(min=0)])
        else:
            scores.append(part.gather(1, group.items.clamp(min=0)))
        if bool((group.items < 0).any()):
            scores[-1] = scores[-1].masked_fill(group.items < 0, 0.0)
    return scores


def _parts(table: Tensor, groups: Sequence[Group]) -> list[Tensor]:
    """Return each group's rows of `table`; as one split where they tile it, whose backward is one concatenation."""
    spans = [g.rows.indices(len(table))[:2] for g in groups]
    cuts = sorted(set(spans))
    tiled = [start for start, _ in cuts] == [0, *(stop for _, stop in cuts[:-1])] and cuts[-1][1] == len(table)
    if not tiled:
        return [table[start:stop] for start, stop in spans]
    pieces = dict(zip(cuts, table.split([stop - start for start, stop in cuts]), strict=True))
    return [pieces[span] for span in spans]


def scored(
    group: Group,
    part: Tensor,
    vectors: Tensor,
    queries: Sequence[Tensor],
    cuts: Cutter,
    temperature: float,
    *,
    cosine: bool,
    rounded: bool,
) -> list[Tensor]:
    """Return the scores of a group, whose items' vectors `part` [n,D] are as they were looked up, by each width.

    `vectors` [B,D] are those of users as the model gives them, `queries` as they are compared, over the temperature,
    by each width; `cuts` gives those of items, which are `rounded` or not.
    """
    if group.items.dim() == 1:
        return [left[group.rows] @ right.T for left, right in zip(queries, cuts(part), strict=True)]
    shape, ends = group.items.shape, [left.shape[1] for left in queries]
    if rounded:
        pairs = zip(queries, cuts(part), strict=True)
        return [own_scores(left[group.rows], right.view(*shape, -1), cosine=False) for left, right in pairs]
    each = part.view(*shape, -1)
    if len(ends) == 1:
        return [own_scores(queries[0][group.rows], each, cosine=cosine)]
    left = vectors[: len(queries[0])][group.rows]
    scores = own_nested(left, each, ends, cosine=cosine)
    if not cosine:
        return [one / temperature for one in scores]
    return [one * (over / temperature) for one, over in zip(scores, lengths_over(left, ends), strict=True)]
