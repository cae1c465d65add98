"""A report as Markdown: one screen for a pull request, and a model card.

Names come from users' data, so whatever Markdown or HTML would take for markup is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from recdistill import report_champion, report_daily, report_defer, report_refresh, report_surface
from recdistill import report_view as view
from recdistill.diagnosis.form import read
from recdistill.diagnosis.words import findings
from recdistill.report_form import check
from recdistill.report_view import Table
from recdistill.report_words import headline, served, undiagnosed, verdict_word

ROWS = 8  # of any table on the one screen; the page has them all


def markdown(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown of about one screen, the verdict first."""
    report = check(report)
    failed = [g for g in report["gates"] if not g["passed"]]
    passed = len(report["gates"]) - len(failed)
    parts = [
        f"## {verdict_word(report)}: {escape(report['name'])}",
        *_verdict(report),
        f"**{escape(headline(report))}**" if headline(report) else "",
        table(view.quality(report)),
        table(view.gaps(report)),
        table(_totals(view.latency(report))),
        "\n".join(f"- {escape(text)}" for text in report_daily.words(report)),
        *_refresh(report),
        "\n".join(f"- {escape(text)}" for text in _diagnosis(report)),
        *_serving(report),
        table(report_champion.against(report)),
        f"Asking the teacher: {escape(report_defer.verdict(report['defer']))}" if report.get("defer") else "",
        f"Gates: {passed} of {len(report['gates'])} passed." if report["gates"] else "",
        table(_without_reasons(view.gates(report))),
        "\n".join(f"- failed: {escape(g['gate'])}: {escape(g['reason'])}" for g in failed),
        "\n".join(f"- warning: {escape(w)}" for w in report["warnings"][:ROWS]),
        f"Reproduce: {_code(report['command'])}" if report["command"] else "",
    ]
    return _join(parts)


def model_card(report: Mapping[str, Any]) -> str:
    """Return a model card with YAML front matter: what the model is, is for, was measured at, and falls short of."""
    report = check(report)
    verdict, data = report["verdict"], report["data"]
    name = verdict["model"] or report["name"]
    version = f" version {verdict['version']}" if verdict["version"] is not None else ""
    lint = [f for f in data.get("split", {}).get("lint") or [] if f.get("severity") not in {"ok", "info"}]
    limits = [*(str(f.get("text", "")) for f in lint), *report["warnings"], *LIMITS]
    parts = [
        _front_matter(report, name),
        f"# {escape(name)}{version}",
        f"**{verdict_word(report)}.** {escape(verdict['text'])}".rstrip(),
        escape(headline(report)),
        "## Use",
        "Retrieval: given a known user, or the items someone took, it returns the ids of items to recommend, best "
        "first. It suits one surface of a product whose interactions look like those it was trained on.",
        "Out of scope: decisions about people (credit, work, health, access), users or items of another catalogue, and "
        "ranking under rules that are not in the log, such as price or stock.",
        "## How it was made",
        "A student of few parameters was fitted to the log and to the ranked lists of a larger teacher; the scratch "
        "model is the same student without the teacher.",
        table(view.facts(data.get("ingest", {})), ("data", "")),
        table(view.facts(data.get("split", {}), skip=("lint",)), ("split", "")),
        table(view.facts(data.get("labels", {})), ("labels", "")),
        table(view.facts(data.get("ages", {})), ("age", "")),
        "## Quality",
        table(view.quality(report)),
        "Intervals are 95% bootstrap intervals over users." if report["quality"] else "",
        table(view.gaps(report)),
        "### By slice" if view.slices(report).rows else "",
        table(view.slices(report)),
        "## Asking the teacher" if report.get("defer") else "",
        escape(report_defer.verdict(report["defer"])) if report.get("defer") else "",
        table(report_defer.table(report["defer"])) if report.get("defer") else "",
        "## The night" if report.get("daily") else "",
        "\n".join(f"- {escape(text)}" for text in report_daily.words(report)),
        table(report_daily.drift(report)),
        table(report_daily.ages(report)),
        "## Since yesterday" if report.get("refresh") else "",
        *_refresh(report),
        "## Speed and size",
        table(view.latency(report)) or "Not measured.",
        table(view.throughput(report)),
        "## Ways to serve" if report.get("surface") else "",
        *_serving(report),
        "## Beside the champion" if report_champion.against(report).rows else "",
        table(report_champion.against(report)),
        "## Gates" if report["gates"] else "",
        table(view.gates(report)),
        "## Limits",
        "\n".join(f"- {escape(text)}" for text in limits),
        "## Reproduce",
        _fence(report["command"]),
        table(view.facts(report["environment"]), ("environment", "")),
    ]
    return _join(parts)


