"""A nested student's losses are the mean of those of the students that the first numbers of its vectors are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.batches import Sampler, make_batches
from recdistill.data.sequences import Sequences
from recdistill.distill.compose import make_terms
from recdistill.distill.nested import averaged, named
from recdistill.distill.objective import Objective, Widths
from recdistill.distill.spec import AlignTermSpec, GatesTermSpec, ListTermSpec
from recdistill.distill.spec_align import Distance, Filter, Gram, Linear, Preserve
from recdistill.distill.spec_draws import InBatch, Rest, Top, Unseen
from recdistill.distill.spec_lists import LogitMSE, PlackettLuce, SoftmaxKL
from recdistill.guide import turned
from recdistill.lessons import make_lessons
from recdistill.models import encoders
from recdistill.models.encoders import MF, Group, TwoTower, encode, encode_widths
from recdistill.models.inner_nested import in_parts, own_nested
from recdistill.models.tables import PlainTable
from recdistill.topk import exact_topk
from recdistill.types import Dataset, Interactions, Labels, Lesson, Past, Vectors
from recdistill.world import World

USERS, ITEMS, TAUGHT, DIM, NESTED = 12, 30, 9, 8, (2, 5)
RNG = np.random.default_rng(0)
TAKEN = RNG.random((USERS, ITEMS)) < 0.25
TRAIN = Interactions(indptr=np.concatenate([[0], TAKEN.sum(1).cumsum()]), items=np.nonzero(TAKEN)[1])
NOBODY = Interactions(indptr=np.zeros(USERS + 1, np.int64), items=np.zeros(0, np.int64))
DATASET = Dataset(
    user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=NOBODY, test=NOBODY
)
VECTORS = Vectors(
    users=RNG.standard_normal((USERS, TAUGHT)).astype(np.float32),
    items=RNG.standard_normal((ITEMS, TAUGHT)).astype(np.float32),
)
CASES = [(kind, space) for kind in ("mf", "two_tower") for space in ("dot", "cosine")]


def store(users, items, depth, seen, **more):
    best = exact_topk(users, items, depth, seen=seen)
    rows = best.items.numpy().astype(np.int32)
    return Labels(
        items=(rows,), scores=(best.scores.numpy(),), residual=(best.residual.numpy(),), per_shard=99, facts={}, **more
    )


BY_ITEM = store(VECTORS.items, VECTORS.users, 5, turned(TRAIN, ITEMS))
LABELS = store(VECTORS.users, VECTORS.items, 8, TRAIN, vectors=VECTORS, by_item=BY_ITEM)
FILTERED = Filter(neighbours=2, alpha=0.5, keep=1.0)
KEPT = Preserve(k=2, weight=0.3, temperature=0.5)
TERMS = {
    "lists": ListTermSpec(weight=0.7, draw=(Top(k=4), Unseen(n=3)), loss=PlackettLuce()),
    "rest": ListTermSpec(weight=1.0, draw=(Top(k=3), Rest()), loss=PlackettLuce()),
    "batch": ListTermSpec(weight=1.0, draw=(InBatch(n=2),), loss=LogitMSE()),
    "items": ListTermSpec(weight=1.0, side="items", draw=(Top(k=3), Unseen(n=2)), loss=LogitMSE()),
    "distance": AlignTermSpec(weight=0.5, loss=Distance(adapter=Linear())),
    "one side": AlignTermSpec(weight=0.5, sides=("items",), loss=Distance(adapter=Linear(), metric="cosine")),
    "gram": AlignTermSpec(weight=2.0, loss=Gram()),
    "filter": AlignTermSpec(weight=1.0, loss=Distance(adapter=Linear()), filter=FILTERED),
    "preserve": AlignTermSpec(weight=1.0, loss=Distance(adapter=Linear()), preserve=KEPT),
}


def student(kind="mf", space="cosine", dim=DIM, nested=(), like=None, hidden=()):
    """Return a student in float64; one that is `like` a wider one has the first numbers of its rows."""
    settings = {"num_users": USERS, "num_items": ITEMS, "dim": dim, "space": space, "temperature": 0.4}
    more = {} if kind == "mf" else {"hidden": hidden, "id_dropout": 0.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {"mf": MF, "two_tower": TwoTower}[kind](PlainTable, **settings, **more, nested=nested).double()
    generator = torch.Generator().manual_seed(1)
    for name in ("user", "item"):
        weight = getattr(made, name).weight
        wide = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
        weight.data = wide if like is None else getattr(like, name).weight.data[:, :dim].clone()
        weight.requires_grad_()
    return made


def lessons(*specs, history=0):
    terms = make_terms(specs, num_items=ITEMS, epochs=1)
    return make_lessons(DATASET, LABELS, terms, None, Sequences.of(TRAIN), history, 50)


def step(made, kind, loss, negatives=6):
    history = 3 if kind == "two_tower" else 0
    given = {"own_negatives": loss == "bpr", "negatives": negatives, "batch": 8, "list_users": 4, "seed": 3}
    sampler = Sampler(
        train=TRAIN, num_items=ITEMS, sequences=Sequences.of(TRAIN), history=history, lessons=made, **given
    )
    return doubled(make_batches(sampler, World())(1))


def doubled(batch):
    """Return a batch whose teacher speaks in float64."""
    lesson = batch.lesson
    lists = {n: replace(c, teacher=c.teacher.double()) for n, c in lesson.candidates.items()}
    features = {n: tuple(side.double() for side in sides) for n, sides in lesson.features.items()}
    around = {
        n: replace(a, user_weights=a.user_weights.double(), item_weights=a.item_weights.double())
        for n, a in lesson.around.items()
    }
    kept = {n: rows.double() for n, rows in lesson.kept.items()}
    return replace(batch, lesson=replace(lesson, candidates=lists, features=features, around=around, kept=kept))


def objective(model, made, loss="softmax"):
    terms = () if made is None else made.terms
    shared = model.layers[-1].in_features if isinstance(model, TwoTower) and len(model.layers) else model.dim
    widths = Widths(model.dim, shared, *((0, 0) if made is None else made.widths))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Objective(model, loss=loss, num_items=ITEMS, terms=terms, widths=widths).double().eval()


def apart(judge, made, loss, batch):
    """Return the losses of each width of `judge`'s model by a plain student of that width, and those students' own."""
    found = []
    for width in (*NESTED, DIM):
        model = judge.model
        kind = "mf" if isinstance(model, MF) else "two_tower"
        plain = objective(student(kind, model.space, width, like=model), made, loss)
        own = judge.own.state_dict()
        names = {name: name if width == DIM else moved(name, width) for name in plain.own.state_dict()}
        plain.own.load_state_dict({name: own[theirs] for name, theirs in names.items()})
        found.append((plain, plain(batch)))
    return found


def moved(name, width):
    module, rest = name.split(".", 1)
    return f"{named(module, width)}.{rest}"


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
@pytest.mark.parametrize(("kind", "space"), CASES)
def test_every_loss_is_the_mean_over_the_widths_of_plain_students_losses(kind, space, loss):
    for name, spec in TERMS.items():
        made = lessons(spec, history=3 if kind == "two_tower" else 0)
        batch = step(made, kind, loss)
        judge = objective(student(kind, space, nested=NESTED), made, loss)
        found, alone = judge(batch), apart(judge, made, loss, batch)
        for called, value in found.items():
            each = torch.stack([losses[called] for _, losses in alone])
            torch.testing.assert_close(value, each.mean(), rtol=1e-5, atol=1e-7, msg=f"{name} {called}")
            assert each.std() > 1e-3, name
        sum(found.values()).backward()
        for side in ("user", "item"):
            expected = torch.zeros_like(getattr(judge.model, side).weight)
            for plain, losses in alone:
                weight = getattr(plain.model, side).weight
                weight.grad = None
                sum(losses.values()).backward(retain_graph=True)
                expected[:, : weight.shape[1]] += weight.grad / len(alone)
            torch.testing.assert_close(getattr(judge.model, side).weight.grad, expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("space", ["dot", "cosine"])
def test_the_task_of_each_prefix_is_the_softmax_of_its_own_scores_alone(space):
    """Against the formula, in float64: each prefix at length 1 by itself where scores are cosines."""
    model, batch = student("mf", space, nested=NESTED), step(None, "mf", "softmax", negatives=ITEMS)
    total = 0.0
    for width in (*NESTED, DIM):
        left, right = model.user.weight[batch.users, :width].detach(), model.item.weight[:, :width].detach()
        if space == "cosine":
            left, right = (side / side.norm(dim=1, keepdim=True) for side in (left, right))
        scores = left @ right.T / 0.4
        total += (scores.logsumexp(1) - scores.gather(1, batch.positives[:, None])[:, 0]).mean().item() / 3
    assert objective(model, None)(batch)["task"].item() == pytest.approx(total, rel=1e-6)


ASKED, PAST = torch.tensor([3, 0, 6, 2]), Past(items=torch.tensor([[-1, 4], [1, 11], [-1, -1], [0, 0]]))
GROUPS = [
    Group(torch.tensor([[3], [1]]), slice(0, 2)),
    Group(torch.tensor([2, 7, 2, -1, 10]), slice(0, 2)),
    Group(torch.arange(-2, 30).clamp(min=-1).reshape(2, 16), slice(2, 4)),
]
OTHERS = [torch.tensor([5, -1, 5]), torch.arange(ITEMS)]


@pytest.mark.parametrize("most", [0, 2**26], ids=["looked up", "picked"])
@pytest.mark.parametrize(("kind", "space"), CASES)
def test_a_prefix_reaches_its_own_numbers_alone_and_one_lookup_serves_all(monkeypatch, kind, space, most):
    monkeypatch.setattr(encoders, "MOST_SCORES", most)
    model = student(kind, space, hidden=(6,))
    views = encode_widths(model, ASKED, PAST, GROUPS, OTHERS, widths=NESTED)
    assert (len(views[0].found) == ITEMS) == bool(most)
    assert all(view.found is views[0].found for view in views)
    users, items = model.vectors(ASKED, PAST, torch.arange(ITEMS))
    for width, view in zip((*NESTED, DIM), views, strict=True):
        left, right = (
            side[:, :width] / (side[:, :width].norm(dim=1, keepdim=True) if space == "cosine" else 1.0)
            for side in (users, items)
        )
        table = left @ right.T / 0.4
        for group, scores in zip(GROUPS, view.scores, strict=True):
            wanted = group.items.expand(len(ASKED[group.rows]), -1)
            expected = table[group.rows].gather(1, wanted.clamp(min=0)).masked_fill(wanted < 0, 0.0)
            torch.testing.assert_close(scores, expected)
        torch.testing.assert_close(view.others[1], right)
        everything = sum(score.sum() for score in view.scores) + view.others[0].square().sum() + view.left.sum()
        (slope,) = torch.autograd.grad(everything, view.found, retain_graph=True)
        assert slope[:, :width].any()
        assert not slope[:, width:].any()


@pytest.mark.parametrize(("kind", "space"), CASES)
def test_a_student_that_is_not_nested_is_as_ever_to_the_bit(kind, space):
    model = student(kind, space)
    (only,), plain = encode_widths(model, ASKED, PAST, GROUPS, OTHERS), encode(model, ASKED, PAST, GROUPS, OTHERS)
    wide = encode_widths(model, ASKED, PAST, GROUPS, OTHERS, widths=NESTED)[-1]
    for one, same, beside in zip(only.scores, plain.scores, wide.scores, strict=True):
        assert torch.equal(one, same)
        torch.testing.assert_close(one, beside)
    value = torch.ones(3)
    assert averaged([value]) is value
    made = lessons(TERMS["distance"])
    assert not [name for name in objective(student(), made).own if "_at" in name]


@pytest.mark.parametrize("cosine", [False, True])
def test_the_compiled_scores_and_gradients_are_those_of_torch(cosine):
    generator = torch.Generator().manual_seed(0)
    queries, items = (torch.randn(*shape, generator=generator).double() for shape in ((5, 7), (5, 3, 7)))
    items[2, 1] = 0.0  # of no item
    weights, found = torch.randn(3, 5, 3, generator=generator).double(), []
    for make in (own_nested, in_parts):
        given = [queries.clone().requires_grad_(), items.clone().requires_grad_()]
        scores = torch.stack(make(*given, (2, 3, 7), cosine=cosine))
        slopes = torch.autograd.grad((scores * weights).sum(), given)
        slopes[1][2, 1] = 0.0  # a vector without a direction is looked up by nobody
        found.append((scores, *slopes))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_layer_that_is_compared_is_compared_at_every_width():
    """The exit of a tower is its hidden layer's first numbers against those of the items."""
    made = lessons(ListTermSpec(weight=1.0, exit=True, draw=(Top(k=4),), loss=SoftmaxKL()), history=3)
    model = student("two_tower", "cosine", nested=NESTED, hidden=(DIM,))
    batch = step(made, "two_tower", "softmax")
    (term,) = made.terms
    given, total = batch.lesson.candidates[term.name], 0.0
    shared, items = model.trunk(batch.list_users, batch.list_past, torch.arange(ITEMS))
    for width in (*NESTED, DIM):
        left, right = (side[:, :width] / side[:, :width].norm(dim=1, keepdim=True) for side in (shared, items))
        total += term.loss((left @ right.T / 0.4).gather(1, given.items), given).mean().item() / 3
    assert objective(model, made)(batch)[term.name].item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("space", ["dot", "cosine"])
def test_where_a_prefix_looks_is_where_a_student_of_its_width_does(space):
    made = make_terms([GatesTermSpec(weight=1.0)], num_items=ITEMS, epochs=1)
    generator = torch.Generator().manual_seed(3)
    batch = step(lessons(TERMS["lists"], history=3), "two_tower", "softmax")
    gates = (batch.lesson.candidates["0.plackett_luce"].items, torch.randn(4, 3, generator=generator).double())
    batch = replace(batch, lesson=Lesson(gates=gates))
    model = student("two_tower", space, nested=NESTED)
    plain = [student("two_tower", space, width, like=model) for width in (*NESTED, DIM)]
    values = [
        Objective(one, loss="softmax", num_items=ITEMS, terms=made).double()(batch)[made[0].name]
        for one in (model, *plain)
    ]
    assert values[0].item() == pytest.approx(torch.stack(values[1:]).mean().item(), rel=1e-5)
    assert torch.stack(values[1:]).std() > 1e-3
