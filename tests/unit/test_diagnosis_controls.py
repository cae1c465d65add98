"""Controls are labels and terms like any other, each lacking what it should."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from recdistill.diagnose.chances import log_softmax
from recdistill.diagnosis.controls import control_terms, cooled_terms
from recdistill.diagnosis.stages import _best
from recdistill.diagnosis.stores import write_control
from recdistill.distill.compose import make_terms
from recdistill.distill.spec import TermSpec
from recdistill.distill.subclass import class_logit, sub_logits
from recdistill.labels import BY_ITEM, TRANSFER, Layout, Lists, open_labels, write_histories, write_shard
from recdistill.shards import finish
from recdistill.transfer.histories import dropout
from recdistill.types import Interactions

USERS, ITEMS, DEPTH = 23, 12, 4
STAMP = {"step": "s", "teacher": "t"}
PL = {"kind": "list", "weight": 2, "draw": [{"kind": "ranked", "k": 6}], "loss": {"kind": "plackett_luce"}}
KL = {"kind": "list", "weight": 1, "draw": [{"kind": "top", "k": 3}], "loss": {"kind": "softmax_kl"}}
ALIGN = {"kind": "align", "weight": 1, "loss": {"kind": "distance", "adapter": {"kind": "linear"}}}
ITEM = {**KL, "side": "items"}
PARTNER = {**KL, "teacher": "partner", "draw": [{"kind": "top", "k": 5}]}


def terms(*given: dict) -> list[TermSpec]:
    return [TypeAdapter(TermSpec).validate_python(one) for one in given]


@pytest.fixture
def labels(tmp_path: Path):
    """Lists of a teacher of vectors, in shards of five users; user 7 has none. Each user has two items."""
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(n, 3)).astype(np.float32) for n in (USERS, ITEMS))
    own = np.stack([rng.permutation(ITEMS)[:2] for _ in range(USERS)])
    train = Interactions(indptr=np.arange(0, 2 * USERS + 1, 2), items=own.ravel())
    scores = users @ items.T
    np.put_along_axis(scores, own, -np.inf, 1)
    order = np.argsort(-scores, axis=1)
    listed = np.take_along_axis(scores, order, 1)
    residual = np.log(np.exp(listed[:, DEPTH:]).sum(1))
    order[7], listed[7] = -1, -np.inf
    out = tmp_path / "labels"
    facts = {"exclude_seen": True, "teacher": "mf", "home": str(out)}
    write(out, order[:, :DEPTH], listed[:, :DEPTH], residual, train, facts)
    for side, vectors in (("users", users), ("items", items)):
        np.save(out / f"{side}.npy", vectors)
    turned = np.argsort(-scores.T, axis=1)[:, :3]
    nobody = Interactions(indptr=np.zeros(ITEMS + 1, np.int64), items=np.zeros(0, np.int64))
    given = np.take_along_axis(scores.T, turned, 1), np.zeros(ITEMS)
    write(out / BY_ITEM, turned, *given, nobody, {"side": "items"}, num_items=USERS)
    return open_labels(out), train


def write(out, items, scores, residual, train, facts, num_items=ITEMS) -> None:
    out.mkdir()
    n, depth = items.shape
    layout = Layout(num_users=n, num_items=num_items, depth=depth, shard_users=5, stamp=STAMP)
    for shard in range(layout.shards):
        rows = layout.users(shard)
        write_shard(out, layout, shard, Lists(items[rows], scores[rows].astype(np.float32), residual[rows]))
    finish(out, layout, facts, train)


def everything(found):
    users = np.arange(found.num_users)
    return *found.take(users), found.column("residual", users)


def control(kind, labels, tmp_path: Path):
    out = tmp_path / kind
    out.mkdir()
    facts = write_control(kind, labels[0], labels[1], out, STAMP | {"step": kind}, seed=1)
    assert facts["control"] == kind
    assert facts["coverage"]["users_without_labels"] == (0 if kind == "mean" else 1)
    found = open_labels(out, num_users=USERS, num_items=ITEMS, teacher="t")
    assert found.facts["stamp"]["step"] == kind
    return found


def test_strangers_give_each_user_all_that_another_was_told(labels, tmp_path: Path) -> None:
    found = control("strangers", labels, tmp_path)
    (items, scores, residual), (theirs, given, rest) = everything(labels[0]), everything(found)
    source = np.array(
        [
            int(np.flatnonzero((np.asarray(found.vectors.users[u]) == labels[0].vectors.users).all(1))[0])
            for u in range(USERS)
        ]
    )
    assert sorted(source) == list(range(USERS))
    assert np.flatnonzero(source == np.arange(USERS)).tolist() == [7]
    np.testing.assert_array_equal(theirs, items[source])
    np.testing.assert_array_equal(given, scores[source])
    np.testing.assert_array_equal(rest, residual[source])
    np.testing.assert_array_equal(found.vectors.items, labels[0].vectors.items)
    # Whoever was listed for an item is called by the name of who has their lists now.
    before, _ = labels[0].by_item.take(np.arange(ITEMS))
    after, _ = found.by_item.take(np.arange(ITEMS))
    np.testing.assert_array_equal(source[after], before)


def test_the_mean_tells_everybody_one_order(labels, tmp_path: Path) -> None:
    found = control("mean", labels, tmp_path)
    items, scores, _ = everything(found)
    whole = np.asarray(found.vectors.users) @ np.asarray(found.vectors.items).T
    assert (whole == whole[0]).all()
    own = labels[1].items.reshape(-1, 2)
    for user in range(USERS):
        there = items[user] >= 0
        assert not set(items[user][there]) & set(own[user].tolist())
        np.testing.assert_allclose(scores[user][there], whole[0][items[user][there]])
        assert (np.diff(scores[user][there]) <= 0).all()
    # The mean chance of an item, over those who may be shown it, written naively.
    listed, given, residual = everything(labels[0])
    told = np.exp(log_softmax(np.column_stack([given, residual])))
    first = int(items[0, 0])
    mine = [u for u in range(USERS) if u != 7 and first not in own[u]]
    mean = np.mean([told[u][:DEPTH][listed[u] == first].sum() for u in mine])
    assert scores[0, 0] == pytest.approx(np.log(mean), rel=1e-5)


def test_labels_of_smoothing_keep_the_lists_and_score_everything_alike(labels, tmp_path: Path) -> None:
    found = control("smooth", labels, tmp_path)
    for one, other in zip(everything(found), everything(labels[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.asarray(found.vectors.users).any()
    assert not np.asarray(found.vectors.items).any()


@pytest.fixture
def beside(labels):
    """Return the same, beside lists of two thinned histories of each user: those of user 7 too."""
    found, train = labels
    rng = np.random.default_rng(4)
    made = dropout(train, 0.5, 2, np.random.Generator(np.random.Philox(2)))
    users = rng.normal(size=(len(made), 3)).astype(np.float32)
    scores = users @ np.asarray(found.vectors.items).T
    scores[made.interactions.users(), made.interactions.items] = -np.inf
    order = np.argsort(-scores, axis=1)[:, :DEPTH]
    home = Path(str(found.facts["home"])) / TRANSFER
    facts = {"side": "histories", "transfer": {"kind": "dropout", "share": 0.25, "rows": len(made)}}
    write(home, order, np.take_along_axis(scores, order, 1), np.zeros(len(made)), made.interactions, facts)
    write_histories(home, made)
    np.save(home / "users.npy", users)
    return open_labels(home.parent), train


@pytest.mark.parametrize("kind", ["smooth", "strangers", "mean"])
def test_histories_that_nobody_had_stay_and_lack_the_same(beside, tmp_path: Path, kind) -> None:
    found = control(kind, beside, tmp_path)
    (was, made), (lists, kept) = beside[0].transfer, found.transfer
    assert lists.facts["transfer"] == was.facts["transfer"] == found.facts["transfer"]  # the share of rows among them
    np.testing.assert_array_equal(kept.parents, made.parents)
    np.testing.assert_array_equal(kept.interactions.items, made.interactions.items)
    (items, scores, _), (theirs, given, _) = everything(was), everything(lists)
    table = np.asarray(lists.vectors.users) @ np.asarray(found.vectors.items).T
    if kind == "smooth":
        np.testing.assert_array_equal(theirs, items)
        assert not table.any()
    if kind == "strangers":
        known = {tuple(row): n for n, row in enumerate(np.asarray(was.vectors.users))}
        source = np.array([known[tuple(row)] for row in np.asarray(lists.vectors.users)])
        assert sorted(source) == list(range(len(made)))
        assert (made.parents[source, 0] != made.parents[:, 0]).all()  # nor another history of the same user
        np.testing.assert_array_equal(theirs, items[source])
        np.testing.assert_array_equal(given, scores[source])
    if kind == "mean":
        whole = np.asarray(found.vectors.users) @ np.asarray(found.vectors.items).T
        assert (table == whole[0]).all()  # everybody's order, which is that of users
        np.testing.assert_allclose(given, np.take_along_axis(table, theirs, 1))
        holds = [set(made.interactions.items[slice(*made.interactions.indptr[n : n + 2])]) for n in range(len(made))]
        assert not any(set(row) & held for row, held in zip(theirs.tolist(), holds, strict=True))


def test_partial_teachers_swap_what_is_taught_and_keep_the_weight() -> None:
    for kind in ("smooth", "pt"):
        (term,) = control_terms(kind, terms(PL), 100)
        assert [draw.kind for draw in term.draw] == ["top", "own", "unseen"]
        assert (term.draw[0].k, term.weight, term.loss.kind) == (6, 2.0, "softmax_kl")
        assert [target.kind for target in term.target] == [kind]
        assert make_terms([term], num_items=ITEMS, epochs=3)[0].told
        assert control_terms(kind, terms(PL), 5)[0].draw[0].k == 5


def test_what_a_control_cannot_teach_is_left_out() -> None:
    given = terms(PL, ALIGN, ITEM, PARTNER)
    assert list(control_terms("strangers", given, 9)) == given
    assert list(control_terms("mean", given, 9)) == [given[0], given[3]]
    assert list(control_terms("pt", given, 9))[1:] == [given[3]]
    assert control_terms("smooth", terms(ALIGN, ITEM), 9) == ()


def test_a_temperature_is_of_scores_that_are_read() -> None:
    ranked, read, partner = cooled_terms(terms(PL, KL, PARTNER), 2.0)
    assert ranked.target == partner.target == ()
    assert [(t.kind, t.factor) for t in read.target] == [("scale", 0.5)]
    assert cooled_terms(terms(PL, PARTNER, ALIGN), 2.0) == ()


def test_a_control_is_the_same_bytes_again(labels, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        out.mkdir()
        write_control("strangers", labels[0], labels[1], out, STAMP, seed=1)
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [(first / n).read_bytes() for n in names] == [(second / n).read_bytes() for n in names]
    assert json.loads((first / "labels.json").read_text())["control"] == "strangers"


def test_a_control_has_the_weight_that_suits_it_best() -> None:
    valid: dict[float, float | None] = {0.1: 0.2, 0.3: 0.4, 1.0: 0.4}
    asks = []

    def students(factor: float, *, first: bool) -> list[SimpleNamespace]:
        assert first
        asks.append(factor)
        facts = {"valid_ndcg_at_10": valid[factor]}
        return [SimpleNamespace(artifact=SimpleNamespace(manifest=SimpleNamespace(facts=facts)))]

    assert _best(SimpleNamespace(students=students), tuple(valid)) == 0.3
    assert _best(SimpleNamespace(students=None), (2.0,)) == 2.0  # nothing to choose, so nothing is trained for it
    valid |= dict.fromkeys(valid)
    asks.clear()
    assert _best(SimpleNamespace(students=students), (1.0, 0.1)) == 1.0
    assert asks == [1.0]  # there is no validation part, so no other is trained


def test_a_head_of_sub_logits_goes_with_its_vectors_and_of_a_mean_says_the_classes_alone(labels, tmp_path) -> None:
    rng = np.random.default_rng(3)
    head = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    given = replace(labels[0], subclasses=head)
    for kind in ("strangers", "mean"):
        out = tmp_path / kind
        out.mkdir()
        write_control(kind, given, labels[1], out, STAMP | {"step": kind}, seed=1)
        found = open_labels(out)
        assert found.vectors is not None
        assert found.subclasses is not None
        users, items, weight, bias = (
            torch.from_numpy(part) for part in (found.vectors.users, found.vectors.items, *found.subclasses)
        )
        subs = sub_logits(users, items, weight, bias)
        if kind == "strangers":
            assert all(np.array_equal(one, two) for one, two in zip(found.subclasses, head, strict=True))
            continue
        torch.testing.assert_close(class_logit(subs), users @ items.T)
        assert (subs[..., :3].std(-1) == 0).all()
    assert cooled_terms(terms({**KL, "loss": {"kind": "subclass_kl"}}), 2.0) == ()
