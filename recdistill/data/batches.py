"""Training batches: each is a function of (seed, step), drawn for the whole world and cut to this rank's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from recdistill.data.negatives import Owned, owned, reject
from recdistill.data.owners import owners_of
from recdistill.data.sequences import Sequences, cut, joined, mapped
from recdistill.data.walk import generator_of, walk
from recdistill.errors import DataError
from recdistill.types import Batch, Candidates, Interactions, Lesson, Past
from recdistill.world import World


class Teaches(Protocol):
    """What a step's distillation terms compare, and which rows they ask for."""

    @property
    def asks_users(self) -> bool:
        """Say whether a step needs users beside those of its batch."""
        ...

    @property
    def asks_items(self) -> bool:
        """Say whether a step needs items of its own."""
        ...

    @property
    def asks_batch(self) -> bool:
        """Say whether a term compares the first of the batch's negatives."""
        ...

    @property
    def follows(self) -> bool:
        """Say whether what is drawn depends on what the student has learned by then."""
        ...

    def kept(self) -> Tensor | None:
        """Return the users whose lists are compared now; None for all of them."""
        ...

    def prepare(self, step: int) -> None:
        """Bring what the student ranks first up to date where it is time to; collective."""
        ...

    def draw(
        self, step: int, users: Tensor, items: Tensor, world: World, generator: Generator, histories: Tensor
    ) -> Lesson:
        """Return this rank's part of what is compared for `users` and `histories` [R together], and `items` [Q]."""
        ...

    def of_batch(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Iterator[tuple[str, Candidates]]:
        """Yield what is compared of the batch's own items."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """What batches are drawn from, and how."""

    train: Interactions
    num_items: int
    sequences: Sequences
    batch: int  # rows of the global batch
    negatives: int
    own_negatives: bool  # each row draws its own, none of them the user's; else the batch shares them
    history: int
    seed: int
    windows: bool = False  # a row is a window of a user's sequence, with a target after each of its `history` places
    item_dropout: float = 0.0  # share of a window's past items that a step hides
    tasks: Mapping[str, Tensor] = field(default_factory=dict)  # by head, [n]: what is declared of each interaction
    list_users: int = 0  # rows of the global batch that teacher lists are drawn for
    transfer: Sequences | None = None  # histories that nobody had, whose lists are compared too
    transfer_rows: int = 0  # how many of `list_users` they are
    lessons: Teaches | None = None

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.rows // self.batch)

    @property
    def rows(self) -> int:
        """Return how many rows there are to draw batches from: windows, or interactions."""
        return len(self.sequences.windows(self.history).owner) if self.windows else len(self.train)


def make_batches(sampler: Sampler, world: World) -> Callable[[int], Batch]:
    """Return the function from a step to this rank's slice of its batch."""
    train = sampler.train
    positives, owners = mapped(train.items), owners_of(train)
    theirs = owned(train, sampler.num_items) if sampler.own_negatives else None
    nobody = torch.zeros(0, dtype=torch.int64)
    known = nobody if sampler.lessons is None else positives.unique()
    windows = sampler.sequences.windows(sampler.history) if sampler.windows else None
    total, per_epoch = sampler.rows, sampler.steps_per_epoch
    if not total:
        raise DataError("no user has two training interactions", fix="use a model that reads no sequence")

    take = walk(sampler.seed)

    @lru_cache(maxsize=2)
    def shift(epoch: int) -> Tensor:
        return torch.rand(train.num_users, generator=generator_of(sampler.seed, 4, epoch))

    def batch(step: int) -> Batch:
        if sampler.lessons is not None:
            sampler.lessons.prepare(step)
        generator = generator_of(sampler.seed, 3, step)
        rows = take(1, step, sampler.batch, total)
        mine = world.slice(sampler.batch)
        if windows is None:
            users, positive, count = owners.of(rows), positives[rows][mine], sampler.batch
            past = sampler.sequences.before(rows[mine], sampler.history)
        else:
            users, stop = windows.owner[rows], windows.moved(rows, shift(step // per_epoch))
            past, wanted = sampler.sequences.window(stop, users, sampler.history)
            past = cut(_hide(past, sampler.item_dropout, generator), mine)
            positive, count = wanted[mine], int((wanted >= 0).sum())
        negatives = _negatives(sampler, users, theirs, generator)
        chosen, histories, lesson = nobody, nobody, Lesson()
        if sampler.lessons is not None:
            asked, count_items = sampler.lessons, sampler.list_users if sampler.lessons.asks_items else 0
            chosen, histories = _compared(sampler, take, step)
            items = known[take(5, step, count_items, len(known))] if count_items else nobody
            lesson = asked.draw(step, chosen, items, world, generator, histories)
            shown = negatives[mine] if sampler.own_negatives else negatives
            if windows is None:
                own = dict(asked.of_batch(users[mine], positive, shown))
                lesson = replace(lesson, candidates={**lesson.candidates, **own})
            lesson = moved(lesson, world.device)
        list_users, list_past = _listed(sampler, chosen, histories, world)
        return Batch(
            step=step,
            users=users[mine].to(world.device),
            positives=positive.to(world.device),
            negatives=(negatives[mine] if sampler.own_negatives else negatives).to(world.device),
            past=past.to(world.device),
            count=count / world.size,
            tasks={name: told[rows[mine]].to(world.device) for name, told in sampler.tasks.items()},
            list_users=list_users.to(world.device),
            list_past=list_past.to(world.device),
            lesson=lesson,
        )

    return batch


def _compared(sampler: Sampler, take: Callable[[int, int, int, int], Tensor], step: int) -> tuple[Tensor, Tensor]:
    """Return the users whose lists a step compares, and the histories; what is drawn of one is nothing to the other."""
    users = histories = torch.zeros(0, dtype=torch.int64)
    if sampler.lessons is not None and sampler.lessons.asks_users:
        kept, wanted = sampler.lessons.kept(), sampler.list_users - sampler.transfer_rows
        users = take(2, step, wanted, sampler.train.num_users if kept is None else len(kept))
        users = users if kept is None else kept[users]
        if sampler.transfer is not None:
            histories = take(6, step, sampler.transfer_rows, len(sampler.transfer.indptr) - 1)
    return users, histories


def _listed(sampler: Sampler, chosen: Tensor, histories: Tensor, world: World) -> tuple[Tensor, Past]:
    """Return this rank's part of whose lists are compared, and what is read of them: users, then histories as -1.

    Each part is cut by itself, so that all ranks hold as many of both.
    """
    users = chosen[world.slice(len(chosen))]
    past = sampler.sequences.latest(users, sampler.history)
    if sampler.transfer is None:
        return users, past
    own = histories[world.slice(len(histories))]
    return torch.cat([users, torch.full_like(own, -1)]), joined(past, sampler.transfer.latest(own, sampler.history))


def _negatives(sampler: Sampler, users: Tensor, theirs: Owned | None, generator: Generator) -> Tensor:
    """Return the negatives of each of `users` [B,N], or those that the batch shares [N]."""
    if theirs is not None:
        drawn = torch.randint(sampler.num_items, (len(users), sampler.negatives), generator=generator)
        return reject(users, drawn, theirs, generator)
    if sampler.negatives >= sampler.num_items:
        mixed = sampler.lessons is not None and sampler.lessons.asks_batch
        return torch.randperm(sampler.num_items, generator=generator) if mixed else torch.arange(sampler.num_items)
    return torch.randint(sampler.num_items, (sampler.negatives,), generator=generator)


def _hide(past: Past, share: float, generator: Generator) -> Past:
    """Return `past` with a share of its items hidden."""
    return replace(past, items=past.items.masked_fill(torch.rand(past.items.shape, generator=generator) < share, -1))


def moved(value: Any, device: str) -> Any:
    """Return a lesson, or a part of one, with every tensor in it on `device`."""
    if device == "cpu":
        return value
    if isinstance(value, Tensor | Past):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: moved(part, device) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(part, device) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: moved(getattr(value, f.name), device) for f in fields(value)})
    return value
