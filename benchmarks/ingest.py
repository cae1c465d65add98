"""What ingest and split cost as rows grow, and beside hand-written scripts that do the same work.

    python benchmarks/ingest.py                           1M, 10M and 20M rows with peers in turn, then 100M alone
    python benchmarks/ingest.py --rows 20000000 --peers polars --rounds 3
    python benchmarks/ingest.py --rows 1000000 --ids text --peers        ours alone, ids as text
    --scratch runs/ingest --budget-gb 6 --alone 50000000 --out runs/ingest.json

The log is made up: users and items with Zipf's popularity, times to the second in the order in which they came, a
weight, and some pairs that repeat. It is written in pieces, so that making it needs no memory either. The work: every
pair once, the latest; the 5-core; dense rows in order of ids; a split at two moments; every part written, by user and
time. The peers do that and no more; ours also checks every row against the contract, keeps the whole log and lints the
split.

Every run is a process of its own, and what is compared is the CPU time of the whole process, start included. Two peaks
are given: of memory that is the process's own (anonymous), which is what the machine must have, and of all that is
resident, which counts pages of mapped files that the system may drop at any time. A run whose own memory passes the
budget is ended; the command fails if it is ours, or if two do not come to the same number of rows in each part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.made_log import make  # noqa: E402

MIN, FRACTION = 5, 0.1
GIB = 2**30


def ours(log: Path, out: Path) -> list[int]:
    """Ingest and split as the stages do; return the rows of train, valid and test, as every peer does."""
    from recdistill.data.ingest import ingest
    from recdistill.data.log import LogSpec
    from recdistill.data.split import GlobalTime, split

    spec = LogSpec(path=str(log), user="user", item="item", time="time", weight="weight", min_user=MIN, min_item=MIN)
    ingest(spec, None, out / "ingest", now=datetime(2026, 1, 1, tzinfo=UTC))
    print(json.dumps({"ingest": time.process_time()}), file=sys.stderr)
    cut = GlobalTime(valid_fraction=FRACTION, test_fraction=FRACTION, allow=["cold_users", "cold_items"])
    return list(split(out / "ingest", cut, out / "split")["rows"].values())


def polars(log: Path, out: Path) -> list[int]:
    """Do the same with polars' streaming engine, as one would write it by hand."""
    import polars as pl

    once = pl.scan_parquet(log).sort("time").group_by("user", "item").agg(pl.col("time", "weight").last())
    once.sink_parquet(out / "once.parquet")
    rows = kept = pl.scan_parquet(out / "once.parquet")
    while True:
        users, items = (kept.group_by(side).len() for side in ("user", "item"))
        users, items = pl.collect_all([users, items])
        strong_users, strong_items = users.filter(pl.col("len") >= MIN), items.filter(pl.col("len") >= MIN)
        if strong_users.height == users.height and strong_items.height == items.height:
            break
        kept = rows.join(strong_users.lazy(), on="user", how="semi").join(strong_items.lazy(), on="item", how="semi")
    for side, ids in (("user", users), ("item", items)):
        dense = ids.sort(side).select(side).with_row_index("dense").with_columns(pl.col("dense").cast(pl.Int64))
        dense.write_parquet(out / f"{side}.parquet")
        kept = kept.join(dense.lazy(), on=side).drop(side).rename({"dense": side})
    kept = kept.select("user", "item", pl.col("time") * 1_000_000, pl.col("weight").cast(pl.Float32))
    kept.sink_parquet(out / "dense.parquet")
    kept = pl.scan_parquet(out / "dense.parquet")
    ends = [pl.col("time").quantile(q, "higher") for q in (1 - 2 * FRACTION, 1 - FRACTION)]
    valid, test = kept.select(valid=ends[0], test=ends[1]).collect().row(0)
    when, found = pl.col("time"), []
    for name, part in (("train", when < valid), ("valid", (when >= valid) & (when < test)), ("test", when >= test)):
        kept.filter(part).sort("user", "time", "item").sink_ipc(out / f"{name}.arrow")
        found.append(pl.scan_ipc(out / f"{name}.arrow").select(pl.len()).collect().item())
    return found


