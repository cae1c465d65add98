"""What every form of a report says of a gate: what it measured, what it required, and by how much."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from pipelines.show import print_report
from recdistill import report_champion
from recdistill.report import check, html, markdown, model_card
from recdistill.report_view import gates

GATE = {"gate": "p95_ms", "passed": False, "measured": 7.0, "required": "<= 5", "reason": "too slow"}


def report(**more: Any) -> dict[str, Any]:
    return check({"schema_version": 1, "name": "tiny", "gates": [GATE | more]})


@pytest.mark.parametrize(
    ("margin", "said"), [(-2.0, "-2.00"), (0.0003, "+0.0003"), (704_024.0, "+704,024"), (None, "n/a")]
)
def test_every_form_says_by_how_much_a_gate_passed_or_failed(margin: float | None, said: str) -> None:
    found = report(margin=margin)
    cells = [cell.text for cell in gates(found).rows[0]]
    assert cells == ["p95_ms", "failed", "too slow", "<= 5", "7.00", said]
    assert f"| p95_ms | failed | &lt;= 5 | 7.00 | {said} |" in markdown(found)
    assert f"| p95_ms | failed | too slow | &lt;= 5 | 7.00 | {said} |" in model_card(found)
    assert re.search(rf">\s*{re.escape(said)}\s*<", html(found))
    console = Console(file=StringIO(), width=120)
    print_report(found, console)
    assert re.search(rf"p95_ms .*too slow .*7\.00 +{re.escape(said)}\s", console.file.getvalue())


def test_a_report_from_before_margins_reads_back_as_it_was() -> None:
    assert report()["gates"] == [GATE]
    assert report(margin=-2.0)["gates"] == [GATE | {"margin": -2.0}]


def test_gates_against_the_champion_stand_beside_it_with_their_room() -> None:
    timed = {"part": "total", "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "max_ms": 4.0}
    found = report(gate="churn_at_10", passed=True, required="<= 0.5", margin=0.25)
    found["latency"] = [timed | {"model": f"{who}@index"} for who in ("candidate", "champion")]
    (row,) = [row for row in report_champion.against(check(found)).rows if row[0].text.startswith("gate ")]
    assert (row[0].text, row[3].text, row[3].note) == ("gate churn_at_10", "passed", "+0.2500")
