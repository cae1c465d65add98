"""A candidate beside the champion on planted bundles: the same users, by their ids, as both serve."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill import contest as module
from recdistill.ann import IndexSpec, build_index
from recdistill.bundle import write_bundle
from recdistill.contest import contest, contestants
from recdistill.types import Dataset, Interactions

USERS, ITEMS = 40, 60
ASKED = {"k": (2, 3), "metrics": ("ndcg", "coverage"), "slices": ("activity",), "times": 200, "seed": 1}


def one_each(items: np.ndarray) -> Interactions:
    return Interactions(indptr=np.arange(len(items) + 1), items=items.astype(np.int64))


SEEN, WANTED = np.arange(USERS), (np.arange(USERS) + 7) % ITEMS
NOTHING = Interactions(indptr=np.zeros(USERS + 1, np.int64), items=np.zeros(0, np.int64))
DATA = Dataset(
    user_ids=pl.Series([f"u{u}" for u in range(USERS)]),
    item_ids=pl.Series(range(100, 100 + ITEMS)),
    train=one_each(SEEN),
    valid=NOTHING,
    test=one_each(WANTED),
)


def bundle(out: Path, best: np.ndarray, users: np.ndarray, items: np.ndarray, *, stranger: bool = False) -> Path:
    """Write a bundle whose users like `best` [U] most after what they took, in rows of the orders given.

    With a stranger its catalogue has an item more, which everybody likes better still.
    """
    width = ITEMS + stranger
    tastes = np.random.default_rng(3).random((USERS, ITEMS)).astype(np.float32)  # the same of every bundle
    tastes[np.arange(USERS), SEEN], tastes[np.arange(USERS), best] = 9, 4
    if stranger:
        tastes = np.hstack([tastes, np.full((USERS, 1), 6, np.float32)])
    order = np.append(items, ITEMS) if stranger else items
    ids = np.append(np.arange(100, 100 + ITEMS), 7) if stranger else np.arange(100, 100 + ITEMS)
    vectors = np.eye(width, dtype=np.float32)[order]
    query = tastes[users]
    build_index(vectors, query, IndexSpec(factory="Flat"), out / "index")
    write_bundle(
        out / "bundle",
        query={"user": query},
        query_meta={"kind": "mf", "space": "dot", "dim": width, "num_users": len(users), "num_items": width},
        user_ids=DATA.user_ids.gather(users),
        item_ids=pl.Series(ids[order]),
        histories=None,
        popular=np.arange(width),
        index_dir=out / "index",
        facts={"fingerprint": "f", "data_end": None},
    )
    return out / "bundle"


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("right"), WANTED, np.arange(USERS), np.arange(ITEMS))


def of(rows: list[dict], model: str, k: int, where: str = "all") -> float:
    return next(r["value"] for r in rows if (r["model"], r["k"], r["slice"]) == (model, k, where))


def test_the_same_answers_in_rows_of_another_order_differ_by_nothing(right: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    theirs = bundle(tmp_path, WANTED, rng.permutation(USERS), rng.permutation(ITEMS))
    found = contest(DATA, right, theirs, **ASKED)
    assert {(d["difference"], d["low"], d["high"]) for d in found["differences"]} == {(0.0, 0.0, 0.0)}
    assert {(d["metric"], d["k"]) for d in found["differences"]} == {("ndcg", 2), ("ndcg", 3)}
    assert {d["slice"] for d in found["differences"]} > {"all", "activity:low"}
    assert [row["mean"] for row in found["churn"]] == [0.0, 0.0]
    assert (found["users"], of(found["quality"], "candidate@index", 2)) == (USERS, 1.0)


def test_a_champion_that_knows_half_the_users_wants_is_half_as_good(right: Path, tmp_path: Path) -> None:
    best = np.where(np.arange(USERS) % 2, WANTED, (SEEN + 1) % ITEMS)
    found = contest(DATA, right, bundle(tmp_path, best, np.arange(USERS), np.arange(ITEMS)), **ASKED)
    ours, theirs = (of(found["quality"], f"{who}@index", 2) for who in ("candidate", "champion"))
    row = next(d for d in found["differences"] if (d["k"], d["slice"]) == (2, "all"))
    assert ours == 1.0
    assert 0.5 <= theirs < 0.6  # a want may stand second by chance of the other tastes
    assert row["difference"] == pytest.approx(ours - theirs)
    assert 0.2 < row["low"] < row["difference"] < row["high"] < 0.7


def test_an_item_that_left_the_catalogue_costs_the_champion_its_place(right: Path, tmp_path: Path) -> None:
    theirs = bundle(tmp_path, WANTED, np.arange(USERS), np.arange(ITEMS), stranger=True)
    found = contest(DATA, right, theirs, **ASKED)
    assert of(found["quality"], "champion@index", 3) == pytest.approx(1 / math.log2(3))
    assert [row["mean"] for row in found["churn"]] == pytest.approx([1 / 2, 1 / 3])


def test_a_user_whom_the_champion_never_met_gets_its_popular_items(right: Path, tmp_path: Path) -> None:
    met = np.arange(10, USERS)
    found = contest(DATA, right, bundle(tmp_path, WANTED, met, np.arange(ITEMS)), **ASKED)
    # Users 0 and 1 want items 7 and 8, and the popular ones are 0, 1 and 2: nobody of the ten has a hit.
    assert of(found["quality"], "champion@index", 2) == pytest.approx(len(met) / USERS)


def test_of_many_users_a_part_is_asked_and_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert contestants(DATA, 1).tolist() == list(range(USERS))
    monkeypatch.setattr(module, "ASKED", 12)
    first = contestants(DATA, 1)
    assert len(set(first.tolist())) == 12
    assert first.tolist() == sorted(first.tolist()) == contestants(DATA, 1).tolist() != contestants(DATA, 2).tolist()
