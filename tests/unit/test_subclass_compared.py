"""Sub-logits on their way into a term: drawn from the teacher's vectors, cut to a rank, beside terms of other kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.sequences import Sequences
from recdistill.distill.compose import make_terms
from recdistill.distill.objective import Objective, Widths
from recdistill.distill.spec import AlignTermSpec, Auxiliary, ListTermSpec
from recdistill.distill.spec_align import Distance, Linear
from recdistill.distill.spec_draws import Own, Rest, Top, Unseen
from recdistill.distill.spec_lists import LogitMSE, PlackettLuce
from recdistill.distill.spec_subclass import SubclassKL
from recdistill.distill.subclass import subclass_kl
from recdistill.lessons import make_lessons
from recdistill.models.encoders import MF
from recdistill.models.tables import PlainTable
from recdistill.topk import exact_topk
from recdistill.types import Batch, Dataset, Interactions, Labels, Past, Vectors
from recdistill.world import World

USERS, ITEMS, TAUGHT, DIM, S = 12, 30, 6, 4, 3
RNG = np.random.default_rng(0)
TAKEN = RNG.random((USERS, ITEMS)) < 0.25
TRAIN = Interactions(indptr=np.concatenate([[0], TAKEN.sum(1).cumsum()]), items=np.nonzero(TAKEN)[1])
NOBODY = Interactions(indptr=np.zeros(USERS + 1, np.int64), items=np.zeros(0, np.int64))
DATASET = Dataset(
    user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=NOBODY, test=NOBODY
)
LEFT, RIGHT = (RNG.standard_normal((n, TAUGHT)).astype(np.float32) for n in (USERS, ITEMS))
HEAD = RNG.standard_normal((2 * S, TAUGHT)).astype(np.float32), RNG.standard_normal(2 * S).astype(np.float32)
BEST = exact_topk(LEFT, RIGHT, 8, seen=TRAIN)
LABELS = Labels(
    items=(BEST.items.numpy().astype(np.int32),),
    scores=(BEST.scores.numpy(),),
    residual=(BEST.residual.numpy(),),
    per_shard=99,
    facts={},
    vectors=Vectors(users=LEFT, items=RIGHT),
    subclasses=HEAD,
)
LISTED = torch.tensor([3, 0, 7, 11])
SUBCLASS = ListTermSpec(weight=1.0, draw=(Top(k=5), Own(n=9), Unseen(n=4)), loss=SubclassKL())
OTHERS = (
    ListTermSpec(weight=1.0, draw=(Top(k=4), Rest()), loss=PlackettLuce()),
    ListTermSpec(weight=1.0, draw=(Top(k=3),), loss=LogitMSE(), head=Auxiliary()),
    AlignTermSpec(weight=1.0, loss=Distance(adapter=Linear())),
    ListTermSpec(weight=1.0, draw=(Top(k=5),), loss=LogitMSE()),
)


def lessons(*specs):
    return make_lessons(DATASET, LABELS, make_terms(specs, num_items=ITEMS, epochs=1), None, Sequences.of(TRAIN), 0, 9)


def draw(made, world=World()):  # noqa: B008
    return made.draw(2, LISTED, torch.tensor([5, 1, 20, 4]), world, torch.Generator().manual_seed(0))


def batch(lesson) -> Batch:
    return Batch(
        users=torch.tensor([4, 0]),
        positives=torch.tensor([1, 7]),
        negatives=torch.tensor([2, 9, 12]),
        past=Past(items=torch.zeros(2, 0).long()),
        count=2.0,
        list_users=LISTED,
        list_past=Past(items=torch.zeros(4, 0).long()),
        lesson=lesson,
    )


def objective(made) -> Objective:
    """Return the objective of the lessons' terms, whose weights are those of their own names."""
    model = MF(PlainTable, num_users=USERS, num_items=ITEMS, dim=DIM, space="cosine", temperature=0.5)
    found = Objective(
        model, loss="softmax", num_items=ITEMS, terms=made.terms, widths=Widths(DIM, DIM, *made.widths, subs=2 * S)
    )
    for name, weight in found.named_parameters():
        kind = name.split(".", 2)[1].partition("_")[2] if name.startswith("own.") else name
        seed = sum(map(ord, kind + name.rpartition(".")[2]))
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    return found


def test_drawn_items_have_the_sub_logits_of_the_teachers_vectors() -> None:
    found = draw(lessons(SUBCLASS)).candidates["0.subclass_kl"]
    assert found.subs is not None
    items = found.items
    expected = np.einsum("jd,rd,rkd->rkj", HEAD[0], LEFT[LISTED.numpy()], RIGHT[items.clamp(min=0).numpy()]) + HEAD[1]
    known = items >= 0
    assert not known.all()  # some took fewer than nine
    torch.testing.assert_close(found.subs[known], torch.from_numpy(expected.astype(np.float32))[known])
    assert torch.isfinite(found.teacher[known]).all()


def test_ranks_hold_the_sub_logits_of_their_own_rows() -> None:
    whole = draw(lessons(SUBCLASS)).candidates["0.subclass_kl"].subs
    assert whole is not None
    parts = [draw(lessons(SUBCLASS), World(rank=r, size=2)).candidates["0.subclass_kl"].subs for r in range(2)]
    assert torch.equal(torch.cat([part for part in parts if part is not None]), whole)


def test_the_term_compares_the_scores_that_serve_and_the_heads_sub_logits_of_the_same_vectors() -> None:
    made = lessons(SUBCLASS)
    lesson, found = draw(made), objective(made)
    candidates = lesson.candidates["0.subclass_kl"]
    assert isinstance(found.model, MF)
    users, items = (torch.nn.functional.normalize(side.weight, dim=1) for side in (found.model.user, found.model.item))
    left, right = users[LISTED] / 0.5, items[candidates.items.clamp(min=0)]
    score = (right * left.unsqueeze(1)).sum(2, keepdim=True)
    head = found.own["0_subclass_kl_subs"]
    student = torch.cat([score, head(left, right)], dim=2)
    expected = subclass_kl(student, candidates, temperature=1.0).mean()
    torch.testing.assert_close(found(batch(lesson))["0.subclass_kl"], expected)


@pytest.mark.parametrize("place", range(len(OTHERS) + 1))
def test_it_changes_nothing_of_the_terms_beside_it(place) -> None:
    with_it = lessons(*OTHERS[:place], SUBCLASS, *OTHERS[place:])
    without = lessons(*OTHERS)
    lesson = draw(without)

    def moved(name: str) -> str:
        number, _, kind = name.partition(".")
        return f"{int(number) + (int(number) >= place)}.{kind}"

    alone = draw(with_it).candidates[f"{place}.subclass_kl"]
    both = replace(
        lesson,
        candidates={moved(n): c for n, c in lesson.candidates.items()} | {f"{place}.subclass_kl": alone},
        features={moved(n): f for n, f in lesson.features.items()},
    )
    one, two = objective(without)(batch(lesson)), objective(with_it)(batch(both))
    for name, value in one.items():
        torch.testing.assert_close(two[name if name == "task" else moved(name)], value)
