"""How old what a report is made of is, at the moment of the report."""

from __future__ import annotations

from datetime import UTC, datetime

from recdistill.measure import Judged
from recdistill.stages import Data

DAY = 86_400  # seconds


def ages(data: Data, judged: Judged, now: datetime | None = None) -> dict[str, float | None]:
    """Return in days, None of what there is none of: `data_days` since the log's last row, `teacher_days` since the
    oldest of the teacher's models was trained, `labels_days` since they were scored.
    """
    now = now or datetime.now(UTC)
    trained = [model.artifact.manifest.created_at for model in judged.teacher.models]
    scored = None if judged.labels is None else judged.labels.manifest.facts.get("scored_at")
    moments = {
        "data_days": data.ingested.manifest.facts.get("last"),
        "teacher_days": min(trained, default=None),
        "labels_days": scored,
    }
    return {name: _since(moment, now) for name, moment in moments.items()}


def _since(moment: str | None, now: datetime) -> float | None:
    if not moment:
        return None
    return round((now - datetime.fromisoformat(moment)).total_seconds() / DAY, 4)
