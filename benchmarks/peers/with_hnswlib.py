"""hnswlib by its defaults, searched with the smallest ef of a grid that reaches the recall, one query at a time."""

import os
import tempfile
import time
from importlib.metadata import version

import numpy as np
from worker import Job, serve

LINKS, BUILD = 16, 200
GRID = (100, 120, 150, 200, 250, 300, 400, 600, 800, 1200, 1600, 2400)
TIE = 1e-3  # an item this close to the k-th true score counts as found, as it does for ours


def index(asked):
    import hnswlib

    given = np.load(asked["vectors"])
    items, tune, queries, k = given["items"], given["tune"], given["queries"], asked["k"]
    built = hnswlib.Index(space="ip", dim=items.shape[1])
    built.init_index(max_elements=len(items), M=LINKS, ef_construction=BUILD, random_seed=1)
    built.set_num_threads(asked["threads"])
    began = time.perf_counter()
    built.add_items(items, num_threads=asked["threads"])
    build_s = time.perf_counter() - began

    def recall(queries):
        found, hits = built.knn_query(queries, k, num_threads=asked["threads"])[0].astype(np.int64), []
        for query, rows in zip(queries, found, strict=True):
            scores = items @ query
            kth = np.partition(scores, -k)[-k]
            hits.append((scores[rows] >= kth - max(TIE * min(1, abs(kth)), 1e-6)).mean())
        return float(np.mean(hits))

    ef = next((ef for ef in GRID if built.set_ef(ef) or recall(tune) >= asked["recall"]), GRID[-1])
    rows = len(queries)
    with tempfile.TemporaryDirectory() as folder:
        built.save_index(f"{folder}/index")
        size = os.path.getsize(f"{folder}/index") / len(items)

    def work():
        for at in range(rows):
            built.knn_query(queries[at : at + 1], k, num_threads=asked["threads"])
        return rows

    return Job(work, hnswlib=version("hnswlib"), ef=ef, recall=recall(queries), bytes=size, build_s=build_s)


if __name__ == "__main__":
    serve({"index": index})
