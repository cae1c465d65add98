"""Ours at serving time, a query at a time: the index that `index` builds, exact search, and a ranking teacher."""

import sys
import tempfile
from pathlib import Path

import numpy as np
from worker import Job, serve

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def index(asked):
    """A chosen index, tuned to a recall on some queries; a round asks it others, one by one."""
    import faiss

    from recdistill.ann import IndexSpec, build_index
    from recdistill.ann_tune import recall
    from recdistill.serve import read_index
    from recdistill.serve_search import search_index

    faiss.omp_set_num_threads(asked["threads"])
    given, out = np.load(asked["vectors"]), Path(tempfile.mkdtemp(prefix="index-"))
    items, tune, queries = given["items"], given["tune"], given["queries"]
    spec = IndexSpec(factory=asked["factory"], k=(asked["k"],), min_recall=asked["recall"])
    facts = build_index(items, tune, spec, out)
    built = read_index(out / "index.faiss", facts["params"])
    rows = len(queries) // asked["part"]
    reached = recall(built, read_index(out / "flat.faiss"), items, queries, asked["k"])

    def work():
        for at in range(rows):
            search_index(built, queries[at : at + 1], asked["k"])
        return rows

    return Job(
        work,
        factory=facts["factory"],
        params=facts["params"],
        recall=reached,
        bytes=facts["bytes"] / len(items),
        build_s=facts["build_s"],
        faiss=faiss.__version__,
    )


def teacher(asked):
    """A ranking teacher that scores the whole catalogue for one user: features, crosses, 512-256, bf16 products."""
    import torch

    sys.argv = ["ranker"]
    from benchmarks.ranker import make
    from recdistill.data.sequences import Sequences
    from recdistill.scoring import ranked, ranker_scorer
    from recdistill.types import Interactions

    class Shape:
        items, dim, crosses, hidden = asked["items"], 64, 2, [512, 256]

    torch.set_num_threads(asked["threads"])
    model, users, past = make(Shape)
    history = past.items.shape[1]
    took = np.sort(past.items.numpy(), axis=1).ravel()
    indptr = np.arange(len(users) + 1) * history
    seen = Interactions(indptr=indptr, items=took, times=np.sort(past.times.numpy(), axis=1).ravel())
    scorer = ranker_scorer(model, Sequences.of(seen), history, asked["items"], torch.bfloat16)
    asks = np.arange(len(users))[: asked["queries"]]

    def work():
        for user in asks:
            ranked(scorer, np.array([user]), asked["k"], num_items=asked["items"], seen=seen)
        return len(asks)

    return Job(work, torch=torch.__version__)


if __name__ == "__main__":
    serve({"index": index, "teacher": teacher})
