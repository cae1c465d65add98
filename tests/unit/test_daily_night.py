"""Where a night begins: at the best version that has seen nothing of its day, decided once; or at random, and why."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from pipelines import daily_night
from pipelines.daily_commands import day_named
from pipelines.daily_night import alone, directory, of_day, resolved
from pipelines.daily_told import alarms, superseded
from pipelines.distill import plan
from recdistill.config import Config, load_config
from recdistill.daily_spec import AlarmSpec
from recdistill.errors import ArtifactError, ConfigError
from recdistill.models.spec import Fitted, LightGCNSpec, MFSpec
from recdistill.stages import Run

FILE = """\
name: nights
log: {path: log, user: u, item: i, time: t}
teacher: {model: {kind: lightgcn, dim: 16}, train: {epochs: 30}, warm: {epochs: 3}}
labels: {depth: 30}
student: {model: {kind: mf, dim: 8}, train: {epochs: 10}, axes: yesterday}
distill: [{kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}]
daily: {window_days: 2}
report: {k: [10]}
registry: {model: nights}
"""
DAY = date(2026, 11, 20)


def version(number: int, log_end: str, gate: str = "passed", **more: Any) -> dict[str, Any]:
    ends = {"data_end": f"{log_end}T10:00:00+00:00", "log_end": f"{log_end}T23:59:59+00:00"}
    return {"version": number, "gate": gate, "run_id": f"run {number}", "aliases": []} | ends | more


@pytest.fixture
def night(tmp_path, monkeypatch):
    """Decide a night with these versions in the registry; what else there is can be set."""
    (tmp_path / "run.yaml").write_text(FILE)
    for side in ("user", "item"):
        pl.DataFrame({f"{side}_id": [1, 2], "count": [3, 3]}).write_parquet(tmp_path / f"{side}s.parquet")
    today = [int(datetime(2026, 11, 20, hour, tzinfo=UTC).timestamp()) * 1_000_000 for hour in (8, 9)]
    pl.DataFrame({"user": [0, 1], "item": [0, 1], "time": today}).write_parquet(tmp_path / "log.parquet")
    log = made(tmp_path)
    world = SimpleNamespace(versions=list[dict[str, Any]](), reports=dict[str, Any](), before=before(log), gone=False)
    monkeypatch.setattr(daily_night.registry, "history", lambda *_: world.versions)
    monkeypatch.setattr(daily_night.tracking, "initialise", lambda *_: None)
    monkeypatch.setattr(daily_night.tracking, "run_report", lambda _, run: world.reports.get(run, {"name": run}))
    monkeypatch.setattr(daily_night, "finished", lambda path, _: found(path, world))

    def decide(*sets: str, day: date = DAY) -> dict[str, Any]:
        config = of_day(load_config(tmp_path / "run.yaml", sets), day)
        run = Run(store=tmp_path / "runs" / "store")
        with alone(config, run):
            return daily_night._decided(config, world.log, run)

    world.log, world.decide, world.home = log, decide, tmp_path
    return world


def made(path: Path, kind: str = "Int64", fingerprint: str = "log") -> Any:
    days = {"2026-11-19": 5, "2026-11-20": 5}
    facts = {"days": days, "user_id_type": kind, "item_id_type": "Int64", "last": "2026-11-19T20:00:00+00:00"}
    return SimpleNamespace(path=path, manifest=SimpleNamespace(facts=facts), fingerprint=fingerprint)


def before(log: Any, student: Any = None, teacher: Any = None) -> Any:
    models = {"student": student or MFSpec(dim=8), "teacher": teacher or LightGCNSpec(kind="lightgcn", dim=16)}
    return SimpleNamespace(data=SimpleNamespace(ingested=log), **{n: Fitted(m, log) for n, m in models.items()})


def found(path: Path, world: Any) -> Any:
    assert path.is_file()
    if world.gone:
        error = ArtifactError("no split/abc", where="store")
        error.damaged = world.gone == "damaged"
        raise error
    return world.before


def test_without_a_version_the_night_begins_at_random(night) -> None:
    first = night.decide()
    assert (first["start"], first["base"], first["full_on"]) == ("full", None, "2026-11-20")
    assert "has passed its gates on a log that ends before 2026-11-20" in first["why"]
    assert first["drift"] == {"last_day_ratio": 1, "empty_days": 0}


def test_it_begins_at_the_newest_data_that_passed_and_is_of_another_day(night) -> None:
    night.versions = [
        version(6, "2026-11-21"),  # the future of a night that is made up for
        version(5, "2026-11-20"),  # of the day itself, with another configuration
        version(4, "2026-11-19", gate="failed"),
        version(3, "2026-11-18", gate="withdrawn"),
        version(2, "2026-11-17"),
        version(1, "2026-11-17"),
    ]
    night.reports = {"run 2": {"daily": {"full_on": "2026-11-15"}}}
    assert night.decide()["base"] == {"version": 2, "log_end": "2026-11-17", "full_on": "2026-11-15"}
    assert night.decide()["start"] == "champion"
    assert night.decide(day=date(2026, 11, 23))["base"]["version"] == 6


def test_a_version_of_a_run_that_was_no_night_is_known_by_the_end_of_its_data(night) -> None:
    night.versions = [version(1, "2026-11-18")]
    del night.versions[0]["log_end"]
    decided = night.decide()
    assert decided["base"] == {"version": 1, "log_end": "2026-11-18", "full_on": "2026-11-18"}
    assert decided["full_on"] == "2026-11-18"


def test_a_decision_stands_whatever_serves_later_and_is_of_its_configuration(night) -> None:
    night.versions = [version(1, "2026-11-18")]
    first = night.decide()
    night.versions = [version(2, "2026-11-19"), *night.versions]
    assert night.decide() == first
    assert night.decide("exec.threads=2") == first
    assert night.decide("student.train.epochs=11")["base"]["version"] == 2


def test_a_store_that_lost_the_champion_makes_the_night_full_and_says_so(night) -> None:
    night.versions, night.gone = [version(1, "2026-11-19")], True
    decided = night.decide()
    assert (decided["start"], decided["base"]) == ("full", None)
    assert decided["why"] == "version 1 of nights is no longer in the store: no split/abc"


def test_a_champion_that_is_damaged_stops_the_night_and_is_made_again(night) -> None:
    """Whoever deleted it chose a night that begins at random; whoever lost a bit of it did not."""
    night.versions, night.gone = [version(1, "2026-11-19")], "damaged"
    with pytest.raises(ArtifactError, match="run the night of 2026-11-19 again, then this one"):
        night.decide()
    night.gone = False
    assert night.decide()["base"]["version"] == 1


@pytest.mark.parametrize(("was", "is_"), [('"version": 1', '"version": 2'), ('"start"', '"spart"'), ("{", "[")])
def test_a_decision_that_is_not_what_was_written_is_refused(night, was, is_) -> None:
    night.versions = [version(1, "2026-11-19")]
    first = night.decide()
    (file,) = night.home.glob("runs/daily/*/decision.json")
    text = file.read_text()
    assert was in text
    file.write_text(text.replace(was, is_, 1))
    with pytest.raises(ArtifactError, match=r"decision\.json: what was decided of this night is not what was written"):
        night.decide()
    file.write_text(text)
    assert night.decide() == first


def test_the_report_of_another_base_is_refused(night) -> None:
    night.versions = [version(1, "2026-11-19")]
    night.decide()
    (file,) = night.home.glob("runs/daily/*/version-1.json")
    file.write_text(file.read_text() + " ")
    with pytest.raises(ArtifactError, match=r"version-1\.json: is not the report that this night was decided by"):
        night.decide()


def test_rows_that_come_late_leave_the_decision_and_are_in_the_figures(night) -> None:
    night.versions = [version(1, "2026-11-19")]
    first = night.decide()
    night.log = made(night.home, fingerprint="with late rows")
    night.log.manifest.facts["days"]["2026-11-20"] = 10
    late = night.decide()
    assert (first["drift"]["last_day_ratio"], late["drift"]["last_day_ratio"]) == (1, 2)
    assert late["drift"]["items_moved"] == 0
    assert late | {"drift": None} == first | {"drift": None}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"student": MFSpec(dim=12)}, "student.model.dim is 8 today, and was 12 on the day before"),
        ({"teacher": LightGCNSpec(kind="lightgcn", dim=32)}, "today's cannot begin where it ended"),
        ({"log": "String"}, "user_id_type is Int64, and the champion's was String"),
    ],
)
def test_models_that_cannot_be_followed_make_the_night_full(night, change, why) -> None:
    night.versions = [version(1, "2026-11-19")]
    log = made(night.log.path, change.pop("log", "Int64"))
    night.before = before(log, **change)
    decided = night.decide()
    assert (decided["start"], decided["base"], decided["full_on"]) == ("full", None, "2026-11-20")
    assert why in decided["why"]


def test_a_full_night_comes_when_it_is_due_and_is_still_held_against_the_champion(night) -> None:
    night.versions = [version(1, "2026-11-19")]
    night.reports = {"run 1": {"daily": {"full_on": "2026-11-14"}}}
    due = night.decide("daily.full_every_days=6")
    assert (due["start"], due["full_on"], due["base"]["version"]) == ("full", "2026-11-20", 1)
    assert due["why"] == "the last full night was 2026-11-14, 6 days ago; daily.full_every_days is 6"
    early = night.decide("daily.full_every_days=7")
    assert (early["start"], early["full_on"]) == ("champion", "2026-11-14")


def test_drift_beyond_the_bound_makes_the_night_full(night, tmp_path) -> None:
    night.versions = [version(1, "2026-11-19")]
    other = tmp_path / "other"
    other.mkdir()
    for side in ("user", "item"):
        pl.DataFrame({f"{side}_id": [8, 9], "count": [3, 3]}).write_parquet(other / f"{side}s.parquet")
    assert night.decide("daily.full_on_drift=0.5")["start"] == "champion"
    night.before = before(made(other))
    drifted = night.decide("daily.full_on_drift=0.6")
    assert (drifted["start"], drifted["drift"]["items_moved"]) == ("full", 1)
    assert drifted["why"] == "items_moved is 1.000; daily.full_on_drift is 0.6"
    assert night.decide("daily.full_on_drift=1.0")["start"] == "champion"


def test_the_night_says_what_begins_where(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text(FILE)
    config = of_day(load_config(tmp_path / "run.yaml", ["teacher.recipe={kind: delta}"]), DAY)
    assert config.log.window is not None
    assert (str(config.log.window.first), str(config.log.window.last)) == ("2026-11-19", "2026-11-20")
    moved, renewed = (resolved(config, start, tmp_path) for start in ("champion", "full"))
    alone_ = resolved(config, "full", None)
    assert [shape(one) for one in (moved, renewed, alone_)] == [
        ("yesterday", "yesterday", "yesterday", "delta", True),
        ("random", "random", "yesterday", "delta", True),
        ("random", "random", "own", None, False),
    ]
    store = Run(store=tmp_path / "runs" / "store")
    assert directory(config, store).name.startswith("nights-2026-11-20-")


def shape(config: Config) -> tuple[Any, ...]:
    recipe = None if config.teacher.recipe is None else config.teacher.recipe.kind
    student = config.student
    return config.teacher.start, student.start, student.axes, recipe, config.yesterday is not None


def test_a_partition_needs_a_file_of_nights_that_names_no_window(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text(FILE)
    file = tmp_path / "run.yaml"
    with pytest.raises(ConfigError, match="has no section daily"):
        of_day(load_config(file, ["daily=null", "student.axes=own", "teacher.warm=null"]), DAY)
    with pytest.raises(ConfigError, match="say the window"):
        of_day(load_config(file, ["log.window={first: 2026-11-01, last: 2026-11-02}"]), DAY)


def test_a_file_of_nights_is_not_run_without_a_day_and_a_day_must_be_one(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text(FILE)
    with pytest.raises(ConfigError, match="is one of nights") as caught:
        plan(load_config(tmp_path / "run.yaml"))
    assert "--partition" in str(caught.value)
    assert day_named("2026-11-20", "--partition") == DAY
    for text in ("2026-11-31", "yesterday", "20261120", "2026-11-20 "):
        with pytest.raises(ConfigError, match="is no day"):
            day_named(text, "--partition")


def test_an_alarm_is_a_figure_beyond_its_bounds_and_one_that_is_missing_is_none() -> None:
    bounds = {
        "new_users": AlarmSpec(max=0.3),
        "last_day_ratio": AlarmSpec(min=0.5, max=2),
        "champion_days": AlarmSpec(max=1),
    }
    assert alarms(bounds, {"new_users": 0.3, "last_day_ratio": 0.5, "champion_days": None}) == []
    low, high = alarms(bounds, {"new_users": 0.31, "last_day_ratio": 0.4})
    assert (low["figure"], low["text"]) == ("new_users", "alarm: new_users is 0.31, above 0.3 (daily.alarms)")
    assert high["text"] == "alarm: last_day_ratio is 0.4, below 0.5 (daily.alarms)"


def test_a_version_that_served_stands_though_another_serves_now(monkeypatch) -> None:
    served = version(1, "2026-11-18", promoted_at="then")
    versions = [version(2, "2026-11-19", promoted_at="now", aliases=["champion"]), served]
    monkeypatch.setattr("pipelines.daily_told.registry.history", lambda *_: versions)
    release = superseded("uri", "nights", 1)
    assert release is not None
    assert (release.version, release.alias) == (1, None)
    assert superseded("uri", "nights", 2) is None
    served["gate"] = "withdrawn"
    assert superseded("uri", "nights", 1) is None
