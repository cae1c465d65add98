"""A causal encoder of the history: each place attends to those before it, and says what comes after it.

Self-attention over the past items (SASRec, Kang and McAuley, ICDM 2018) with the gate and the relative place and time
of HSTU (Zhai et al., ICML 2024, eq. 1-3). A known user's own vector is added to what the history says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recdistill.models.encoders import Group, hidden, pick, single
from recdistill.models.lengths import unit
from recdistill.models.reading import Reading
from recdistill.models.tables import TableFactory
from recdistill.types import Past, Space

SIZE = 0.1  # of a state's numbers, about that of a new row of the user table, which is added to them


class SequenceEncoder(nn.Module):
    """An encoder whose user vector is the state after the latest item, scored against the item table it reads.

    An item hidden from it (-1 amid the others) is a place to say what comes next, from those before it.
    """

    def __init__(
        self,
        table: TableFactory,
        *,
        num_users: int,
        num_items: int,
        dim: int,
        layers: int,
        heads: int,
        history: int,
        id_dropout: float,
        space: Space,
        temperature: float,
    ) -> None:
        super().__init__()
        self.space, self.temperature, self.num_items = space, temperature, num_items
        self.id_dropout = id_dropout
        self.user = table("user", num_users, dim)
        self.item = table("item", num_items, dim)
        self.reading = Reading(dim, layers, heads, history)

    def states(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the state after each place of `past` [B,L], what `users` [B] add to it, and vectors of `items` [n].

        They are [B,L,D], [B,D] and [n,D]. A state depends on the places up to its own, and is zeros before the first
        item; user -1 adds zeros, and item -1 is zeros.
        """
        if self.training and self.id_dropout:
            users = users.masked_fill(hidden(users, past.items, self.id_dropout), -1)
        rows = self.item(*single(torch.cat([items, past.items.reshape(-1)])))
        found, x = rows.split([len(items), past.items.numel()])
        states = self.reading(x.view(*past.items.shape, rows.shape[1]), past)
        return SIZE * states, self.user(*single(users)), found

    def vectors(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of `users` [B] (-1: unknown) with their `past` and of `items` [n] (-1: none)."""
        states, identity, found = self.states(users, past, items)
        return identity + _latest(states), found

    def trunk(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of `users` and `items`: nothing comes after them."""
        return self.vectors(users, past, items)

    def head(self, shared: Tensor) -> Tensor:
        """Return the vectors of users from what `trunk` gives: they are the same."""
        return shared

    def score(self, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
        """Return the scores of each group, [rows,K] for the latest state, or [places,K] for the states it asks for.

        One lookup serves them all; it is of the whole catalogue where the groups name more. Whether it is depends on
        shapes alone, so that all ranks do the same.
        """
        whole = sum(g.items.numel() for g in groups) >= self.num_items
        everything = torch.arange(self.num_items, device=past.items.device)
        asked = everything if whole else torch.cat([g.items.reshape(-1) for g in groups])
        states, identity, found = self.states(users, past, asked)
        states = unit(states + identity.unsqueeze(1), self.space) / self.temperature
        found = unit(found, self.space)
        parts = None if whole else found.split([g.items.numel() for g in groups])
        scores = []
        for i, group in enumerate(groups):
            if parts is not None:
                vectors = parts[i].view(*group.items.shape, found.shape[1])
            elif len(group.items) == self.num_items and torch.equal(group.items, everything):
                vectors = found
            else:
                vectors = pick(found, group.items)
            scores.append(_products(states[group.rows], vectors, group.places))
        return scores


def _latest(states: Tensor) -> Tensor:
    """Return the state at the last place, [B,D], zeros where there are no places at all."""
    return states[:, -1] if states.shape[1] else states.sum(1)


def _products(states: Tensor, vectors: Tensor, places: Tensor | None) -> Tensor:
    """Return the inner products of states [b,L,D] with vectors [K,D], [b,K,D] or [b,L,K,D]: see `Group`."""
    if places is None:
        state = _latest(states)
        return state @ vectors.T if vectors.dim() == 2 else (vectors @ state.unsqueeze(2)).squeeze(2)
    if vectors.dim() == 2:
        return states[places] @ vectors.T
    if vectors.dim() == 3:
        return (states @ vectors.transpose(1, 2))[places]
    return (vectors[places] @ states[places].unsqueeze(2)).squeeze(2)
