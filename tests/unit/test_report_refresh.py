"""A report says what a refresh changed in all its forms, and nothing of it where there was no day before."""

from __future__ import annotations

import pytest

from recdistill.report import html, markdown, model_card
from recdistill.report_form import check
from recdistill.report_refresh import churn, continuity, words

REFRESH = {
    "users": 90,
    "items": 40,
    "new_users": 10,
    "new_items": 0,
    "churn": [
        {"model": model, "k": k, "mean": mean + k / 1000, "p95": 0.5, "seeds": 2}
        for model, mean in (("teacher", 0.2), ("scratch", 0.4), ("student", 0.1))
        for k in (10, 20)
    ],
    "continuity": {
        "k": 10,
        "cosine": {"as_it_is": 0.03, "turned": 0.9},
        "overlap": {"as_it_is": 0.21, "turned": 0.83},
    },
}
PLAIN = {"schema_version": 1, "name": "day"}


def test_tables_hold_each_model_and_depth() -> None:
    found = churn(check(PLAIN | {"refresh": REFRESH}))
    assert found.head == ["model", "churn@10", "churn@20"]
    assert [row[0].text for row in found.rows] == ["teacher", "scratch", "student"]
    assert found.rows[2][1].text == "11.0%"
    assert found.rows[2][1].note == "95% of users: up to 50.0%"
    kept = continuity(check(PLAIN | {"refresh": REFRESH}))
    assert [[cell.text for cell in row[1:]] for row in kept.rows] == [["0.0300", "0.9000"], ["0.2100", "0.8300"]]


def test_sentences_say_how_to_read_it() -> None:
    new, lists, cached = words(check(PLAIN | {"refresh": REFRESH}))
    assert new == "Since yesterday 10 users are new."
    assert "replaced 11.0% of the first 10" in lists
    assert "41.0% of the scratch model's and 21.0% of the teacher's" in lists
    assert "finds 21.0% of today's list" in cached
    assert "83.0% when those are turned" in cached


@pytest.mark.parametrize("form", [markdown, html, model_card])
def test_every_form_shows_it(form) -> None:
    text = form(PLAIN | {"refresh": REFRESH})
    assert "churn@10" in text
    assert "11.0%" in text
    assert "turned" in text
    assert "churn" not in form(PLAIN)


def test_a_report_without_a_day_before_is_what_it_was() -> None:
    assert "refresh" not in check(PLAIN | {"refresh": None})
    assert words(check(PLAIN)) == []
    assert churn(check(PLAIN)).rows == continuity(check(PLAIN)).rows == []


def test_what_was_not_measured_is_not_told() -> None:
    found = check(PLAIN | {"refresh": REFRESH | {"continuity": None, "churn": [], "new_users": 0}})
    assert words(found) == ["Since yesterday nobody and nothing is new."]
    assert "yesterday" in html(found)
