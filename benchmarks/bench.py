"""Ours and each peer or limit on the same work: the table of ratios behind the goals of speed.

    python benchmarks/bench.py --data data/gowalla          all of it, 20 to 25 minutes on two quiet cores
    python benchmarks/bench.py --quick                      a log that is made up, less of everything: 5 minutes
    python benchmarks/bench.py --only training,ranking      these parts, or goals: g1,g4
    python benchmarks/bench.py --only quality               time to a given NDCG@20: far longer, so never by default

Peers run in environments of their own under .bench/, made at first use from the pinned files in benchmarks/peers/; one
that cannot be installed has a row that says why. Peers take turns within every round; a ratio is of CPU seconds within
a round unless it says wall; the median over the rounds is printed, and how far they are apart. Threads are pinned: one,
where nothing else is said.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.goals import Row, markdown, missing  # noqa: E402
from benchmarks.setting import Setting  # noqa: E402
from benchmarks.timing import machine, write  # noqa: E402

PARTS = {  # module of benchmarks -> the goals it has rows of
    "training": "g1 g2",
    "ranking": "g4",
    "labelling": "g5 g6",
    "epochs": "g3",
    "indexes": "g8 g9",
    "startup": "g10",
    "threads": "g12",
    "preparation": "g7",
    "quality": "g0",
}
LONG = ("quality",)
VERSION = re.compile(r"\d+\.\d+\.\d")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of train.parquet and test.parquet (user_id, item_id)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="parts or goals, separated by commas")
    parser.add_argument("--environments", type=Path, default=ROOT / ".bench", help="where the peers are installed")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="for bench.json and bench.md")
    args = parser.parse_args()
    here, seconds = machine(1), dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        setting = Setting(args.data, Path(folder), args.environments, args.quick)
        rows = [row for part in chosen(args.only) for row in measured(part, setting, seconds)]
    table = markdown(rows)
    print(f"{here['cpu']}, {here['cores']} cores, load before {here['load'][1]:.1f}, torch {here['torch']}", end="; ")
    print(f"{sum(seconds.values()) / 60:.0f} minutes\n{versions(rows)}\n\n{table}")
    result = {"machine": here, "quick": args.quick, "data": str(args.data), "seconds": seconds, "rows": rows}
    write(args.out / "bench.json", result)
    (args.out / "bench.md").write_text(table + "\n", encoding="utf-8")


def chosen(only: str) -> list[str]:
    """Return the parts that were asked for by their names or goals; all but the long ones if none was."""
    wanted = [word.strip().lower() for word in only.split(",") if word.strip()]
    known = {word for part, goals in PARTS.items() for word in (part, *goals.split())}
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise SystemExit(f"--only {unknown[0]}: there are {', '.join(sorted(known))}")
    if not wanted:
        return [part for part in PARTS if part not in LONG]
    return [part for part, goals in PARTS.items() if {part, *goals.split()} & set(wanted)]


def measured(part: str, setting: Setting, seconds: dict[str, float]) -> list[Row]:
    """Return the rows of a part; one that fails has a row that says so, and the others go on."""
    began = time.perf_counter()
    try:
        rows = importlib.import_module(f"benchmarks.{part}").rows(setting)
    except Exception as error:  # whatever went wrong in a part is no reason to lose the others
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}".strip().splitlines()
        rows = [missing(PARTS[part].upper(), part, "", f"failed: {said[-1]}")]
    seconds[part] = time.perf_counter() - began
    print(markdown(rows), file=sys.stderr, flush=True)
    return rows


def versions(rows: list[Row]) -> str:
    """Return what the peers said they are."""
    told = {
        f"{name} {value}" for row in rows for name, value in row.get("about", {}).items() if VERSION.match(str(value))
    }
    return "peers: " + ", ".join(sorted(told))


if __name__ == "__main__":
    main()
