from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import recdistill
from recdistill.errors import ArtifactError
from recdistill.report import ReportSpec, check, html, markdown, model_card, read_report, schema, write_report
from recdistill.report_view import throughput
from recdistill.report_words import headline

EVIL = "<script>alert(1)</script>|`x`\n# $y$"


def quality(model: str, value: float, metric: str = "ndcg", slice_: str = "all") -> dict[str, Any]:
    row = {"model": model, "metric": metric, "k": 10, "slice": slice_, "value": value}
    return row | {"low": value - 0.01, "high": value + 0.01, "seed_spread": None}


def latency(model: str, p50: float, size: int) -> dict[str, Any]:
    times = {"p50_ms": p50, "p95_ms": 2 * p50, "p99_ms": 3 * p50, "max_ms": 9 * p50}
    return {"model": model, "part": "total", **times, "queries": 2000, "size_bytes": size, "spread": 0.05}


@pytest.fixture
def report() -> dict[str, Any]:
    models = {"popularity": 0.1, "student@index": 0.24, "student": 0.25, "scratch": 0.2, "teacher": 0.3}
    lint = [{"name": "leak", "value": 0.2, "severity": "warning", "text": "20 % of the test is old"}]
    return {
        "schema_version": 1,
        "name": "tiny",
        "created_at": "2026-01-02T03:04:05+00:00",
        "verdict": {"promoted": True, "text": "It serves.", "reasons": [], "model": "shop", "version": 3},
        "headline": {"metric": "ndcg", "k": 10},
        "quality": [
            *(quality(m, v) for m, v in models.items()),
            *(quality(m, v / 2, slice_="popularity:head") for m, v in models.items()),
        ],
        "gap_closed": [{"metric": "ndcg", "k": 10, "share": 0.5, "low": 0.3, "high": 0.7}],
        "student_minus_scratch": [
            {"metric": "ndcg", "k": 10, "difference": 0.05, "low": 0.01, "high": 0.09, "seeds": 3}
        ],
        "latency": [latency("teacher", 6.0, 50_000_000), latency("student@index", 0.5, 2_000_000)],
        "latency_environment": {"threads": 1},
        "index": {"factory": "Flat", "params": {}, "recall": {"10": 1.0}, "bytes": 1000},
        "gates": [{"gate": "p95_ms", "passed": False, "measured": 7.0, "required": "<= 5", "reason": "too slow"}],
        "data": {"ingest": {"rows": 1000}, "split": {"kind": "user", "lint": lint}},
        "curves": {"student": [{"step": s, "loss": 1 / s, "valid": s / 10} for s in (1, 2, 3)]},
        "environment": {"python": "3.11"},
        "command": "recdistill run tiny.yaml",
        "config": {"name": "tiny"},
        "stages": [{"stage": "fit", "fingerprint": "ab" * 16, "seconds": 1.5, "hit": False}],
        "warnings": [],
    }


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id" and v]
        self.alts += [v or "" for k, v in attrs if k == "aria-label" and named.get("role") == "img"]
        self.links += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href"}]


@pytest.mark.parametrize(("promoted", "word"), [(True, "PROMOTED"), (False, "REFUSED"), (None, "NOT JUDGED")])
def test_the_verdict_comes_first(report: dict[str, Any], promoted: bool | None, word: str) -> None:
    report["verdict"] |= {"promoted": promoted, "reasons": ["because"]}
    assert markdown(report).startswith(f"## {word}: tiny\n")
    page = html(report)
    body = re.sub(r"<[^>]*>", " ", page[page.index("<body>") :]).split()
    assert " ".join(body).startswith(f"{word} tiny It serves. because")
    assert f"**{word}.**" in model_card(report)


def test_the_head_line_is_arithmetic_on_the_report(report: dict[str, Any]) -> None:
    # 6 / 0.5 ms, 50 / 2 MB, 0.24 / 0.30, and the share as it stands
    said = (
        "The student answers 12 times faster than the teacher, is 25 times smaller and keeps 80.0% of its NDCG@10; "
        "50.0% of the teacher-scratch gap closed."
    )
    assert said in markdown(report)
    assert said in html(report)


