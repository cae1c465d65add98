"""How old things are, at a known moment."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from pipelines.ages import ages

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def made(**manifest: Any) -> SimpleNamespace:
    return SimpleNamespace(manifest=SimpleNamespace(**manifest))


def found(*trained: str, last: str | None, scored: str | None) -> dict[str, float | None]:
    models = [SimpleNamespace(artifact=made(created_at=moment)) for moment in trained]
    labels = None if scored is None else made(facts={"scored_at": scored})
    judged: Any = SimpleNamespace(teacher=SimpleNamespace(models=models), labels=labels)
    data: Any = SimpleNamespace(ingested=made(facts={"last": last}))
    return ages(data, judged, NOW)


def test_ages_are_in_days_and_the_oldest_of_the_teachers_models_counts() -> None:
    trained = ("2026-11-20T00:00:00+00:00", "2026-11-19T12:00:00+00:00")
    told = found(*trained, last="2026-11-21T06:00:00+00:00", scored="2026-11-21T09:36:00+00:00")
    assert told == {"data_days": 0.25, "teacher_days": 2.0, "labels_days": 0.1}


def test_what_there_is_none_of_has_no_age() -> None:
    assert found(last=None, scored=None) == {"data_days": None, "teacher_days": None, "labels_days": None}
