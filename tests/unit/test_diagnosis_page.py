"""A diagnosis as pages: every figure is told to those who cannot see it, every table says how to read it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from recdistill.diagnosis.form import Diagnosis, make
from recdistill.diagnosis.page import html, markdown
from recdistill.diagnosis.view import blocks
from recdistill.diagnosis.words import findings, worst_words
from recdistill.report import html as report_html
from recdistill.report import markdown as report_markdown
from recdistill.report import read_report, write_report

EVIL = "<script>alert(1)</script>|`x` $y$"
MODELS = ("scratch", "student")
RUN = {
    "schema_version": 1,
    "name": "tiny",
    "quality": [{"model": "student", "metric": "ndcg", "k": 10, "value": 0.2}],
    "command": "recdistill run tiny.yaml --set a.b=1",
}


def control(name: str, share: float | None, value: float) -> dict[str, Any]:
    gain = {"gain": 0.02, "gain_low": 0.01, "gain_high": 0.03}
    return gain | {"control": name, "lacks": "x", "value": value, "low": -0.1, "high": 0.1, "share": share}


def bucket(activity: int, popularity: int, difference: float) -> dict[str, Any]:
    at = {"activity": activity, "popularity": popularity, "users": 5, "student": 0.1, "teacher": 0.2, "scratch": 0.1}
    return at | {"difference": difference, "low": difference - 0.01, "high": difference + 0.01}


def robust(spoil: str, fraction: float, change: float | None) -> dict[str, Any]:
    gain = {"gain": 0.05 + fraction, "low": 0.04, "high": 0.8, "least": 0.03, "most": 0.9}
    moved = {"change": change, "change_low": change, "change_high": change}
    return {"spoil": spoil, "fraction": fraction, "teacher": 0.4, "scratch": 0.3, "student": 0.35} | gain | moved


def full(**other: Any) -> Diagnosis:
    """Return a diagnosis with every part."""
    agreed = {"top": 0.5, "overlap": 0.6, "rbo": 0.7, "kl": 0.1}
    cells = [bucket(a, p, 0.02 * (a + p) - 0.03) for a in range(3) for p in range(3)]
    found: dict[str, Any] = {
        "metric": "ndcg",
        "k": 10,
        "users": 100,
        "scored": 90,
        "seeds": 3,
        "agreement": [{"part": p, "model": m, **agreed} for p in ("train", "held-out", "augmented") for m in MODELS],
        "controls": [control("label smoothing", 0.1, 0.002), control("population mean", 0.8, 0.016)],
        "uncontrolled": ["KD-pt: no scores"],
        "buckets": cells,
        "worst": cells[0],
        "shown": [{"model": m, "popularity": 3.0, "coverage": 0.4, "tail_recall": 0.1} for m in MODELS],
        "reliability": [
            {
                "model": m,
                "ece": 0.2,
                "nll": 6.0,
                "temperature": 1.5,
                "bins": [{"chance": 0.01, "observed": 0.02, "pairs": 9}],
            }
            for m in MODELS
        ],
        "frontier": [
            {
                "model": m,
                "relevance": r,
                "teacher_chance": -5 + r,
                "likelihood": -6 - r,
                "coverage": 0.4,
                "tail_recall": 0.1,
            }
            for m, r in (("scratch", 0.1), ("student", 0.2))
        ],
        "slopes": [
            {"part": "train", "model": m, "slope": 1.2, "intercept": 0.1, "unsure": 0.9, "users": 90} for m in MODELS
        ],
        "directions": [
            {"model": m, "direction": n, "teacher": 0.5 / n, "residual": 0.1, "gain": 1.0 + n, "popularity": 0.2}
            for m in MODELS
            for n in (1, 2)
        ],
        "variance": [
            {"model": m, "rho2": 0.8, "best": 0.9, "ratios": {"0.5": 0.4, "1": 1.2}, "users": 9} for m in MODELS
        ],
        "flatness": [
            {"model": m, "rho": r, "rise": r / 10, "error": 0.001, "loss": 6.0} for m in MODELS for r in (0.01, 0.05)
        ],
        "inherited": [
            {"what": "misses", "index": 0.1, "low": 0.05, "high": 0.2, "student": 0.9, "independent": 0.8, "users": 9}
        ],
        "robustness": [robust("clean", 0.0, None), robust("noise", 0.2, 0.2), robust("noise", 0.4, 0.4)],
        "notes": ["no model reads a history"],
    }
    return make(Diagnosis, **found | other)


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.regions: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id" and v]
        if "aria-label" in named:
            (self.alts if named.get("role") == "img" else self.regions).append(named["aria-label"] or "")


def test_every_part_is_a_table_with_the_sentence_that_reads_it() -> None:
    found = blocks(full())
    assert len(found) == len({block.key for block in found}) == 12
    for block in found:
        assert block.hint.endswith(".")
        assert block.hint.count(". ") <= 1  # a sentence, and of which metric it is
        assert all(len(row) == len(block.table.head) for row in block.table.rows)


def test_the_page_is_one_file_whose_figures_are_told_and_stand_above_their_tables() -> None:
    page = html(full())
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.tags.count("figure") == parsed.tags.count("svg") == len(parsed.alts) == 12
    assert all(len(alt) > 20 for alt in parsed.alts)
    assert parsed.regions == [block.title for block in blocks(full())]
    body = page[page.index("<body>") :]
    tags = re.findall(r"<(h3|figure|table)\b", body)
    for i, tag in enumerate(tags):
        if tag == "figure":  # each is followed by another one of its block, or by their table
            assert tags[i + 1] in ("figure", "table")
    assert "prefers-color-scheme: dark" in page
    assert html(full()) == page


def test_controls_that_explain_the_gain_are_marked_and_those_that_lack_are_named() -> None:
    (block,) = [block for block in blocks(full()) if block.key == "controls"]
    tones = {row[0].text: row[1].tone for row in block.table.rows}
    assert tones["label smoothing"] == ""
    assert tones["population mean"] == "bad"
    assert tones["KD-pt"] == "soft"
    said = " ".join(findings(full()))
    assert "share of it reproduced by: label smoothing 10.0%, population mean 80.0%" in said
    assert "Not controlled for: KD-pt: no scores." in said


def test_how_loudly_controls_were_taught_is_said() -> None:
    assert "taught by a teacher that lacks one thing, as loudly" in markdown(full())
    assert "at the best on validation of 0.1 and 1 times the run's own weights" in markdown(full(tuned=[0.1, 1.0]))
    assert "at the best on validation of 0.1, 0.3 and 1 times" in markdown(full(tuned=[0.1, 0.3, 1.0]))
    assert "lacks one thing, at 0.3 times the run's own weights:" in markdown(full(tuned=[0.3]))


def test_a_control_that_loses_has_no_share() -> None:
    lost = [control("KD-pt", -3.0, -0.06) | {"factor": 0.1}]
    assert "reproduced by: KD-pt none (-0.0600 on scratch)" in " ".join(findings(full(controls=lost)))
    assert "weights times 0.1" in markdown(full(controls=lost))


def test_without_a_gain_there_is_no_share_of_it() -> None:
    none = [control("label smoothing", None, 0.002)]
    assert "no gain that controls could share" in " ".join(findings(full(controls=none)))
    assert "not controlled for" in " ".join(findings(full(controls=[])))


@pytest.mark.parametrize(("high", "said"), [(-0.02, ", surely worse"), (0.01, ", not surely worse")])
def test_the_worst_bucket_is_named_with_how_sure_that_is(high: float, said: str) -> None:
    worst = bucket(0, 2, -0.03) | {"high": high}
    words = worst_words(full(worst=worst))
    assert words.startswith("Worst bucket: least active users, most popular items: -0.0300")
    assert said in words


def test_what_a_spoilt_log_does_to_the_gain_is_said_of_the_worst_one() -> None:
    said = " ".join(findings(full()))
    assert "is +0.0500 on the log as it is, +0.4500 with 40% noise (surely more)" in said
    (block,) = [block for block in blocks(full()) if block.key == "robustness"]
    assert [row[0].text for row in block.table.rows] == ["as it is", "20% noise", "40% noise"]
    assert "on the log as it is" not in " ".join(findings(full(robustness=[])))


def test_an_empty_diagnosis_still_reads() -> None:
    least = make(Diagnosis, metric="ndcg", k=10, users=0, scored=0, seeds=1)
    assert blocks(least) == []
    assert "Diagnosis" in html(least)
    assert markdown(least).startswith("# Diagnosis")


def test_what_was_not_measured_is_absent_in_words() -> None:
    rows = [{"part": "train", "model": m, "top": None, "overlap": None, "rbo": None} for m in MODELS]
    holes = full(agreement=rows, worst=None, flatness=[{"model": "student", "rho": 0.1, "rise": None}])
    for text in (html(holes), markdown(holes)):
        assert not re.search(r"\b(nan|inf|None)\b", text)


def test_names_are_never_markup() -> None:
    evil = full(controls=[control(EVIL, 0.1, 0.1)], notes=[EVIL], uncontrolled=[f"{EVIL}: {EVIL}"])
    assert "script" not in Page(html(evil)).tags
    assert "<script" not in markdown(evil)


def test_the_report_shows_a_diagnosis_or_says_how_to_come_to_one(tmp_path: Path) -> None:
    command = "recdistill diagnose tiny.yaml --set a.b=1"
    assert command in report_html(RUN)
    assert command in report_markdown(RUN)
    known = RUN | {"diagnosis": full().model_dump(mode="json")}
    page = report_html(known)
    assert command not in page
    assert Page(page).tags.count("figure") == 12 + 1
    assert findings(full())[0] in page.replace("&#39;", "'")
    assert "Worst bucket" in report_markdown(known)
    write_report(known, tmp_path)
    assert read_report(tmp_path)["diagnosis"] == full().model_dump(mode="json")
    write_report(RUN, tmp_path)
    assert "diagnosis" not in read_report(tmp_path)
