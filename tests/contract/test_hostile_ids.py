"""Ids that users chose to do harm: a bundle gives them back as the log had them, and a page shows them as text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill.bundle import open_bundle, write_bundle
from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec
from recdistill.report import html, markdown, model_card

SCRIPT = "<script>alert(1)</script>"
WILD = [
    *(SCRIPT, '"><img src=x onerror=alert(1)>', "{{7*7}}", "a\nb", "a\r\nb", "a\tb", "a\0b", "\x1b]0;title\x07"),
    *(
        "\u202ereversed",
        "caf\u00e9",
        "cafe\u0301",
        "\U0001f600",
        "\ufeffbom",
        " a ",
        "null",
        "NaN",
        "1.0",
        "01",
        "=1+1",
    ),
    *("../../etc/passwd", "x" * 5000, "'; drop table users; --", "%s%n", "\u200b", "A", "a"),
]
LARGE = [2**63 - 1, -(2**63), 2**53 + 1, 2**53, 0, -1]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def log(home: Path, ids: list, ending: str) -> Path:
    frame = pl.DataFrame({"u": ids * 2, "i": [*ids, *reversed(ids)]})
    write = {"parquet": frame.write_parquet, "arrow": frame.write_ipc, "ndjson": frame.write_ndjson}
    (write | {"csv": frame.write_csv})[ending](home / f"log.{ending}")
    return home / f"log.{ending}"


@pytest.mark.parametrize("ending", ["parquet", "arrow", "ndjson", "csv"])
@pytest.mark.parametrize("ids", [WILD, LARGE], ids=["text", "numbers"])
def test_ids_come_out_as_they_went_in(tmp_path: Path, ids: list, ending: str) -> None:
    facts = ingest(LogSpec(path=str(log(tmp_path, ids, ending)), user="u", item="i"), None, tmp_path / "out", now=NOW)
    users, items = (pl.read_parquet(tmp_path / f"out/{s}s.parquet")[f"{s}_id"] for s in ("user", "item"))
    assert set(users) == set(items) == set(ids)
    (tmp_path / "index").mkdir()
    (tmp_path / "index/index.faiss").write_bytes(b"none")
    (tmp_path / "index/index.json").write_text("{}")
    write_bundle(
        tmp_path / "bundle",
        query={"user": np.ones((len(ids), 2), np.float32)},
        query_meta={"kind": "mf", "space": "dot", "dim": 2, "num_users": len(ids), "num_items": len(ids)},
        user_ids=users,
        item_ids=items,
        histories=None,
        popular=np.arange(len(ids)),
        index_dir=tmp_path / "index",
        facts={"fingerprint": "f"},
    )
    opened = open_bundle(tmp_path / "bundle")
    assert list(opened.user_row) == users.to_list()
    assert opened.item_ids == items.to_list()
    assert facts["users"] == len(ids)


def test_a_page_shows_them_as_text(tmp_path: Path) -> None:
    seed = Path(__file__).parents[1] / "fuzz/seeds/report.json"
    report = json.loads(seed.read_text())
    rows = [{**row, "slice": SCRIPT, "model": SCRIPT} for row in report["quality"]]
    report["quality"] += rows
    report["data"] = {SCRIPT: {SCRIPT: SCRIPT}, "split": {"lint": [{"name": SCRIPT, "text": SCRIPT, "value": 1}]}}
    report |= {"name": SCRIPT, "warnings": [SCRIPT], "command": SCRIPT, "environment": {SCRIPT: SCRIPT}}
    report["curves"] = {SCRIPT: report["curves"]["student"]}
    for text in (html(report), markdown(report), model_card(report)):
        outside = text.replace("`" + SCRIPT + "`", "").replace("```\n" + SCRIPT + "\n```", "")  # code is text, too
        assert "<script" not in outside.lower()
        assert "alert(1)" in text
