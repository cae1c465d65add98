"""The figures of a sweep, from measurements whose every number is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.sweep_fits import Made
from pipelines.sweep_table import Tried, best, markdown, rows, terminal, write
from recdistill.report import ReportSpec
from recdistill.types import Artifact, Manifest

COLUMNS = ["ndcg@10", "recall@10", "tail_recall@10", "popularity@10"]
REPORT = ReportSpec(k=(10,), bootstrap=200)


def artifact(path: Path, facts: dict) -> Artifact:
    blank = {"format": 1, "stage": "", "version": 1, "config": {}, "inputs": {}, "files": {}, "env": {}}
    made = Manifest(**blank, fingerprint=path.name, facts=facts, created_at="", seconds=0.0)
    return Artifact(path=path, manifest=made, hit=False)


@pytest.fixture
def judged(tmp_path: Path):
    """Return a function from a name and NDCG of three users to a measurement; other columns are twice that."""

    def make(name: str, ndcg: list[float], first: int = 0) -> Artifact:
        (tmp_path / name).mkdir()
        values = np.stack([np.array(ndcg), 2 * np.array(ndcg), [np.nan, 1.0, np.nan], [3.0, 4.0, 5.0]], axis=1)
        np.save(tmp_path / name / "values.npy", values)
        lists = np.array([[first, 2], [2, 3], [3, -1]])
        np.save(tmp_path / name / "lists.npy", np.pad(lists, ((0, 0), (0, 8)), constant_values=-1).astype(np.int32))
        return artifact(tmp_path / name, {"columns": COLUMNS, "items": 8})

    return make


def tried(method: str | None, *measured: Artifact, seconds: float = 1.0, factors=None, reason: str = "") -> Tried:
    made = [Made(fit=artifact(Path(f"{m.path.name}-fit"), {"seconds_per_epoch": seconds}), judged=m) for m in measured]
    made = made or [Made(reason=reason)]
    return Tried(method=method, dim=8, loss="softmax", made=made, factors=factors or {1.0: None})


@pytest.fixture
def found(judged):
    scratch = tried(None, judged("s1", [0.1, 0.2, 0.3]), judged("s2", [0.3, 0.2, 0.1]), seconds=2.0)
    methods = [
        tried("a", judged("a1", [0.4, 0.4, 0.4], first=1), judged("a2", [0.2, 0.2, 0.2]), seconds=5.0),
        tried("here/b.yaml", reason="it broke | twice"),
    ]
    return rows([scratch], methods, judged("teacher", [0.4, 0.4, 0.4]), REPORT)


def test_the_teacher_and_the_scratch_student_stand_first(found) -> None:
    assert [row["model"] for row in found] == ["teacher", "scratch", "a", "b"]


def test_a_models_figures_are_means_over_users_and_seeds(found) -> None:
    _, scratch, a, _ = found
    shown = {"coverage@10": 3 / 8, "overlap@10": 1.0}
    assert scratch["metrics"] == pytest.approx(dict(zip(COLUMNS, [0.2, 0.4, 1.0, 4.0], strict=True)) | shown)
    assert a["metrics"]["ndcg@10"] == pytest.approx(0.3)
    assert a["seed_spread"]["ndcg@10"] == pytest.approx(0.2 / np.sqrt(2))
    assert (a["seconds_an_epoch"], a["times_scratch"]) == (5.0, 2.5)
    assert a["fits"] == ["a1-fit", "a2-fit"]


def test_a_method_is_held_against_another_on_the_same_users(judged) -> None:
    scratch = tried(None, judged("s1", [0.1, 0.2, 0.3]))
    both = [tried("a", judged("a1", [0.2, 0.3, 0.5])), tried("here/b.yaml", judged("b1", [0.1, 0.2, 0.4]))]
    _, _, a, b = rows([scratch], both, judged("t", [0.4, 0.4, 0.4]), REPORT, "b")
    assert [a["against"]["ndcg@10"][part] for part in ("difference", "low", "high")] == pytest.approx([0.1] * 3)
    assert "against" not in b
    asked = {"sets": [], "seeds": [1], "tune": [1.0], "methods": ["a", "b"], "students": [""], "against": "b"}
    swept = {"file": "x.yaml", "name": "x", "asked": asked, "k": [10], "rows": [a, b]}
    lines = [line for line in markdown(swept).splitlines() if line.startswith("|")]
    assert "ndcg@10 - b" in lines[0]
    assert len({line.count("|") for line in lines}) == 1
    assert "+0.1000 [+0.1000, +0.1000]" in lines[2]


def test_fidelity_is_to_the_teacher_that_taught(found, judged) -> None:
    assert found[0]["metrics"]["overlap@10"] == 1.0
    # Of one of two seeds, the first user's list has another item in one of two places.
    assert found[2]["metrics"]["overlap@10"] == pytest.approx(1 - 0.5 / 3 / 2)
    scratch, other = tried(None, judged("s3", [0.1, 0.2, 0.3])), judged("t2", [0.1, 0.2, 0.3], first=5)
    mine = replace(tried("a", judged("a3", [0.1, 0.2, 0.3], first=5)), teacher=other)
    told = rows([scratch], [mine], judged("t3", [0.1, 0.2, 0.3]), REPORT)
    assert [row["metrics"]["overlap@10"] for row in told[1:]] == [1.0, 1.0]


def test_a_difference_is_paired_and_the_gap_is_what_the_teacher_is_ahead(found) -> None:
    a = found[2]
    told = a["difference"]["ndcg@10"]
    assert [told[part] for part in ("difference", "low", "high")] == pytest.approx([0.1, 0.1, 0.1])
    assert a["gap_closed"]["ndcg@10"]["share"] == pytest.approx(0.5)
    assert a["difference"]["recall@10"]["difference"] == pytest.approx(0.2)
    assert set(a["difference"]) == {"ndcg@10", "recall@10"}


def test_where_the_teacher_is_not_ahead_no_gap_is_told(judged) -> None:
    scratch = tried(None, judged("s1", [0.1, 0.2, 0.3]))
    told = rows([scratch], [tried("a", judged("a1", [0.2, 0.2, 0.2]))], judged("t", [0.1, 0.2, 0.3]), REPORT)
    assert told[2]["gap_closed"] == {"ndcg@10": None, "recall@10": None}


def test_what_failed_is_a_row_with_its_reason(found) -> None:
    assert found[3] == {"model": "b", "dim": 8, "loss": "softmax", "reason": "it broke | twice"}


def test_the_best_factor_is_that_of_the_best_validation_and_the_first_of_equals() -> None:
    assert best({0.3: 0.1, 1.0: 0.2, 3.0: 0.2}) == 1.0
    assert best({0.3: None, 1.0: 0.2}) == 1.0
    assert best({0.3: None, 1.0: None}) == 0.3


def test_the_tables_hold_a_line_a_row_and_json_all(found, tmp_path: Path) -> None:
    asked = {
        "sets": ["a.b=1"],
        "seeds": [1, 2],
        "tune": [0.3, 1.0],
        "methods": ["a", "b"],
        "students": [""],
        "against": "",
    }
    swept = {"file": "x.yaml", "name": "x", "asked": asked, "k": [10], "rows": found}
    lines = [line for line in markdown(swept).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(found)
    assert len({line.count("|") for line in lines}) == 1
    assert len(terminal(swept).splitlines()) == 1 + len(found)
    write(swept, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "sweep.json").read_text()) == swept