def test_the_head_line_says_what_its_numbers_are_of(report: dict[str, Any]) -> None:
    report["latency_environment"] = {"k": 10, "batch": 1, "threads": 1}
    kept = {"model": "student@index", "metric": "ndcg", "k": 10, "share": 0.8, "low": 0.75, "high": 0.85}
    report["kept_of_teacher"] = [kept | {"model": "student", "low": 0.1}, kept | {"k": 20, "low": 0.2}, kept]
    text = headline(check(report))
    assert "keeps 80.0% [75.0%, 85.0%] of its NDCG@10; 50.0% of the teacher-scratch gap closed. Measured" in text
    assert text.endswith(
        "Measured in turns: p50 of whole answers 6.00 ms and 0.5000 ms, 5.0% and 5.0% apart over their repeats, for "
        "the best 10, batch 1, 1 thread; 50 MB and 2 MB held to answer."
    )
    report["latency_environment"]["targets"] = {"student@index": {"exclude": False}}
    assert "the student's lists may repeat what a user took" in headline(check(report))


def test_queries_a_second_stand_in_a_table_of_their_own(report: dict[str, Any]) -> None:
    row = {"model": "student@index", "batch": 32, "threads": 1, "qps": 12345.0, "spread": 0.05}
    report["throughput"] = [row, row | {"threads": 2, "qps": 20000.0}, row | {"batch": 1, "qps": 999.0}]
    table = throughput(check(report))
    assert list(table.head) == ["model", "at once", "1 thread, queries/s", "2 threads, queries/s"]
    assert [[cell.text for cell in cells] for cells in table.rows] == [
        ["student@index", "1", "999.00", "n/a"],
        ["student@index", "32", "12,345", "20,000"],
    ]
    assert "20,000" in html(report)
    assert "20,000" in model_card(report)


def test_a_slower_and_larger_student_is_called_so(report: dict[str, Any]) -> None:
    report["latency"] = [latency("teacher", 1.0, 1000), latency("student@index", 1.5, 3000)]
    assert "answers 1.5 times slower than the teacher, is 3.0 times larger" in markdown(report)


def test_markdown_fits_a_screen_and_names_the_failed_gate(report: dict[str, Any]) -> None:
    text = markdown(report)
    assert len(text.splitlines()) < 50
    assert "- failed: p95_ms: too slow" in text
    assert "| teacher | 0.3000 \\[0.2900, 0.3100\\] |" in text


def test_models_stand_in_one_order_whatever_the_order_of_the_rows(report: dict[str, Any]) -> None:
    first_cells = re.findall(r"^\| ([a-z@]+) \| 0\.", markdown(report), flags=re.MULTILINE)
    assert first_cells[:5] == ["teacher", "scratch", "student", "student@index", "popularity"]


def test_what_users_wrote_is_never_markup(report: dict[str, Any]) -> None:
    report["name"] = report["command"] = EVIL
    report["warnings"] = [EVIL]
    report["verdict"] = {"promoted": False, "text": EVIL, "reasons": [EVIL], "model": EVIL, "version": 1}
    report["quality"] += [quality(EVIL, 0.2), quality("student", 0.2, slice_=EVIL), quality("student", 0.2, EVIL)]
    report["latency"].append(latency(EVIL, 1.0, 1))
    report["curves"][EVIL] = report["curves"]["student"]
    report["data"]["ingest"][EVIL] = EVIL
    report["data"]["split"]["lint"] = [{"name": EVIL, "text": EVIL, "severity": EVIL}]
    report["config"] = report["environment"] = report["index"] = {EVIL: {EVIL: [EVIL]}}
    report["gates"][0] |= {"gate": EVIL, "reason": EVIL, "required": EVIL}
    tags = Page(html(report)).tags
    assert "script" not in tags
    assert tags.count("h1") == 1
    report["command"] = ""  # a code span shows it as it is: see the next test
    _, front, card = model_card(report).split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["name"] == EVIL
    for text in (markdown(report), card):
        assert "<script" not in text
        assert not re.search(r"(?<!\\)[$`]", text)
        assert not re.search(r"^# \\?\$y", text, flags=re.MULTILINE)


def test_backticks_in_the_command_do_not_end_its_code(report: dict[str, Any]) -> None:
    report["command"] = "run `a` ```b"
    assert "Reproduce: ````run `a` ```b````\n" in markdown(report)
    assert "````\nrun `a` ```b\n````\n" in model_card(report)


