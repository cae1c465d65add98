"""A report as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recdistill import report_champion, report_refresh, report_surface
from recdistill import report_view as view
from recdistill.report_form import check
from recdistill.report_words import headline, verdict_word

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"good": "green", "bad": "red", "soft": "dim", "PROMOTED": "green", "REFUSED": "red"}


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print a report's verdict, head line, quality, latency and gates; raises ArtifactError if it is malformed."""
    from rich.text import Text

    report = check(report)
    word, verdict = verdict_word(report), report["verdict"]
    console.print(Text(word, style=f"bold {COLOURS.get(word, 'yellow')}"), Text(report["name"], style="bold"))
    for line in (verdict["text"], *(f"- {r}" for r in verdict["reasons"]), headline(report)):
        if line:
            console.print(Text(line))
    surface = report_surface.of(report)
    for line in () if surface is None else (report_surface.verdict(surface), report_surface.doubt(surface)):
        if line:
            console.print(Text(line))
    tables = {
        "quality": view.quality(report),
        "gain": view.gaps(report),
        "since yesterday": report_refresh.churn(report),
        "cached vectors": report_refresh.continuity(report),
        "latency": view.latency(report),
        "throughput": view.throughput(report),
        "ways to serve": view.Table([], []) if surface is None else report_surface.choices(surface),
        "beside the champion": report_champion.against(report),
        "split": view.lint(report),
        "gates": view.gates(report),
    }
    for title, table in tables.items():
        if table.rows:
            console.print()
            console.print(rich_table(title, table))
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))


def rich_table(title: str, table: view.Table) -> Any:
    """Return a table for rich; every cell is Text, so that brackets in names are no markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    out = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for n, head in enumerate(table.head):
        out.add_column(Text(head), justify="left" if n < table.names else "right")
    for row in table.rows:
        cells = [Text(c.text, style=COLOURS.get(c.tone, "")) for c in row]
        for cell, text in zip(row, cells, strict=True):
            text.append(f"\n{cell.note}" if cell.note else "", style="dim")
        out.add_row(*cells)
    return out