LIMITS = (
    "It repeats what the log rewards: popular items are recommended more than their share, and what was never shown "
    "was never learned.",
    "Quality is measured offline, against what users did without this model; an online test decides.",
    "Users and items that came after the data window are unknown to it; items need another run.",
)


def escape(text: Any) -> str:
    """Return text that Markdown shows as it is, on one line."""
    plain = " ".join(str(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*\[\]|#!~$])", r"\\\1", plain)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", plain)  # an underscore within a word is no markup


def _refresh(report: Mapping[str, Any]) -> list[str]:
    tables = table(report_refresh.churn(report)), table(report_refresh.continuity(report))
    return [*tables, "\n".join(f"- {escape(text)}" for text in report_refresh.words(report))]


def _serving(report: Mapping[str, Any]) -> list[str]:
    surface = report_surface.of(report)
    if surface is None:
        return []
    said = f"{report_surface.verdict(surface)} {report_surface.doubt(surface)}".strip()
    return [f"Ways to serve: {escape(said)}", table(report_surface.choices(surface))]


def _diagnosis(report: Mapping[str, Any]) -> list[str]:
    if (found := report.get("diagnosis")) is not None:
        return findings(read(found))[:ROWS]
    return [text] if (text := undiagnosed(report)) else []


def _verdict(report: Mapping[str, Any]) -> list[str]:
    verdict = report["verdict"]
    text = escape(verdict["text"])
    if verdict["model"]:
        text += f" ({escape(verdict['model'])}" + (
            f" v{verdict['version']})" if verdict["version"] is not None else ")"
        )
    return [text.strip(), "\n".join(f"- {escape(r)}" for r in verdict["reasons"][:ROWS])]


def _without_reasons(table: Table) -> Table:
    """Return the gates' table for one screen: the reasons of those that failed follow it."""
    keep = [n for n, name in enumerate(table.head) if name != "reason"]
    rows = [[row[n] for n in keep] for row in table.rows[:ROWS]]
    return Table([table.head[n] for n in keep], rows, names=table.names - 1)


def _totals(table: Table) -> Table:
    """Return the rows of whole answers: where there are several parts, a screen has room for one."""
    rows = [r for r in table.rows if r[1].text == "total"] or list(table.rows)
    return table._replace(rows=rows)


def table(given: Table, head: Sequence[str] | None = None) -> str:
    """Return a table as Markdown, empty without rows; `head` in the place of its own."""
    if not given.rows:
        return ""
    rule = ["---" if n < given.names else "---:" for n in range(len(given.head))]
    rows = [[f"{escape(c.text)} {escape(c.note)}".strip() for c in row] for row in given.rows]
    lines = [[escape(h) for h in head or given.head], rule, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(text: str) -> str:
    """Return a code span whose fence is longer than any run of backticks in it."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"


def _fence(text: str) -> str:
    fence = "`" * max(3, max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence}\n{text}\n{fence}" if text else "The command was not recorded."


def _front_matter(report: Mapping[str, Any], name: str) -> str:
    student = served(report)
    rows = [r for r in report["quality"] if (r["model"], r["slice"]) == (student, "all") and r["value"] is not None]
    metrics = [{"type": f"{r['metric']}_at_{r['k']}", "value": round(r["value"], 6)} for r in rows]
    head: dict[str, Any] = {
        "library_name": "recdistill",
        "tags": ["recommender-system", "knowledge-distillation", "retrieval"],
        "model-index": [{"name": name, "results": [{"task": {"type": "retrieval"}, "metrics": metrics}]}],
    }
    return "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=False) + "---"


def _join(parts: Sequence[str]) -> str:
    return "\n\n".join(p for p in parts if p) + "\n"
