"""Nights one after another: the first full, the others from the champion; repeated, killed, doubled, without data."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

FIRST = date(2026, 11, 1)
TRAIN = {"epochs": 4, "batch": 256, "negatives": 45, "lr": 0.3, "evaluate_every": 2}
MODEL = {"kind": "mf", "temperature": 0.2}
CONFIG: dict[str, Any] = {
    "name": "nights",
    "features": None,
    "log": {"path": "log", "user": "user", "item": "item", "time": "time"},
    "split": {"kind": "global_time"},
    "teacher": {"model": MODEL | {"dim": 8}, "train": TRAIN, "warm": {"epochs": 2, "lr": 0.05}},
    "labels": {"depth": 20},
    "student": {"model": MODEL | {"dim": 4}, "train": TRAIN, "warm": {"epochs": 2}},
    "distill": [{"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}],
    "daily": {"window_days": 2},
    "index": {"factory": "Flat", "k": [10]},
    "report": {"k": [10], "metrics": ["ndcg"], "bootstrap": 20},
    "latency": {"queries": 100, "repeats": 3},
    "registry": {"model": "nights", "gates": {"ndcg_at_10": {"min": 0.0}}},
}


def plant(home: Path, n: int, users: range, items: range) -> None:
    """Write the log of day `n`, on which each user takes three items of their own third."""
    day, rng = FIRST + timedelta(days=n), np.random.default_rng(n)
    start = datetime(day.year, day.month, day.day)
    rows = [
        (f"u{user:03d}", int(item), start + timedelta(seconds=int(rng.integers(86_400))))
        for user in users
        for item in rng.choice([i for i in items if i % 3 == user % 3], 3, replace=False)
    ]
    place = home / "log" / f"date={day}"
    place.mkdir(parents=True)
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_parquet(place / "part.parquet")


@pytest.fixture(scope="module")
def nights(tiny, tmp_path_factory) -> SimpleNamespace:
    """What came of two nights, the second killed and then started twice, and of both of them again."""
    home = type(tiny)(tmp_path_factory.mktemp("nights"))
    shutil.copy(tiny.home / "killer.py", home.home)
    for n in range(4):
        # In the second window some users and items are gone for good, and others are new.
        plant(home.home, n, range(6, 66) if n > 1 else range(60), range(3, 48) if n > 1 else range(45))
    words = ("run", home.config("nights", **CONFIG), "--json", "--partition")
    one, two = (str(FIRST + timedelta(days=n)) for n in (1, 3))
    planned, left = home("plan", *words[1:], one), sorted(path.name for path in home.home.glob("runs/*"))
    found = SimpleNamespace(home=home, days=(one, two), planned=[planned], left=left)
    found.judged = home(*words, one, "--until", "judge")
    found.unserved = json.loads(home("show", "nights", "--json").stdout)
    found.first = home(*words, one)
    found.planned.append(home("plan", *words[1:], two))
    found.killed = home(*words, two, kill=r"/index/[0-9a-f]+$")
    with ThreadPoolExecutor(2) as pool:
        found.twice = list(pool.map(lambda _: home(*words, two), range(2)))
    found.before = json.loads(home("show", "nights", "--json").stdout)
    found.again = home(*words, one)
    found.range = home("backfill", words[1], "--from", two, "--to", "2026-11-05", "--json")
    bounds = ("--set", "daily.alarms={full_days: {max: 0.5}, champion_days: {max: 2}}")
    found.alarmed = home(*words, two, *bounds)
    found.after = json.loads(home("show", "nights", "--json").stdout)
    found.planned.append(home("plan", *words[1:], two))
    return found


def said(process: Any, code: int = 0) -> dict[str, Any]:
    assert process.returncode == code, process.stdout + process.stderr
    return json.loads(process.stdout)


def manifest(nights: SimpleNamespace, stage: str, fingerprint: str) -> dict[str, Any]:
    return json.loads((nights.home.home / "runs" / "store" / stage / fingerprint / "manifest.json").read_text())


def ids(nights: SimpleNamespace, night: dict[str, Any], side: str) -> set[Any]:
    path = nights.home.home / "runs" / "store" / "ingest" / night["fingerprints"]["ingest"] / f"{side}s.parquet"
    return set(pl.read_parquet(path)[f"{side}_id"].to_list())


def test_the_first_night_is_full_and_the_next_begins_where_it_ended(nights) -> None:
    first, second = said(nights.first), said(nights.twice[0])
    assert (first["start"], first["base"], first["version"]) == ("full", None, 1)
    assert (second["start"], second["why"], second["version"]) == ("champion", "", 2)
    assert second["base"] == {"version": 1, "log_end": nights.days[0], "full_on": nights.days[0]}
    assert first["status"] == second["status"] == "promoted"
    made = {name: manifest(nights, "fit", second["fingerprints"][name]) for name in ("teacher", "student", "scratch")}
    assert {n: made[n]["config"]["train"]["epochs"] for n in made} == {"teacher": 2, "student": 2, "scratch": 4}
    day = second["fingerprints"]["yesterday"]
    assert {n: made[n]["inputs"].get("yesterday") for n in made} == {"teacher": day, "student": day, "scratch": None}
    before = manifest(nights, "yesterday", day)["inputs"]
    for name in ("teacher", "student", "scratch"):
        assert before[f"before-{name}"] == first["fingerprints"][name]


def test_a_night_that_was_judged_alone_is_promoted_by_its_verdict(nights) -> None:
    judged, first = said(nights.judged), said(nights.first)
    (version,) = nights.unserved["versions"]
    assert (version["version"], version["gate"], version["aliases"]) == (1, "passed", ["candidate"])
    assert (judged["status"], judged["promoted"], judged["release"]["alias"]) == ("done", False, None)
    assert all(row["hit"] for row in first["stages"])
    assert (first["version"], first["promoted"], first["gates"]) == (1, True, judged["gates"])


def test_who_left_has_no_row_and_who_came_has_one(nights) -> None:
    first, second = said(nights.first), said(nights.twice[0])
    users, items = ([f"u{n:03d}" for n in range(66)], set(range(48)))
    assert ids(nights, first, "user") == set(users[:60])
    assert ids(nights, second, "user") == set(users[6:])
    assert ids(nights, first, "item") <= items - {45, 46, 47}
    assert ids(nights, second, "item") <= items - {0, 1, 2}
    assert (second["drift"]["new_users"], second["drift"]["gone_users"]) == (0.1, 0.1)
    assert second["drift"]["new_items"] > 0


def test_a_night_that_was_killed_goes_on_and_two_starts_of_it_are_one_version(nights) -> None:
    assert nights.killed.returncode != 0
    one, two = (said(process) for process in nights.twice)
    assert one["version"] == two["version"] == 2
    assert one["fingerprints"] == two["fingerprints"]
    assert one["base"] == two["base"]
    built = [row["stage"] for night in (one, two) for row in night["stages"] if not row["hit"]]
    assert sorted(built) == ["evaluate", "index", "latency", "refresh"]
    versions = nights.before["versions"]
    assert [(v["version"], "champion" in v["aliases"]) for v in versions] == [(2, True), (1, False)]
    assert [v["partition"] for v in versions] == [nights.days[1], nights.days[0]]


def test_a_night_again_finds_all_done_and_ends_as_it_did_whatever_serves_since(nights) -> None:
    *done, bad = said(nights.range, code=3)["nights"]
    for night, process in zip((said(nights.again), *done), (nights.first, nights.twice[0]), strict=True):
        before = said(process)
        assert all(row["hit"] for row in night["stages"])
        for name in ("partition", "status", "start", "base", "version", "promoted", "fingerprints", "quality", "drift"):
            assert night[name] == before[name]
    assert (bad["partition"], bad["status"], bad["exit_code"]) == ("2026-11-05", "failed", 3)
    assert "nothing of 2026-11-05 is there" in bad["error"]
    assert nights.after == nights.before


def test_an_alarm_is_an_exit_code_and_is_in_the_summary_and_the_report(nights) -> None:
    alarmed = said(nights.alarmed, code=6)
    (alarm,) = alarmed["alarms"]
    assert (alarm["figure"], alarm["value"]) == ("full_days", 2)
    assert alarmed["ages"]["champion_days"] == 2
    assert alarmed["status"] == "promoted"
    assert alarm["text"] in alarmed["warnings"]
    assert all(row["hit"] for row in alarmed["stages"])
    page = (nights.home.home / alarmed["report"]).read_text()
    assert f"The night of {nights.days[1]}" in page
    assert "alarm: full_days is 2" in page
    assert "recdistill diagnose" not in page  # which takes no partition


def test_a_plan_of_a_night_says_what_it_would_read_and_begin_from_and_leaves_nothing(nights) -> None:
    first, second, after = map(said, nights.planned)
    assert nights.left == []
    assert (first["start"], first["why"], first["decided"]) == ("full", "there is no registry", False)
    assert first["files"] == second["files"] == 2
    assert (second["start"], second["base"]["version"], second["decided"]) == ("champion", 1, False)
    assert second["window"] == {"first": "2026-11-03", "last": "2026-11-04"}
    for planned, night in ((first, nights.first), (second, nights.twice[0])):
        made = {row["stage"]: row["fingerprint"] for row in planned["stages"]}
        assert made == said(night)["fingerprints"]
        assert {row["state"] for row in planned["stages"]} == {"miss"}
    assert (after["decided"], {row["state"] for row in after["stages"]}) == (True, {"hit"})
