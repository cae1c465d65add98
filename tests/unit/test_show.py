from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from pipelines.show import print_report


def printed(**parts: Any) -> str:
    out = io.StringIO()
    print_report({"schema_version": 1, "name": "tiny", **parts}, Console(file=out, width=120, force_terminal=False))
    return out.getvalue()


def test_the_verdict_and_its_reasons_come_first() -> None:
    text = printed(verdict={"promoted": False, "text": "It does not serve.", "reasons": ["p95_ms: 7 ms is above 5 ms"]})
    assert text.splitlines() == ["REFUSED tiny", "It does not serve.", "- p95_ms: 7 ms is above 5 ms"]


def test_names_in_brackets_are_printed_as_they_are() -> None:
    row = {"model": "[red]x[/red]", "metric": "ndcg", "k": 10, "slice": "all", "value": 0.25, "low": 0.2, "high": 0.3}
    text = printed(quality=[row], warnings=["[bold]"])
    assert "[red]x[/red]" in text
    assert "0.2500" in text
    assert "[0.2000, 0.3000]" in text
    assert "warning: [bold]" in text
