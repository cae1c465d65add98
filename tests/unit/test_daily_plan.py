"""What the plan of a night says to a person before its stages."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.daily_plan import words
from recdistill.config import load_config

FILE = """\
name: nights
log: {path: log, user: u, item: i, time: t}
teacher: {model: {kind: mf, dim: 16}, train: {epochs: 30}, warm: {epochs: 3}}
labels: {depth: 30}
student: {model: {kind: mf, dim: 8}, train: {epochs: 10}}
distill: [{kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}]
daily: {window_days: 2}
registry: {model: nights}
"""
BEGINS = "begins: where version 3 ended, whose log ends on 2026-11-19"


@pytest.fixture
def said(tmp_path):
    """Say it of a night of which `told` is known."""
    (tmp_path / "run.yaml").write_text(FILE)

    def say(*sets: str, state: str = "miss", **told: Any) -> list[str]:
        base = {"version": 3, "log_end": "2026-11-19", "full_on": "2026-11-15"}
        night = {"start": "champion", "why": "", "base": base, "decided": False, "files": 2}
        night |= {"window": {"first": "2026-11-19", "last": "2026-11-20"}, "stages": [{"state": state}]}
        return words(night | told, load_config(tmp_path / "run.yaml", sets)).splitlines()

    return say


def test_it_says_what_is_read_and_where_the_night_begins(said) -> None:
    assert said() == ["reads: 2026-11-19 to 2026-11-20, 2 files", BEGINS]
    assert said(files=None)[0] == "reads: 2026-11-19 to 2026-11-20, rows of those days"
    assert said(start="full", base=None, why="there is no registry")[1] == "begins: at random: there is no registry"
    assert said(decided=True)[1] == f"{BEGINS} (decided by a run of this night)"


def test_drift_that_is_not_measured_yet_is_said_where_it_decides(said) -> None:
    drift = "daily.full_on_drift=0.3"
    assert said(drift)[1] == f"{BEGINS}, unless items_moved turns out above 0.3"
    assert said(drift, state="hit")[1] == BEGINS
    assert said(drift, decided=True)[1].endswith("(decided by a run of this night)")
