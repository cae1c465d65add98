"""G8, G9: the chosen index against exact search, hnswlib at equal recall, and a teacher that ranks the catalogue.

Queries come one at a time, one thread, the best 100. Two catalogues: the log's items by trained vectors, and more that
are made up, in clusters; all indexes are tuned to recall@100 of .97 on other queries than those of the rounds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.goals import Row, compare, missing, single
from benchmarks.setting import Setting
from benchmarks.timing import interleaved
from benchmarks.workers import Crew

K, RECALL = 100, 0.97
MANY, DIM, CLUSTERS = 200_000, 64, 2000
TUNED, ASKED = 200, 1000  # queries
FLAT_PART = 20  # of them, which exact search is asked
SCRIPT = "ours_index.py"
OTHERS = {"Flat": (10.0, None), "hnswlib": (None, 1.0)}  # must and aim of queries a second


def rows(setting: Setting) -> list[Row]:
    found = _catalogue(setting, f"{setting.items:,} items, trained", _trained(setting), teacher=True)
    if not setting.quick:
        found += _catalogue(setting, f"{MANY:,} items, made up", _made_up(setting), teacher=False)
    return found


def _catalogue(setting: Setting, what: str, vectors: Path, *, teacher: bool) -> list[Row]:
    asked = {"vectors": str(vectors), "k": K, "recall": RECALL}
    with setting.crew(f"indexes {what}") as crew:
        small = f"PQ{DIM // 2}x4fs,Refine(SQ8)"
        crew.add("auto", SCRIPT, "index", factory="auto", part=1, **asked)
        crew.add(small, SCRIPT, "index", factory=small, part=1, **asked)
        crew.add("Flat", SCRIPT, "index", factory="Flat", part=FLAT_PART, **asked)
        crew.add("hnswlib", "with_hnswlib.py", "index", python=setting.python("hnswlib"), **asked)
        if teacher:
            crew.add("ranking teacher", SCRIPT, "teacher", items=setting.items, k=K, queries=10)
        crew.need("auto")
        timed = interleaved(crew.workers, setting.rounds)
        found = [row for ours in ("auto", small) for row in _of(crew, timed, ours, what)]
        if "ranking teacher" in timed:
            names = ("G9", f"answer to one user, {what}", "auto", "ranking teacher")
            found.append(compare(timed, *names, must=100, aim=1000, unit="queries"))
        elif teacher:
            found.append(missing("G9", what, "ranking teacher", crew.failed["ranking teacher"]))
        return found


def _of(crew: Crew, timed: dict, ours: str, what: str) -> list[Row]:
    """Return the rows of one of our indexes: what `auto` chooses, or one of few bytes."""
    if ours in crew.failed:
        return [missing("G8", what, ours, crew.failed[ours])]
    about = crew.workers[ours].about
    called = f"{ours}: {about['factory']} {about['params']}, recall {about['recall']:.3f}, {about['bytes']:.0f} B"
    found = []
    for peer, (must, aim) in OTHERS.items():
        if peer in crew.failed:
            found.append(missing("G8", what, peer, crew.failed[peer]))
            continue
        theirs = crew.workers[peer].about
        row = compare(timed, "G8", what, ours, peer, must=must, aim=aim, unit="queries", about={"ours": about} | theirs)
        told = f"{peer}, recall {theirs['recall']:.3f}, {theirs['bytes']:.0f} B"
        found.append(row | {"ours": called, "peer": told})
    return [*found, single("G8", what, about["bytes"], "B a vector", must=80, aim=None) | {"ours": ours}]


def _trained(setting: Setting) -> Path:
    given = np.load(setting.vectors)
    users = given["users"][np.random.default_rng(0).permutation(len(given["users"]))[: TUNED + ASKED]]
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True).clip(1e-12) for side in (given["items"], users)]
    return _write(setting.folder / "trained.npz", *unit)  # the model is of cosine space, in which lengths say nothing


def _made_up(setting: Setting) -> Path:
    from benchmarks.labels import clustered

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, DIM), np.float32)
    items = clustered(rng, MANY, centres, 1.0)
    return _write(setting.folder / "many.npz", items, clustered(rng, TUNED + ASKED, centres, 1.0))


def _write(out: Path, items: np.ndarray, users: np.ndarray) -> Path:
    np.savez(out, items=items, tune=users[:TUNED], queries=users[TUNED:])
    return out
