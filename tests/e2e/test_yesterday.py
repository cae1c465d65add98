"""A daily refresh from configuration to what it changed: of a part of the log, and of a run that is finished."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from pipelines.distill import distill, plan, stage_rows
from recdistill.config import load_config
from recdistill.data.dataset import read_dataset
from recdistill.errors import ArtifactError, ConfigError
from recdistill.stages import Run

TRAIN = {"epochs": 12, "batch": 300, "negatives": 60, "lr": 0.3, "decay": "cosine", "evaluate_every": 12}
# Steps of SGD are as long as the gradient; an adaptive optimizer makes steps of one length of whatever is left of it.
CAREFUL = TRAIN | {"optimizer": "sgd", "lr": 30.0, "list_users": 120}
STUDENT = {"model": {"kind": "mf", "dim": 4, "temperature": 0.2}, "train": CAREFUL, "task": 0.0}
COMMON: dict[str, Any] = {
    "features": None,
    "registry": None,
    "log": {"path": "planted.parquet", "user": "user", "item": "item", "min_user": 3, "min_item": 1},
    "split": {"kind": "user_random"},
    "teacher": {"model": {"kind": "mf", "dim": 8, "temperature": 0.2}, "train": TRAIN},
    "labels": {"depth": 50},
    "student": STUDENT,
    "distill": [{"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 50}], "loss": {"kind": "softmax_kl"}}],
    "report": {"k": [5], "metrics": ["ndcg"], "bootstrap": 10},
}
DELTA = {"teacher": COMMON["teacher"] | {"recipe": {"kind": "delta"}}, "student": STUDENT | {"start": "yesterday"}}


def planted() -> pl.DataFrame:
    """A log of 120 users in three groups, each of which takes items of its own, some far more than others."""
    rng, share = np.random.default_rng(0), 1 / np.arange(1, 21)
    rows = [
        (f"u{u:03d}", int(i) + 20 * (u % 3))
        for u in range(120)
        for i in rng.choice(20, 10, replace=False, p=share / share.sum())
    ]
    return pl.DataFrame(rows, schema=["user", "item"], orient="row")


@pytest.fixture
def go(tiny, monkeypatch):
    """Run the path as far as a stage, in this process, and return what it made, and what the refresh changed."""
    monkeypatch.chdir(tiny.home)
    planted().write_parquet("planted.parquet")

    def run(name: str, lacks: float | None = 0.1, until: str = "refresh", **sections: Any) -> SimpleNamespace:
        day = {"yesterday": {"kind": "part", "lacks": lacks}} if lacks is not None else {}
        config = load_config(Path(tiny.config(name, **COMMON | day | {"name": name} | sections)))
        planned = {row["path"] for row in plan(config)}
        made = distill(config, Run(store=Path(config.exec.store)), until=until).made
        assert {str(artifact.path) for step in made for artifact in step.artifacts} <= planned
        found = {step.name: step.artifacts for step in made}
        told = json.loads((found["refresh"][0].path / "refresh.json").read_text()) if "refresh" in found else {}
        churned = {row["model"]: row["mean"] for row in told.get("churn", [])}
        return SimpleNamespace(**found, config=config, made=made, told=told, churn=churned)

    return run


def sides(path: Path, name: str = "") -> tuple[np.ndarray, ...]:
    return tuple(np.load(path / f"{name}{side}.npy") for side in ("users", "items"))


def test_a_quiet_day_changes_next_to_nothing(go) -> None:
    quiet = go("quiet", lacks=1e-9, **DELTA)
    assert quiet.yesterday[0].manifest.facts["lacks"] == 0
    assert quiet.churn["teacher"] == quiet.churn["scratch"] == 0
    assert quiet.churn["student"] < 0.01
    assert quiet.told["continuity"]["overlap"]["as_it_is"] > 0.99


def test_a_student_that_moves_on_is_steadier_than_one_that_begins_again(go) -> None:
    again = go("again")
    moved = go("moved", **DELTA)
    assert again.yesterday[-1].fingerprint == moved.yesterday[-1].fingerprint
    assert again.churn["teacher"] == moved.churn["teacher"] > 0.1
    assert moved.churn["student"] < 0.95 * again.churn["student"]
    recipe = moved.teacher[-1].manifest
    assert (recipe.stage, recipe.facts["kind"]) == ("recipe", "delta")
    users, items = sides(moved.teacher[-1].path)
    old, said, day = moved.yesterday[-1].path, moved.teacher[0].path, moved.yesterday
    student, before, now = sides(old, "student-"), sides(old, "teacher-"), sides(said)
    there = np.ix_(*(np.flatnonzero(rows >= 0) for rows in sides(old)))
    wanted = student[0] @ student[1].T / 0.2 + now[0] @ now[1].T / 0.2 - before[0] @ before[1].T
    np.testing.assert_allclose((users @ items.T)[there], wanted[there], atol=1e-3)
    assert len(day) == 6  # the log, a scratch student, the teacher, its labels, the student; and what is left of them
    table = pl.read_ipc(f"{moved.labels[0].path}/*.arrow")
    scores = np.take_along_axis(users @ items.T, table["items"].to_numpy().astype(np.int64), axis=1)
    np.testing.assert_allclose(table["scores"].to_numpy(), scores, atol=1e-3)


def test_a_turn_serves_the_same_lists_by_vectors_that_are_nearer(go) -> None:
    own, turned = go("again"), go("turned", student=STUDENT | {"axes": "yesterday"})
    assert turned.churn == pytest.approx(own.churn)
    plain, moved = (sides(made.student[0].path) for made in (own, turned))
    np.testing.assert_allclose(moved[0] @ moved[1].T, plain[0] @ plain[1].T, atol=1e-5)
    for name in ("cosine", "overlap"):
        before, after = own.told["continuity"][name], turned.told["continuity"][name]
        assert after["as_it_is"] == pytest.approx(after["turned"], abs=0.02)
        assert after["turned"] == pytest.approx(before["turned"], abs=0.02)
    assert turned.told["continuity"]["cosine"]["as_it_is"] > own.told["continuity"]["cosine"]["as_it_is"] + 0.01


def test_a_teacher_and_a_student_with_layers_begin_where_yesterdays_ended(go) -> None:
    still = {"start": "yesterday", "warm": {"epochs": 1, "lr": 1e-12}}
    teacher = {"model": {"kind": "lightgcn", "dim": 8}, "train": TRAIN} | still
    student = {"model": {"kind": "two_tower", "dim": 4, "history": 4}, "train": TRAIN} | still
    made = go("still", until="student", teacher=teacher, student=student)
    *_, its, _labels, own, left = made.yesterday
    short, whole = (made.teacher[0], made.student[0]), made.scratch[0].manifest.facts["steps"]
    assert [12 * fit.manifest.facts["steps"] for fit in short] == [whole, whole]
    for now, then in ((made.teacher[0], its), (made.student[0], own)):
        new, old = (load_file(fit.path / "weights.safetensors") for fit in (now, then))
        for side, rows in zip(("user", "item"), sides(left.path), strict=True):
            there = rows >= 0
            assert there.mean() > 0.9
            kept = old[f"{side}.weight"][rows[there]]
            np.testing.assert_allclose(new[f"{side}.weight"][there], kept, atol=1e-6)


@pytest.fixture
def finished(go, tiny) -> SimpleNamespace:
    """A run of the day before, of a log with another order, some users and items gone, and its report."""
    log = planted()
    early = log.filter((pl.col("user") > "u008") & (pl.col("item") != 0)).reverse()
    early.with_columns(pl.col("user").replace("u020", "left")).write_parquet(tiny.home / "early.parquet")
    made = go("early", lacks=None, until="evaluate", log=COMMON["log"] | {"path": "early.parquet"})
    out = tiny.home / "runs" / "reports" / "early"
    out.mkdir(parents=True, exist_ok=True)
    report = {"schema_version": 1, "name": "early", "stages": stage_rows(made.made)}
    report |= {"config": made.config.model_dump(mode="json", exclude={"exec"})}
    (out / "report.json").write_text(json.dumps(report))
    return SimpleNamespace(path=out, **vars(made))


def test_a_finished_run_is_a_yesterday_by_its_ids(go, finished, tiny) -> None:
    day = {"yesterday": {"kind": "run", "path": "runs/reports/early"}}
    found = go("late", **day, **DELTA | {"student": DELTA["student"] | {"axes": "yesterday"}})
    path = found.yesterday[0].path
    now, then = (read_dataset(made.ingest[0].path, made.split[0].path) for made in (found, finished))
    for side, rows in zip(("user", "item"), sides(path), strict=True):
        ids, old = getattr(now, f"{side}_ids").to_list(), getattr(then, f"{side}_ids").to_list()
        assert all(ids[i] == old[row] for i, row in enumerate(rows) if row >= 0)
        assert 0.8 < np.mean(rows >= 0) < 1
        assert rows.tolist() != np.where(rows >= 0, np.arange(len(rows)), -1).tolist()
    rows, vectors = sides(path)[0], sides(finished.student[0].path)[0]
    np.testing.assert_array_equal(sides(path, "student-")[0][rows >= 0], vectors[rows[rows >= 0]])
    assert found.told["new_users"] == 10
    assert found.told["new_items"] >= 1
    assert found.churn.keys() == {"teacher", "scratch", "student"}
    # The store is found beside the reports, wherever today's is.
    elsewhere = go("late2", **day, until="yesterday", exec={"store": "other/store", "device": "cpu", "threads": 1})
    assert elsewhere.yesterday[0].fingerprint == found.yesterday[0].fingerprint


def test_a_yesterday_that_does_not_fit_is_refused(go, finished, tiny) -> None:
    day = {"yesterday": {"kind": "run", "path": str(finished.path)}}
    wide = DELTA["student"] | {"model": STUDENT["model"] | {"dim": 8}}
    with pytest.raises(ConfigError, match=r"student.model.dim is 8 today, and was 4 on the day before"):
        go("wide", **day, student=wide)
    report = json.loads((finished.path / "report.json").read_text())
    for name, message in (("split", "the store of this run is neither"), ("student", "the report names no student")):
        other = tiny.home / "runs" / "reports" / f"no-{name}"
        other.mkdir()
        kept = [row for row in report["stages"] if row["stage"] != name]
        (other / "report.json").write_text(json.dumps(report | {"stages": kept}))
        with pytest.raises(ArtifactError, match=message):
            go(f"no-{name}", yesterday={"kind": "run", "path": str(other)})
