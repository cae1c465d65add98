"""What processes that serve one index hold together: mapped from its file, and copied into each, as it was before.

    python benchmarks/served_memory.py --items 1000000 --dim 64 --processes 1 2 4

Each process opens the index, answers queries until every vector was touched or so, and waits. What they hold is the sum
of their proportional shares of memory (Pss of /proc/PID/smaps_rollup), less that of as many that opened none; its unit
here is the size of the index file. Times are of searches in one process, mapped over copied, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

KINDS = ("Flat", "SQ8", "IVF1024,SQ8", "HNSW16")
CHILD = """
import sys
import numpy as np
import faiss
from pathlib import Path
from recdistill.serve import read_index
faiss.omp_set_num_threads(1)
how, file, dim = sys.argv[1], sys.argv[2], int(sys.argv[3])
if how != "none":
    index = read_index(Path(file)) if how == "mapped" else faiss.read_index(file)
    if hasattr(index, "nprobe"):
        index.nprobe = index.nlist
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = 512
    queries = np.random.default_rng(7).standard_normal((64, dim)).astype(np.float32)
    for query in queries[: 64 if hasattr(index, "hnsw") else 4]:
        index.search(query[None], 100)
print("ready", flush=True)
sys.stdin.read()
"""


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--items", type=int, default=1_000_000)
    asked.add_argument("--dim", type=int, default=64)
    asked.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    asked.add_argument("--kinds", nargs="+", default=list(KINDS))
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"items": given.items, "dim": given.dim, "seed": given.seed}))
        for kind in given.kinds:
            file = Path(folder) / "index.faiss"
            build(kind, given.items, given.dim, given.seed, file)
            size = file.stat().st_size
            row: dict[str, object] = {"kind": kind, "file_mb": round(size / 1e6, 1)}
            for count in given.processes:
                bare = held("none", file, given.dim, count)
                for how in ("copied", "mapped"):
                    row[f"{how} {count}"] = round((held(how, file, given.dim, count) - bare) / size, 2)
            row["search, mapped over copied"] = search_ratio(file, given.dim)
            print(json.dumps(row), flush=True)
    return 0


def build(kind: str, items: int, dim: int, seed: int, file: Path) -> None:
    """Write an index of made vectors in clusters, in a process of its own, so that its memory is given back."""
    code = f"""
import faiss, numpy as np
rng = np.random.default_rng({seed})
centres = rng.standard_normal((512, {dim})).astype(np.float32)
index = faiss.index_factory({dim}, {kind!r}, faiss.METRIC_INNER_PRODUCT)
def block(n):
    x = centres[rng.integers(0, 512, n)] + 0.5 * rng.standard_normal((n, {dim}), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)
index.train(block(50_000))
for start in range(0, {items}, 50_000):
    index.add(block(min(50_000, {items} - start)))
faiss.write_index(index, {str(file)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def held(how: str, file: Path, dim: int, count: int) -> int:
    """Return the bytes that `count` processes hold together."""
    command = [sys.executable, "-c", CHILD, how, str(file), str(dim)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return sum(pss(process.pid) for process in started)
    finally:
        for process in started:
            process.communicate()


def pss(pid: int) -> int:
    """Return the bytes of memory of a process, what it shares with others divided among them."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])


def search_ratio(file: Path, dim: int, rounds: int = 15) -> float:
    """Return the median of the time of a block of searches in a mapped index over that in a copied one."""
    import faiss

    from recdistill.serve import read_index

    faiss.omp_set_num_threads(1)
    queries = np.random.default_rng(9).standard_normal((8, dim)).astype(np.float32)
    indexes = {"mapped": read_index(file), "copied": faiss.read_index(str(file))}
    found: dict[str, list[float]] = {name: [] for name in indexes}
    for turn in range(rounds + 1):
        for name in sorted(indexes, reverse=bool(turn % 2)):
            started = time.perf_counter()
            for query in queries:
                indexes[name].search(query[None], 10)
            found[name].append(time.perf_counter() - started)
    pairs = zip(found["mapped"][1:], found["copied"][1:], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 2)


if __name__ == "__main__":
    sys.exit(main())