def pandas(log: Path, out: Path) -> list[int]:
    """Do the same with pandas."""
    import pandas as pd

    rows = pd.read_parquet(log).sort_values("time", kind="stable").drop_duplicates(["user", "item"], keep="last")
    while True:
        users, items = rows["user"].value_counts(), rows["item"].value_counts()
        if users.min() >= MIN and items.min() >= MIN:
            break
        strong = [rows[side].isin(n.index[n >= MIN]) for side, n in (("user", users), ("item", items))]
        rows = rows[strong[0] & strong[1]]
    for side in ("user", "item"):
        codes, ids = pd.factorize(rows[side], sort=True)
        rows = rows.assign(**{side: codes})
        pd.DataFrame({side: ids}).to_parquet(out / f"{side}.parquet")
    rows["time"] *= 1_000_000
    rows = rows.sort_values(["user", "time", "item"], ignore_index=True)
    valid, test = rows["time"].quantile([1 - 2 * FRACTION, 1 - FRACTION], interpolation="higher")
    parts = {"train": rows["time"] < valid, "test": rows["time"] >= test}
    parts["valid"] = ~parts["train"] & ~parts["test"]
    for name, part in parts.items():
        rows[part].to_feather(out / f"{name}.arrow", compression="uncompressed")
    return [int(parts[name].sum()) for name in ("train", "valid", "test")]


def recbole(log: Path, out: Path) -> list[int]:
    """Have RecBole do it, which reads a table of its own format and keeps what it made as pickles.

    Its cuts are at shares of the rows and not at moments, so that its parts may differ from the others' by a few rows.
    """
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset

    settings = {
        "data_path": str(log.parent),
        "checkpoint_dir": str(out),
        "load_col": {"inter": ["user_id", "item_id", "timestamp", "weight"]},
        "rm_dup_inter": "last",
        "user_inter_num_interval": f"[{MIN},inf)",
        "item_inter_num_interval": f"[{MIN},inf)",
        "eval_args": {
            "split": {"RS": [1 - 2 * FRACTION, FRACTION, FRACTION]},
            "order": "TO",
            "group_by": "none",
            "mode": "full",
        },
        "use_gpu": False,
        "show_progress": False,
    }
    parts = create_dataset(Config(model="BPR", dataset=log.name, config_dict=settings)).build()
    for number, part in enumerate(parts):
        torch.save(part.inter_feat.interaction, out / f"{number}.pt")
    return [len(part.inter_feat) for part in parts]


PEERS = {"ours": ours, "polars": polars, "pandas": pandas, "recbole": recbole}


def measure(name: str, log: Path, scratch: Path, budget: float, python: Path | str = sys.executable) -> dict[str, Any]:
    """Run one peer in a process of its own; return its CPU seconds, wall seconds, peaks in GiB and rows.

    It is ended when its own memory passes `budget` GiB.
    """
    shutil.rmtree(scratch / "out", ignore_errors=True)
    (scratch / "out").mkdir(parents=True)
    command = [python, __file__, "--run", name, str(log), str(scratch / "out")]
    started, own = time.perf_counter(), 0
    with (scratch / "said").open("w+") as said, (scratch / "told").open("w+") as told:
        child = subprocess.Popen(command, stdout=said, stderr=told)
        pid = 0
        while not pid:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            own = max(own, anonymous(child.pid))
            if own > budget * GIB:
                child.kill()
            time.sleep(0.02)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0), told.seek(0)
        text, errors = said.read(), told.read()
    shutil.rmtree(scratch / "out")
    found = {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.perf_counter() - started}
    found |= {"own": own / GIB, "resident": usage.ru_maxrss * 1024 / GIB}
    if child.returncode:
        return found | {"rows": None, "why": "over the budget" if own > budget * GIB else errors.strip()[-2000:]}
    marks = [json.loads(line) for line in errors.splitlines() if line.startswith('{"')]
    return found | {
        "rows": json.loads(text.splitlines()[-1]),
        **{key: value for mark in marks for key, value in mark.items()},
    }


