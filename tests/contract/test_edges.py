"""Logs at the edge of what is one: each ends with models and their quality, or with an error of what and where."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.distill import Everything, path
from recdistill.config import load_config
from recdistill.errors import DataError
from recdistill.stages import Run

TRAIN = {"epochs": 1, "batch": 8, "negatives": 4}
BASE: dict[str, Any] = {
    "name": "edge",
    "split": {"kind": "user_chronological", "allow": ["cold_items", "cold_users"]},
    "teacher": {"model": {"kind": "mf", "dim": 4}, "train": TRAIN},
    "labels": {"depth": 10},
    "student": {"model": {"kind": "mf", "dim": 4}, "train": TRAIN | {"list_users": 4}},
    "distill": [{"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 3}], "loss": {"kind": "softmax_kl"}}],
    "index": {"k": [10]},
    "report": {"k": [10], "metrics": ["ndcg"], "slices": [], "bootstrap": 5},
}
FIVE_EACH = [user for user in range(6) for _ in range(5)]
SPREAD = [(user + 2 * place) % 9 for user in range(6) for place in range(5)]
LEAST, MOST = -(2**63), 2**63 - 1


def log(users, items, times=None, kind=None):
    times = list(range(1, len(users) + 1)) if times is None else times
    return pl.DataFrame({"u": pl.Series(users, dtype=kind), "i": pl.Series(items, dtype=kind), "t": times})


def renamed(users, items, kind=None):
    """Return the log of six users and nine items with these ids."""
    return log([users[u] for u in FIVE_EACH], [items[i] for i in SPREAD], kind=kind)


@dataclass(frozen=True)
class Edge:
    """A log, what is asked of it beside BASE, and of how many users and items there is something to learn."""

    name: str
    frame: pl.DataFrame
    users: int = 6
    items: int = 9
    more: dict[str, Any] = field(default_factory=dict)


WRITTEN = ["e\u0301", "\u00e9", "\u05d0\u05d1\u05d2", "\U0001f600\u200d\U0001f4bb", "\u202eabc", "a\u200bb"]
LONG = {"labels": {"depth": 500}, "report": BASE["report"] | {"k": [100]}, "index": {"k": [100]}}
FOLDED = {"student": BASE["student"] | {"model": {"kind": "mf", "dim": 4, "rows": {"users": 4, "items": 5}}}}
EDGES = [
    Edge("constant times", log(FIVE_EACH, SPREAD, [7] * 30)),
    Edge("least and most", renamed([LEAST, MOST, 0, -1, 1, 2**62], [LEAST, MOST, 0, *range(1, 7)]), more=FOLDED),
    Edge("unsigned", renamed([2**63 + n for n in range(6)], [2**64 - 1 - n for n in range(9)], pl.UInt64)),
    Edge("any script", renamed(WRITTEN, [f"{name}{n}" for n in range(2) for name in WRITTEN][:9])),
    Edge("lists longer than the catalogue", log(FIVE_EACH, SPREAD), more=LONG),
    Edge("one user", log([1] * 6, [3, 0, 5, 1, 4, 2]), users=1, items=6),
    Edge("one item in common", log([1, 1, 1, 2, 2, 2], [1, 2, 3, 3, 4, 5]), users=2, items=5),
    Edge("one item", log(list(range(40)), [3] * 40), 40, 1, {"split": BASE["split"] | {"kind": "global_time"}}),
    Edge(
        "users and items that are new after training",
        log([0] * 8 + [1] * 8 + [2] * 4, [*range(8), *range(8), *range(9, 13)]),
        users=3,
        items=12,
        more={"split": BASE["split"] | {"kind": "global_time"}},
    ),
]


def run(home: Path, frame: pl.DataFrame, more: dict[str, Any]) -> dict[str, Any]:
    """Run the path up to the evaluation; return its artifacts by stage."""
    frame.write_parquet(home / "log.parquet")
    named = {"path": str(home / "log.parquet"), "user": "u", "item": "i", "time": "t"}
    (home / "edge.yaml").write_text(json.dumps(BASE | {"log": named} | more))
    found: dict[str, Any] = {}
    for made in path(load_config(home / "edge.yaml", []), Run(store=home / "store")):
        assert not isinstance(made, Everything)
        found[made.name] = made.artifacts[0]
        if made.name == "evaluate":
            break
    return found


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.name)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_it_ends_with_models_over_the_very_ids(tmp_path, edge):
    from recdistill.data.dataset import read_dataset

    found = run(tmp_path, edge.frame, edge.more)
    dataset = read_dataset(found["ingest"].path, found["split"].path)
    assert sorted(dataset.user_ids.to_list()) == sorted(set(edge.frame["u"].to_list()))
    assert sorted(dataset.item_ids.to_list()) == sorted(set(edge.frame["i"].to_list()))
    assert (dataset.num_users, dataset.num_items) == (edge.users, edge.items)
    rows = json.loads((found["evaluate"].path / "quality.json").read_text())["quality"]
    values = {row["model"]: row["value"] for row in rows}
    assert {"teacher", "scratch", "student", "student@index", "popularity"} <= values.keys()
    assert all(0 <= value <= 1 for value in values.values())
    if edge.name == "one item":
        assert values["student"] == 1.0


@pytest.mark.parametrize(
    ("name", "frame", "words"),
    [
        ("one interaction", log([1], [1]), "the valid part is empty: 1 rows"),
        ("one pair again and again", log([1] * 9, [2] * 9), "the valid part is empty: 1 rows"),
        ("nobody took two", log(list(range(6)), [3] * 6), "the valid part is empty: 6 rows"),
        ("an id that is no text", log(["", "", *"ab"], ["x", "y", "x", "y"]), "column 'u': 2 rows: no value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_nobody_can_learn_from_is_refused_by_name(tmp_path, name, frame, words):
    with pytest.raises(DataError) as caught:
        run(tmp_path, frame, {})
    assert words in str(caught.value), name
    assert caught.value.fix