def test_the_page_is_one_file_without_network_or_script(report: dict[str, Any]) -> None:
    page = html(report)
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    assert all(link.startswith("#") for link in parsed.links)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "prefers-color-scheme: dark" in page
    assert len(parsed.ids) == len(set(parsed.ids))
    assert len(parsed.alts) == parsed.tags.count("figure") == parsed.tags.count("svg") == 5
    assert "NDCG@10: teacher 0.3000; scratch 0.2000; student 0.2500" in parsed.alts[0]


def test_equal_reports_give_equal_bytes(report: dict[str, Any]) -> None:
    assert html(report) == html(json.loads(json.dumps(report)))
    assert "2026-01-02" in html(report)


def test_a_report_of_almost_nothing_still_reads() -> None:
    least = {"schema_version": 1, "name": "bare"}
    assert markdown(least) == "## NOT JUDGED: bare\n"
    assert "bare" in html(least)
    assert "Not measured." in model_card(least)


def test_without_the_teachers_latency_the_head_line_speaks_of_quality_alone(report: dict[str, Any]) -> None:
    report["latency"] = report["latency"][1:]
    report["gap_closed"] = []
    assert "**The student keeps 80.0% of the teacher's NDCG@10.**" in markdown(report)


def test_what_is_not_a_number_is_null_in_the_file_and_absent_in_words(report: dict[str, Any], tmp_path: Path) -> None:
    report["gap_closed"][0] |= {"share": math.nan, "low": math.nan, "high": math.nan}
    report["gates"][0]["measured"] = math.inf
    report["quality"][4]["value"] = math.nan  # the teacher's
    report["latency"][0]["p50_ms"] = math.nan
    write_report(report, tmp_path)
    kept = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert (kept["gap_closed"][0]["share"], kept["gates"][0]["measured"], kept["quality"][4]["value"]) == (None,) * 3
    for name in ("report.md", "report.html", "MODEL_CARD.md"):
        assert not re.search(r"\b(nan|inf|None)\b", (tmp_path / name).read_text())


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.01, 0.09, "better"), (-0.2, -0.1, "worse"), (-0.1, 0.1, "no difference shown")]
)
def test_an_interval_that_holds_zero_shows_no_difference(
    report: dict[str, Any], low: float, high: float, word: str
) -> None:
    report["student_minus_scratch"][0] |= {"low": low, "high": high}
    assert f"| NDCG@10 | {word} |" in markdown(report)


def test_what_was_written_reads_back(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(report, tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["MODEL_CARD.md", "report.html", "report.json", "report.md"]
    assert read_report(tmp_path / "out") == read_report(tmp_path / "out" / "report.json") == report


def test_a_bad_report_leaves_no_file(report: dict[str, Any], tmp_path: Path) -> None:
    del report["quality"][0]["metric"]
    with pytest.raises(ArtifactError, match=r"quality\.0\.metric: Field required"):
        write_report(report, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "a report is an object; this is list"),
        ('{"name": "x"}', "schema_version: Field required"),
        ('{"schema_version": 2, "name": "x", "quality": "new"}', "schema 2; this version reads up to 1"),
        ('{"schema_version": 1, "name": "x", "gates": [{"gate": "g"}]}', r"gates\.0\.passed: Field required"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(ArtifactError, match=said) as caught:
        read_report(tmp_path)
    assert caught.value.where == str(file)
    assert caught.value.fix


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_report(tmp_path)


def test_keys_of_a_later_writer_are_kept(report: dict[str, Any]) -> None:
    assert check(report | {"extra": 1})["extra"] == 1


def test_the_published_schema_is_the_one_in_force() -> None:
    published = Path(recdistill.__file__).with_name("report.schema.json").read_text()
    assert json.loads(published) == json.loads(json.dumps(schema()))


def test_the_spec_refuses_what_would_measure_nothing() -> None:
    assert ReportSpec().k == (10, 20)
    for wrong in ({"k": []}, {"k": [0]}, {"metrics": []}, {"bootstrap": 0}, {"slice": []}):
        with pytest.raises(ValidationError):
            ReportSpec.model_validate(wrong)
