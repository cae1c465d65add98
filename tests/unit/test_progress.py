from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipelines import progress as module
from pipelines.progress import bars, lines, progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_at_the_start_the_end_and_every_ten_seconds(clock, capsys) -> None:
    log = lines()
    for step, seconds in enumerate([0, 1, 9, 10, 11, 19, 21, 22]):
        clock[0] = 100.0 + seconds
        log("fit student", step, 7, {"loss": 0.123456})
    assert capsys.readouterr().err.splitlines() == [
        "fit student: 0/7 after 0 s loss 0.1235",
        "fit student: 3/7 after 10 s loss 0.1235",
        "fit student: 6/7 after 21 s loss 0.1235",
        "fit student: 7/7 after 22 s loss 0.1235",
    ]


def test_a_stage_that_comes_again_starts_anew(clock, capsys) -> None:
    log = lines()
    log("index", 1, 1, {})
    clock[0] += 3
    log("index", 0, 1, {})
    assert capsys.readouterr().err.splitlines() == ["index: 1/1 after 0 s", "index: 0/1 after 0 s"]


def test_an_unknown_end(clock, capsys) -> None:
    log = lines()
    log("ingest", 5, 0, {})
    log("ingest", 9, 0, {})
    assert capsys.readouterr().err == "ingest: 5 after 0 s\n"


def test_bars_show_what_how_far_and_the_latest_values() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with bars(console) as log:
        log("fit teacher", 1, 4, {"loss": 0.5})
        log("fit teacher", 3, 4, {"loss": 0.25})
        log("scan", 7, 0, {})
    last = console.file.getvalue()
    assert "fit teacher" in last
    assert "3/4" in last
    assert "loss 0.25" in last
    assert "scan" in last


def test_nothing_is_said_for_json_or_by_other_ranks(capsys, monkeypatch) -> None:
    with progress(json=True) as log:
        log("fit", 0, 3, {})
    monkeypatch.setenv("RANK", "1")
    with progress() as log:
        log("fit", 0, 3, {})
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    with progress() as log:
        log("fit", 0, 3, {})
    assert capsys.readouterr() == ("", "fit: 0/3 after 0 s\n")
