"""A report with a surface says which way to serve is the cheapest, in every form; without one it is what it was."""

from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from surfaces import plausible, point, surface

from pipelines.show import print_report
from recdistill import report_surface as view
from recdistill.report import check, html, markdown, model_card, write_report
from recdistill.report_champion import against
from recdistill.report_serving import section
from recdistill.surface_form import Surface, check_surface

EVIL = '<script>alert(1)</script>|`x`" onload="x'
PLAIN = {"schema_version": 1, "name": "tiny", "command": "recdistill run tiny.yaml"}
EXACT = {"16": {"quality": 0.13, "low": 0.128, "high": 0.132}, "64": {"quality": 0.14, "low": 0.138, "high": 0.142}}
KNOWN = [
    point("small", quality=0.1387, p95=0.4, size=3),
    point("fast", quality=0.139, p95=0.04, size=9),
    point("best", quality=0.1401, p95=0.5, size=12, width=64, factory="HNSW32", params="efSearch=64"),
    point("poor", quality=0.05, p95=0.01, size=1, kept=False),
]


def terminal(report: Any) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=120, force_terminal=False))
    return out.getvalue()


FORMS = (html, markdown, model_card, terminal)


class Page(HTMLParser):
    """Collects what a page is made of, and the names of its figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id" and v]
        self.alts += [named.get("aria-label") or ""] if named.get("role") == "img" else []


def known(**more: Any) -> Surface:
    return check_surface(surface(KNOWN, exact=EXACT) | more)


def report(found: dict[str, Any], **more: Any) -> dict[str, Any]:
    return PLAIN | {"surface": found} | more


def test_the_verdict_names_the_cheapest_and_the_fastest_way_that_keep_the_quality() -> None:
    assert view.verdict(known()) == (
        "Within 1% of the student's exact NDCG@10 (0.1400 at 64 numbers), the cheapest way to serve is small "
        "(3 MB, p95 0.4000 ms, 99.1%); the fastest is fast (9 MB, p95 0.0400 ms, 99.3%), "
        "97.9% of the teacher's, 5,752 times faster at p95."
    )
    assert "teacher" not in view.verdict(known(teacher=None))


def test_the_verdict_says_so_where_one_way_is_both_or_none_is_near() -> None:
    assert "cheapest way to serve is fast (9 MB" in view.verdict(known(points=KNOWN[1:]))
    assert "the fastest is" not in view.verdict(known(points=KNOWN[1:]))
    far = view.verdict(known(points=KNOWN[3:]))
    assert far.startswith("No measured way to serve is within 1% of the student's exact")
    assert "the nearest is poor (1 MB, p95 0.0100 ms, 35.7%)" in far
    assert view.verdict(known(points=[])) == "No way to serve was measured by NDCG@10."
    assert "the best measured NDCG@10 (0.1401)" in view.verdict(known(exact={}))


def test_the_shortlist_has_a_row_for_each_share_that_changes_the_choice() -> None:
    found = view.choices(known())
    rows = [[cell.text for cell in row] for row in found.rows]
    assert rows == [["99.5%", "3. best", "3. best"], ["99%", "1. small", "2. fast"]]
    assert [p.id for p in view.shortlist(known())] == ["small", "fast", "best"]


def test_a_machine_too_noisy_to_judge_is_said_in_every_form() -> None:
    noisy = report(surface(KNOWN, environment={"noise": {"judge": False, "why": "work varied by 80%."}}))
    for form in FORMS:
        text = " ".join(form(noisy).split())
        assert "The times cannot be judged: work varied by 80%. Measure them again" in text
    assert all("cannot be judged" not in form(report(surface(KNOWN))) for form in FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_shows_it_and_says_nothing_of_what_is_not_there(form: Any) -> None:
    text = form(report(surface()))
    assert "cheapest" in text
    assert "HNSW32" in text
    holes = plausible()
    for n, name in enumerate(("quality", "low", "qps", "build_s", "spread")):
        holes[n][name] = math.nan
    holes[6]["latency"]["total"] |= {"p95_ms": None, "max_ms": None}
    holes[7]["recall"] = {"10": math.nan}
    holes[8]["latency"] |= {"encode": None, "search": None}
    for odd in (
        surface(holes),
        surface(holes[:1]),
        surface([]),
        surface(KNOWN, teacher=None, exact={}, norms={}),
        surface(KNOWN, teacher={"quality": None}),
        surface([point("alone", quality=None, p95=None, recall={})]),
        surface([point("zero", quality=0.0, p95=0.0)]),
    ):
        said = form(report(odd))
        assert not re.search(r"\b(nan|inf|None|Undefined|undefined)\b", said)


def test_what_users_wrote_is_never_markup() -> None:
    points = [p | {"id": f"{EVIL}{n}", "factory": EVIL, "params": EVIL} for n, p in enumerate(plausible()[:9])]
    norms = {"16": {"mean": 1.0, "spread": 0.1, "warning": EVIL}}
    given = report(
        surface(points, norms=norms, exact=EXACT, metric=EVIL, environment={"noise": {"judge": False, "why": EVIL}})
    )
    page = Page(html(given))
    assert "script" not in page.tags
    assert "<script" not in markdown(given) + model_card(given)
    assert not re.search(r"(?<!\\)[`|]x", markdown(given))


def test_equal_surfaces_give_equal_bytes_and_no_id_twice() -> None:
    page = html(report(surface()))
    assert page == html(json.loads(json.dumps(report(surface()))))
    ids = Page(page).ids
    assert len(ids) == len(set(ids))


def test_every_figure_says_what_it_shows_and_has_its_table_below() -> None:
    page = Page(html(report(surface())))
    assert len(page.alts) == page.tags.count("figure") == page.tags.count("svg") == page.tags.count("figcaption") == 5
    assert all(len(alt) > 60 and alt.endswith(".") for alt in page.alts)
    assert "teacher 230.10 ms, 0.1420" in page.alts[0]
    blocks = section(check_surface(surface()), check(PLAIN)).blocks
    assert [len(block.figures) for block in blocks] == [2, 2, 1]
    assert all(block.table.rows for block in blocks)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)


def test_a_histogram_is_drawn_where_it_was_counted() -> None:
    bare = surface()
    for p in bare["points"]:
        del p["latency"]["total"]["histogram"]
    assert "How long queries took" in html(report(surface()))
    assert "How long queries took" not in html(report(bare))


@pytest.mark.parametrize(
    ("factory", "kind"),
    [
        ("Flat", "Flat"),
        ("SQ8", "SQ"),
        ("SQfp16", "SQ"),
        ("HNSW32_SQ8", "HNSW"),
        ("IVF512,SQ8", "IVF"),
        ("PQ8x4fs", "PQ"),
    ],
)
def test_the_kind_of_an_index_is_what_its_factory_begins_with(factory: str, kind: str) -> None:
    assert view.family(factory) == kind


def test_markdown_stays_on_one_screen() -> None:
    assert len(markdown(report(surface())).splitlines()) < 20


def test_the_page_says_how_to_ask_with_other_limits() -> None:
    assert "recdistill plan-serving tiny.yaml --p95-ms" in html(report(surface()))
    assert "recdistill plan-serving CONFIG --p95-ms" in html(report(surface(), command=""))


def test_a_report_without_a_surface_is_what_it_was() -> None:
    assert not {"surface", "champion"} & check(PLAIN | {"surface": None, "champion": None}).keys()
    for form in FORMS:
        assert form(PLAIN | {"surface": None}) == form(PLAIN)
        assert "serve" not in form(PLAIN | {"command": ""}).replace("Ways to serve", "").lower() or form is model_card


def quality(value: float) -> dict[str, Any]:
    row = {"model": "student@index", "metric": "ndcg", "k": 10, "slice": "all", "value": value}
    return row | {"low": value - 0.01, "high": value + 0.01}


def timed(model: str, p50: float) -> dict[str, Any]:
    times = {"p50_ms": p50, "p95_ms": 2 * p50, "p99_ms": 3 * p50, "max_ms": 9 * p50}
    return {"model": model, "part": "total", **times, "size_bytes": int(p50 * 1e6)}


def test_the_candidate_stands_beside_the_champion_where_both_were_timed() -> None:
    gates = [
        {"gate": "p95_ms", "passed": True, "measured": 2.0, "required": "<= 2 times the champion's 4"},
        {"gate": "ndcg_at_10", "passed": True, "measured": 0.2, "required": ">= 0.1"},
    ]
    difference = {"metric": "ndcg", "k": 10, "slice": "all", "difference": 0.02, "low": 0.002, "high": 0.03, "users": 9}
    beside = {
        "quality": [quality(0.2)],
        "latency": [timed("student@index", 1.0), timed("champion@index", 2.0)],
        "gates": gates,
        "champion": {
            "users": 100,
            "quality": [quality(0.21) | {"model": "candidate@index"}, quality(0.19) | {"model": "champion@index"}],
            "differences": [difference, difference | {"slice": "tail", "difference": 9.0}],
            "churn": [{"k": 10, "mean": 0.25}],
        },
    }
    rows = {row[0].text: [(cell.text, cell.note) for cell in row[1:]] for row in against(check(PLAIN | beside)).rows}
    assert rows["NDCG@10"] == [
        ("0.2100", "[0.2000, 0.2200]"),
        ("0.1900", "[0.1800, 0.2000]"),
        ("+0.0200", "[+0.0020, +0.0300] paired"),
    ]
    assert rows["p95 ms"] == [("2.00", ""), ("4.00", ""), ("50.0%", "")]
    assert rows["size"][2] == ("50.0%", "")
    assert [name for name in rows if name.startswith("gate")] == ["gate p95_ms"]
    turns = beside | {"latency": [*beside["latency"], timed("candidate@index", 1.5)]}  # in turns with the champion
    assert against(check(PLAIN | turns)).rows[3][1].text == "3.00"
    assert [text for text, _ in rows["churn@10"]] == ["", "", "25.0%"]
    alone = {name: value for name, value in beside.items() if name != "champion"}
    assert [cell.text for cell in against(check(PLAIN | alone)).rows[0][1:3]] == ["0.2000", view.MISSING]
    assert "Candidate and champion" in html(report(surface(), **beside))
    assert "the same 100 held-out users" in html(PLAIN | beside)
    assert "Candidate and champion" not in html(PLAIN)
    assert against(check(PLAIN)).rows == []


def test_a_report_keeps_its_surface_when_it_is_written(tmp_path: Path) -> None:
    write_report(report(surface()), tmp_path)
    kept = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert check_surface(kept["surface"]) == check_surface(surface())
