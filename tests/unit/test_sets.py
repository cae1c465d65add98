from __future__ import annotations

import pytest

from recdistill.yamlfile import Document, apply_sets

DATA = {"a": {"b": 1, "c": [1, {"w": 2}]}, "d": None, "e": "text"}
PLACES = {("a",): "f:1:1", ("a", "b"): "f:2:3", ("a", "c"): "f:3:3", ("a", "c", 1): "f:3:8", ("e",): "f:5:1"}


def given(*sets: str) -> Document:
    return apply_sets(Document(name="f", data=DATA, places=PLACES), sets)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("a.b=2", {"a": {"b": 2, "c": [1, {"w": 2}]}, "d": None, "e": "text"}),
        ("a.b=1e-3", {"a": {"b": 0.001, "c": [1, {"w": 2}]}, "d": None, "e": "text"}),
        ("a.b=no", {"a": {"b": "no", "c": [1, {"w": 2}]}, "d": None, "e": "text"}),
        ("a.b=x=y", {"a": {"b": "x=y", "c": [1, {"w": 2}]}, "d": None, "e": "text"}),
        ("a.c.1.w=null", {"a": {"b": 1, "c": [1, {"w": None}]}, "d": None, "e": "text"}),
        ("a.c.0=[5, 6]", {"a": {"b": 1, "c": [[5, 6], {"w": 2}]}, "d": None, "e": "text"}),
        ("d.new.er={x: 1}", {"a": {"b": 1, "c": [1, {"w": 2}]}, "d": {"new": {"er": {"x": 1}}}, "e": "text"}),
        ("z=true", {"a": {"b": 1, "c": [1, {"w": 2}]}, "d": None, "e": "text", "z": True}),
    ],
)
def test_a_setting_replaces_one_value(setting: str, expected: object) -> None:
    document = given(setting)
    assert document.data == expected
    assert not document.problems
    assert DATA == {"a": {"b": 1, "c": [1, {"w": 2}]}, "d": None, "e": "text"}  # the file's own value is left alone


def test_the_last_setting_wins_and_places_name_it() -> None:
    document = given("a={b: 3, x: {y: 1}}", "a.b=4")
    assert document.data["a"] == {"b": 4, "x": {"y": 1}}
    assert document.where(("a", "b")) == "--set a.b"
    assert document.where(("a", "x", "y")) == "--set a"
    assert document.where(("a", "c", 1)) == "--set a"
    assert document.where(("e",)) == "f:5:1"


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("a.b", "--set a.b: expected a.b.c=value (null clears a setting)"),
        ("a.b=", "--set a.b=: expected a.b.c=value (null clears a setting)"),
        ("=3", "--set =3: expected a.b.c=value (null clears a setting)"),
        ("a..b=3", "--set a..b=3: expected a.b.c=value (null clears a setting)"),
        ("a.c.2=3", "--set a.c.2: a.c has 2 entries, counted from 0; '2' is none of them"),
        ("a.c.x=3", "--set a.c.x: a.c has 2 entries, counted from 0; 'x' is none of them"),
        ("a.c.-1=3", "--set a.c.-1: a.c has 2 entries, counted from 0; '-1' is none of them"),
        ("e.f=3", "--set e.f: e is the text 'text', which has nothing inside it"),
        ("a.b=[1", "--set a.b: not YAML: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_a_setting_that_cannot_be_is_a_problem(setting: str, problem: str) -> None:
    document = given(setting)
    assert [str(p) for p in document.problems] == [problem]
    assert document.data == DATA


def test_every_bad_setting_is_reported() -> None:
    assert len(given("a", "b=", "a.b=7", "e.x=1").problems) == 3


def test_a_repeated_key_inside_a_setting_is_a_problem() -> None:
    assert [p.path for p in given("a={x: 1, x: 2}").problems] == ["a.x"]
