from __future__ import annotations

import json

import pytest

from pipelines.console import complain, only_results, say, table
from recdistill.errors import ArtifactError, ConfigError, DataError, GateRejected, Problem, StageError


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            ConfigError([Problem("a:1:2", "x.y", "no"), Problem("b:3:1", "", "bad")]),
            2,
            "a:1:2: x.y: no\nb:3:1: bad",
        ),
        (DataError("12 rows are null", where="log.csv: user"), 3, "error: log.csv: user: 12 rows are null"),
        (GateRejected("not promoted", reasons=["slow", "worse"]), 4, "error: not promoted\n  - slow\n  - worse"),
        (ArtifactError("truncated", where="d", fix="delete it"), 5, "error: d: truncated\n  fix: delete it"),
        (StageError("boom"), 1, "error: boom"),
        (KeyboardInterrupt(), 130, "error: interrupted; the same command goes on from what is done"),
        (
            ZeroDivisionError("by zero"),
            1,
            "error: unexpected ZeroDivisionError: by zero\n  fix: add --debug to see where, and report it",
        ),
    ],
)
def test_one_message_and_the_exit_code_of_its_kind(capsys, error: BaseException, code: int, message: str) -> None:
    assert complain(error, as_json=False, debug=False) == code
    assert capsys.readouterr() == ("", message + "\n")


def test_debug_adds_the_traceback(capsys) -> None:
    try:
        raise StageError("boom") from ValueError("the cause")
    except StageError as error:
        complain(error, as_json=False, debug=True)
    said = capsys.readouterr().err
    assert said.startswith("ValueError: the cause\n")
    assert "Traceback (most recent call last)" in said
    assert said.endswith("error: boom\n")


def test_json_is_one_object_with_the_problems(capsys) -> None:
    assert complain(ConfigError([Problem("a:1:2", "x", "no")]), as_json=True, debug=False) == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "error": "a:1:2: x: no",
        "kind": "ConfigError",
        "exit_code": 2,
        "problems": [{"where": "a:1:2", "path": "x", "reason": "no"}],
    }


def test_what_a_library_prints_stays_out_of_the_json(capsys) -> None:
    with only_results():
        print("a library at work")
        say({"a": 1}, "text", as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1}
    assert err == "a library at work\n"


def test_other_ranks_say_nothing(capsys, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert complain(DataError("x"), as_json=False, debug=True) == 3
    assert complain(DataError("x"), as_json=True, debug=False) == 3
    assert capsys.readouterr() == ("", "")


def test_a_table_lines_up_and_keeps_to_its_rows() -> None:
    assert table([("a", 1), ("bcd", "x\ny")], ("name", "n")) == "name  n\na     1\nbcd   x y"
    assert table([], ("name", "n")) == "name  n"


def test_of_other_ranks_only_what_befell_them_alone_is_said(monkeypatch, capsys):
    """What rank 0 has passed on, and what every rank finds in the same file, it says for all."""
    monkeypatch.setenv("RANK", "1")
    passed_on = StageError("the disk is full")
    passed_on.shared = True
    for error in (passed_on, ConfigError("no such key"), DataError("no such column")):
        complain(error, as_json=False, debug=False)
    assert capsys.readouterr() == ("", "")
    for as_json in (False, True):
        assert complain(StageError("lost its peer", where="rank 1"), as_json=as_json, debug=False) == 1
        out, err = capsys.readouterr()
        assert (out, err) == ("", "rank 1: error: rank 1: lost its peer\n")
