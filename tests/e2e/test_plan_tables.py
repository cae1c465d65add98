"""`plan-tables`: where tables would lie on machines that are not here, and plan.json of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.__main__ import main

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore::FutureWarning"),
    pytest.mark.filterwarnings(r"ignore::UserWarning"),
]
CONFIG = """
name: large
log: {path: nothing.parquet, user: u, item: i, time: t}
split: {kind: user_random}
teacher: {model: {kind: sequence, dim: 64}, train: {epochs: 1}}
student: {model: {kind: mf, dim: 128}, train: {epochs: 1}}
exec: {store: none, topology: {ddr_gb: 128}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("large.yaml").write_text(CONFIG)
    return "large.yaml"


def test_a_catalogue_of_100_million_is_planned_without_a_log_or_a_gpu(config, capsys) -> None:
    words = ("plan-tables", config, "--world", "4", "--users", "1000", "--items", "100000000", "--hbm-gb", "24")
    assert main([*words, "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)["models"]
    assert plans.keys() == {"teacher", "student"}
    student = {row["table"]: row for row in plans["student"]["tables"]}
    assert (student["item"]["sharding"], student["item"]["kernel"]) == ("row_wise", "fused")
    assert [rank["weight_bytes"] for rank in plans["student"]["ranks"]][1:] == [25_000_000 * 128 * 4] * 3
    assert plans["student"]["hbm_bytes"] == 24 * 10**9
    assert main(list(words)) == 0
    said = capsys.readouterr().out.splitlines()
    line = next(line for line in said[said.index("student:") :] if line.startswith("model.item") and "  3  " in line)
    assert line.split() == [
        *("model.item", "row_wise", "fused", "3", "75000000-100000000", "0-128", "12,800.000", "100.000")
    ]


def test_what_does_not_fit_is_said_and_ends_in_1(config, capsys) -> None:
    words = ("plan-tables", config, "--users", "1000", "--items", "100000000", "--hbm-gb", "24", "--ddr-gb", "16")
    assert main(words) == 1
    assert "the tables do not fit in a world of 1, 1 to a host of 16 GB, 24 GB a GPU" in capsys.readouterr().err


def test_half_a_statement_is_refused(config, capsys) -> None:
    assert main(["plan-tables", config, "--users", "5"]) == 2
    assert main(["plan-tables", config, "--world", "6", "--local", "4", "--users", "5", "--items", "5"]) == 2
    said = capsys.readouterr().err
    assert "--users and --items are given together" in said
    assert "--world 6 is not a number of hosts with --local 4 each" in said


def test_rows_are_those_of_the_log_and_features_that_a_run_has_split(tiny, done, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tiny.home)
    assert main(["plan-tables", done.config, "--world", "2", "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)["models"]
    trained = json.loads((tiny.at("fit", done.stages["teacher"]) / "plan.json").read_text())
    for mine, theirs in zip(plans["teacher"]["tables"], trained["tables"], strict=True):
        assert {k: mine[k] for k in ("path", "rows", "dim")} == {k: theirs[k] for k in ("path", "rows", "dim")}
    assert plans["teacher"]["tables"][0]["rows"] > 150  # items and the values of their features


def test_a_run_keeps_where_its_tables_lie(tiny, done) -> None:
    plan = json.loads((tiny.at("fit", done.stages["student"]) / "plan.json").read_text())
    assert [(row["path"], row["sharding"], row["kernel"]) for row in plan["tables"]] == [
        ("model.item.ebc", "table_wise", "fused"),
        ("model.user.ebc", "table_wise", "fused"),
    ]
    assert plan["ranks"] == [
        {
            "rank": 0,
            "weight_bytes": (150 + 200) * 8 * 4,
            "optimizer_bytes": (150 + 200) * 4,
            "planned": plan["ranks"][0]["planned"],
        }
    ]
