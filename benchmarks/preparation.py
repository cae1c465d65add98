"""G7: CPU seconds and memory of ingest and split, beside hand-written scripts that do the same work."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import ingest
from benchmarks.goals import Row, compare, missing, single
from benchmarks.made_log import make, write_inter
from benchmarks.setting import Setting
from benchmarks.timing import Round

ROWS = 20_000_000
FEW = 1_000_000  # rows, beside RecBole, which takes minutes over more
BUDGET, LIMIT = 6.0, 2.5  # GiB a peer may take before it is ended, and ours should
PEERS = {"polars": "polars, streaming, by hand", "pandas": "pandas, by hand"}
MUST, AIM = 1 / 1.1, 1 / 0.8
PER_ROW = 7.0  # times RecBole's CPU seconds


def rows(setting: Setting) -> list[Row]:
    size = ROWS // 10 if setting.quick else ROWS
    log, scratch = setting.folder / "rows.parquet", setting.folder / "ingest"
    make(log, size, "whole")
    found: dict[str, list[Round]] = {name: [] for name in ("ours", *PEERS)}
    own, why = 0.0, dict[str, str]()
    for turn in range(1 if setting.quick else 2):
        names = list(found)
        for name in names[turn:] + names[:turn]:
            told = ingest.measure(name, log, scratch, BUDGET)
            own = max(own, told["own"]) if name == "ours" else own
            found[name].append(Round(told["wall"], told["cpu"]))
            if told["rows"] is None:
                why[name] = told["why"]
    log.unlink()
    few = _recbole(setting, scratch)
    what = f"{size:,} rows ingested and split"
    limits = {"polars": (MUST, AIM), "pandas": (None, None)}
    made = [
        compare(found, "G7", what, "ours", name, must=limits[name][0], aim=limits[name][1], unit="logs")
        if name not in why
        else missing("G7", what, PEERS[name], why[name])
        for name in PEERS
    ]
    return [*made, few, single("G7", f"{what}: own memory", own, "GiB", must=LIMIT, aim=None)]


def _recbole(setting: Setting, scratch: Path) -> Row:
    """Return the row of what RecBole makes of a log, from text, beside ours from Parquet: as each is used."""
    what, python = f"{FEW:,} rows ingested and split", setting.python("recbole")
    if isinstance(python, str):
        return missing("G7", what, "RecBole", python)
    log = setting.folder / "few.parquet"
    make(log, FEW, "whole")
    given = {"ours": (log, sys.executable), "RecBole": (write_inter(log, setting.folder / "few"), python)}
    found: dict[str, list[Round]] = {name: [] for name in given}
    for _ in range(setting.rounds):
        for name, (source, interpreter) in given.items():
            told = ingest.measure(name.lower(), source, scratch, BUDGET, interpreter)
            if told["rows"] is None:
                return missing("G7", what, name, told["why"].splitlines()[-1])
            found[name].append(Round(told["wall"], told["cpu"]))
    return compare(found, "G7", what, "ours", "RecBole", must=PER_ROW, aim=None, unit="logs")
