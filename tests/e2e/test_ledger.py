"""What a report says of speed and size is of the same answer, asked in turns, and counted alike."""

from __future__ import annotations

import json

import pytest

from pipelines.__main__ import main


@pytest.fixture(scope="module")
def report(tiny, done):
    return json.loads((tiny.home / done.outcome["report"]).with_name("report.json").read_text())


@pytest.fixture(scope="module")
def rows(report):
    return {(r["model"], r["part"]): r for r in report["latency"]}


def test_student_and_teacher_answer_for_the_same_k_in_as_many_repeats(report, rows):
    teacher, student = rows["teacher", "total"], rows["student@index", "total"]
    assert (teacher["queries"], student["queries"]) == (300, 300)
    assert len(teacher["repeats"]["p50_ms"]) == len(student["repeats"]["p50_ms"]) == 3
    environment = report["latency_environment"]
    assert (environment["k"], environment["batch"], environment["threads"], environment["warmup"]) == (10, 1, 1, 200)
    assert environment["targets"]["teacher"]["torch_threads"] == 1
    assert environment["torch_loaded"] is False


def test_neither_shows_what_the_user_took(report):
    told = report["latency_environment"]["targets"]
    for label in ("student@index", "student@flat"):
        assert told[label]["exclude"] is True
        assert told[label]["shown_again"] == 0


def test_both_sizes_are_the_sums_of_named_parts(report, rows):
    told = report["latency_environment"]["targets"]
    for label in ("teacher", "student@index", "student@flat"):
        assert rows[label, "total"]["size_bytes"] == sum(told[label]["held"].values())
    assert set(told["teacher"]["held"]) >= {"weights", "features", "ids", "histories"}
    assert set(told["student@index"]["held"]) == {"query", "index", "ids", "popular", "histories"}
    assert told["teacher"]["held"]["ids"] == told["student@index"]["held"]["ids"]


def test_the_head_line_names_what_was_compared(tiny, done):
    page = (tiny.home / done.outcome["report"]).with_name("report.md").read_text()
    assert "Measured in turns: p50 of whole answers" in page
    assert "for the best 10, batch 1, 1 thread" in page


def test_the_command_measures_a_run_again_and_builds_nothing(tiny, done, monkeypatch, capsys):
    monkeypatch.chdir(tiny.home)
    words = [str(done.config), "--queries", "100", "--repeats", "3", "--batch", "", "--json"]
    assert main(["latency", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {r["model"] for r in found["latency"]} == {"student@index", "student@flat", "teacher"}
    assert {r["queries"] for r in found["latency"] if r["model"] != "teacher"} == {300}


def test_the_command_names_what_is_not_built_yet(tiny, done, monkeypatch, capsys):
    monkeypatch.chdir(tiny.home)
    assert main(["latency", tiny.config("unbuilt", index={"factory": "Flat", "k": [10]})]) == 5
    assert "not built yet: index" in capsys.readouterr().err
