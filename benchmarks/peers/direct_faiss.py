"""FAISS and nothing of ours: a timing loop of its own, and recall counted by itself.

As a worker it is told its turns on stdin; `direct_faiss.py recall INDEX ITEMS QUERIES PARAMS K` prints the share of the
K items found that score no less than the K-th best, less a tie of 1e-3 where scores are about one.
"""

import json
import sys
import time
from pathlib import Path

import faiss
import numpy as np

BLOCK, LEAD = 100, 10


def opened(path, params):
    faiss.omp_set_num_threads(1)
    index = faiss.read_index(path)
    faiss.ParameterSpace().set_index_parameters(index, params)
    return index


def timed(asked):
    index, queries = opened(asked["index"], asked["params"]), np.load(asked["queries"])
    k, blocks = asked["k"], -(-len(queries) // BLOCK)
    times = np.zeros((asked["repeats"], len(queries)))
    for n in range(asked["warmup"]):
        index.search(queries[n % len(queries)][None], k)
    say("done")
    for line in sys.stdin:
        repeat, block = divmod(int(line), blocks)
        for n in range(block * BLOCK - LEAD, min((block + 1) * BLOCK, len(queries))):
            query = queries[n % len(queries)][None]
            started = time.perf_counter()
            index.search(query, k)
            ended = time.perf_counter()
            if n >= block * BLOCK:
                times[repeat, n] = ended - started
        say("done")
    p50, p95 = np.percentile(times * 1e3, [50, 95], axis=1)
    return {"p50": p50.tolist(), "p95": p95.tolist(), "simd": faiss.SIMDConfig.get_level_name()}


def recall(index, items, queries, params, k):
    index, items, queries, k = opened(index, params), np.load(items), np.load(queries), int(k)
    total = 0
    for query in queries:
        scores = items @ query
        kth = np.partition(scores, -k)[-k]
        found = index.search(query[None], k)[1][0]
        tie = max(1e-3 * min(1.0, abs(kth)), 1e-6)
        total += int((scores[found[found >= 0]] >= kth - tie).sum())
    return total / (len(queries) * k)


def say(word):
    print(word, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "recall":
        print(repr(recall(*sys.argv[2:])))
    else:
        request = Path(sys.argv[1])
        request.with_suffix(".answer").write_text(json.dumps(timed(json.loads(request.read_text()))))
    assert "recdistill" not in sys.modules