def anonymous(pid: int) -> int:
    """Return the bytes of anonymous memory of a process, 0 when it has ended (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def table(results: list[dict[str, Any]]) -> None:
    """Print a row for each size and peer: medians over rounds, CPU against ours in the same round."""
    head = ["rows", "", "CPU-s", "ours ingest", "per 1M rows", "ours / peer", "own GiB", "resident GiB", "wall s"]
    lines = [head]
    for rows, name in dict.fromkeys((r["size"], r["peer"]) for r in results):
        runs = [r for r in results if (r["size"], r["peer"]) == (rows, name)]
        if any(r["rows"] is None for r in runs):
            lines.append([f"{rows:,}", name, runs[-1].get("why", "")[-60:], *[""] * 6])
            continue
        middle = {key: statistics.median(r[key] for r in runs) for key in ("cpu", "wall")}
        against = {r["round"]: r["cpu"] for r in results if (r["size"], r["peer"]) == (rows, "ours")}
        ratios = [against[r["round"]] / r["cpu"] for r in runs if r["round"] in against]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""
        ingest = f"{statistics.median(r['ingest'] for r in runs):.1f}" if name == "ours" else ""
        peaks = [f"{max(r[key] for r in runs):.2f}" for key in ("own", "resident")]
        cost = f"{middle['cpu'] / rows * 1e6:.2f}"
        lines.append([f"{rows:,}", name, f"{middle['cpu']:.1f}", ingest, cost, ratio, *peaks, f"{middle['wall']:.0f}"])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000, 20_000_000])
    parser.add_argument("--alone", type=int, nargs="*", help="sizes without peers (100M, unless --rows is given)")
    parser.add_argument("--peers", nargs="*", default=["polars", "pandas"], choices=["polars", "pandas"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ids", choices=["whole", "text"], default="whole")
    parser.add_argument("--budget-gb", type=float, default=6.0, help="GiB of its own that a run may have")
    parser.add_argument("--scratch", type=Path, default=Path("runs/ingest"))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "ingest.json")
    args = parser.parse_args()
    alone = args.alone if args.alone is not None else [] if "--rows" in sys.argv else [100_000_000]
    args.scratch.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for size, names in [*((n, ["ours", *args.peers]) for n in args.rows), *((n, ["ours"]) for n in alone)]:
        free, needed = shutil.disk_usage(args.scratch).free / GIB, size * 130 / GIB
        if free < needed:
            print(f"{size:,} rows need {needed:.0f} GiB of disk, {args.scratch} has {free:.0f}: left out")
            continue
        log = args.scratch / f"{size}.parquet"
        make(log, size, args.ids)
        for turn in range(args.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                results.append(
                    {"size": size, "peer": name, "round": turn, **measure(name, log, args.scratch, args.budget_gb)}
                )
                print(json.dumps(results[-1]), flush=True)
        log.unlink()
    table(results)
    about = {"cpu": platform.processor(), "cores": os.cpu_count(), "load": os.getloadavg()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": about, "ids": args.ids, "results": results}, indent=2) + "\n")
    wrong = [r for r in results if r["peer"] == "ours" and r["rows"] is None]
    told = {(r["size"], tuple(r["rows"])) for r in results if r["rows"]}
    wrong += [size for size in {r["size"] for r in results} if sum(size == other for other, _ in told) > 1]
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print("\n" + json.dumps(PEERS[sys.argv[2]](Path(sys.argv[3]), Path(sys.argv[4]))))
    else:
        sys.exit(main())
