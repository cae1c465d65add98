"""The long run, `make fuzz`: every way in for its share of some minutes, each in a process with limits of its own.

    python tests/fuzz/run.py --minutes 20 --seed 1 [--only NAME] [--keep]

A table of what was tried and how it ended; exit code 1 where something ended otherwise than it may, with the input in
.fuzz/. --keep writes the shortest input of each new end to tests/fuzz/corpus, which the normal tests try again.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import drive  # noqa: E402
import targets  # noqa: E402

MEMORY = 4 << 30  # bytes of address space that a process may add to what it has when it begins
KEPT = 24  # inputs of the corpus a target
LONGEST = 1500  # bytes of one


def main() -> int:
    """Run all targets, print what came of them, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    chosen = [make for make in targets.MAKERS if asked.only in make.__name__]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as home:
        shares = [targets.share(make) for make in chosen]
        rows = []
        for make, share in zip(chosen, shares, strict=True):
            rows.append(child(make, asked.seed, 60 * asked.minutes * share / sum(shares), Path(home), asked.keep))
            print(line(rows[-1]), flush=True)
    total, failed = sum(r["inputs"] for r in rows), sum(len(r["failures"]) for r in rows)
    print(f"\n{total} inputs, {len(rows)} ways in, {failed} failures; seed {asked.seed}, {asked.minutes:g} minutes")
    for row in rows:
        for n, (data, said) in enumerate(row["failures"]):
            out = Path(".fuzz") / f"{row['name'].replace(' ', '-').replace(',', '')}-{n}"
            out.parent.mkdir(exist_ok=True)
            out.write_bytes(base64.b64decode(data))
            print(f"\n{row['name']}: {out}\n{said}")
    return 1 if failed else 0


def line(row: dict) -> str:
    """Return a row of the table."""
    ends = ", ".join(f"{name} {count}" for name, count in Counter(row["ends"]).most_common(5))
    head = f"{row['name']:45} {row['inputs']:>8} inputs {row['seconds']:>5.0f} s"
    return f"{head} {len(row['failures']):>3} failed  {ends}"


def child(make: targets.Maker, seed: int, seconds: float, home: Path, keep: bool) -> dict:
    """Run one target in a process of its own; one that dies is a failure, with the input it died of."""
    last, result = home / f"{make.__name__}.last", home / f"{make.__name__}.json"
    pid = os.fork()
    if pid == 0:
        try:
            work(make, seed, seconds, home, last, result, keep)
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{make.__name__}: {error!r}\n")
            os._exit(9)
    _, status = os.waitpid(pid, 0)
    if status == 0:
        return json.loads(result.read_text())
    data = base64.b64encode(last.read_bytes() if last.is_file() else b"").decode()
    said = f"the process ended with status {status}: signal {os.WTERMSIG(status) if os.WIFSIGNALED(status) else 'none'}"
    return {"name": make.__name__, "inputs": 0, "seconds": 0, "ends": {}, "failures": [(data, said)]}


def work(make: targets.Maker, seed: int, seconds: float, home: Path, last: Path, result: Path, keep: bool) -> None:
    """Try a target's inputs for so long, under a limit of memory, and write what came of them."""
    (home / make.__name__).mkdir()
    target = make(home / make.__name__)
    for data in target.seeds:  # what is imported at the first input is no input's doing
        drive.attempt(target, data, drive.Tried(), patience=60)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    tried = drive.go(target, seed, seconds=seconds, corpus=targets.corpus(make.__name__), before=last.write_bytes)
    if keep:
        targets.write_corpus(make.__name__, sorted(tried.kept.values(), key=len)[:KEPT], LONGEST)
    failures = [(base64.b64encode(data).decode(), said) for data, said in tried.failures.values()]
    row = {"name": target.name, "inputs": tried.inputs, "seconds": seconds, "ends": tried.ends, "failures": failures}
    result.write_text(json.dumps(row))


if __name__ == "__main__":
    sys.exit(main())
