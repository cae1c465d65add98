"""DE-RRD's table on CiteULike, by its own protocol: does a preset here gain what the paper's code gains?

    OMP_NUM_THREADS=1 python benchmarks/parity.py data/citeulike/interactions.parquet [--tune]

Users of 5 items or more; of each, one random item to validate on, one to test on, and 499 fixed items of nobody's that
both are ranked among. BPR: a teacher of 200 dimensions, students of 20, one of them taught by configs/methods/rrd.yaml
with its published weight of sums. H, NDCG and MRR at k are those of the validation with the best H at the same k. The
published figures are those of the logs that the authors left beside their code, one split and one seed; the teacher's
are the paper's. What differs: validation is every fourth epoch of a fixed number, lists are drawn anew every step, and
a step compares as many lists as a batch has distinct users on average. `--tune` prints validation H@10 over a grid
around the paper's rate and decay.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.timing import machine, write  # noqa: E402
from recdistill.data.sequences import Sequences  # noqa: E402
from recdistill.fit import fit, load  # noqa: E402
from recdistill.labels import Layout, open_labels  # noqa: E402
from recdistill.methods import load_method  # noqa: E402
from recdistill.models.spec import MFSpec, TrainSpec  # noqa: E402
from recdistill.scoring import vectors  # noqa: E402
from recdistill.shards import Share, finish, write_shards  # noqa: E402
from recdistill.teachers import encoder_lister  # noqa: E402
from recdistill.teaching import Teaching  # noqa: E402
from recdistill.types import Dataset, Float, Int, Interactions, Labels, quiet  # noqa: E402
from recdistill.world import World, world  # noqa: E402

NEGATIVES, KS, BLOCK = 499, (5, 10, 20), 256
# H@5, H@10, H@20, NDCG@10, MRR@10
PUBLISHED = {
    "teacher": (0.5135, 0.6185, 0.7099, 0.4310, 0.3724),
    "scratch": (0.4486, 0.5559, 0.6584, 0.3686, 0.3104),
    "rrd": (0.4698, 0.5727, 0.6679, 0.3879, 0.3303),
}
SHOWN = ("hit@5", "hit@10", "hit@20", "ndcg@10", "mrr@10")
TEACHER, STUDENT = (MFSpec(dim=dim, space="dot", temperature=1.0) for dim in (200, 20))
COMMON: dict[str, Any] = {"batch": 1024, "loss": "bpr", "negatives": 1, "evaluate_every": 4, "patience": 0}
# The paper's loss is a sum over the batch and its decay 1e-3: of a mean that is 1e-3 / 1024.
ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-6}
SETTINGS = {"teacher": COMMON | ADAM | {"epochs": 160}, "student": COMMON | ADAM | {"epochs": 400}}
GRID = {"lr": (1e-3, 2e-3), "weight_decay": (0.0, 3e-7, 1e-6, 3e-6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="a Parquet file of user_id, item_id")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    dataset, others = protocol(args.log, args.seed)
    print(f"{dataset.num_users:,} users, {dataset.num_items:,} items, {len(dataset.train):,} to learn from")
    with tempfile.TemporaryDirectory() as folder, world(device="cpu", threads=1) as joined, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        bench = Bench(dataset, others, Path(folder), joined, args.seed)
        if args.tune:
            bench.tune()
            return
        found = bench.rows()
    show(found)
    if args.out:
        write(args.out, {"machine": machine(1), "settings": SETTINGS, "rows": found, "published": PUBLISHED})


def protocol(path: Path, seed: int) -> tuple[Dataset, Int]:
    """Return the split log, and the items [U,499] that each user's held-out ones are ranked among."""
    log = pl.read_parquet(path).select("user_id", "item_id").unique(maintain_order=True)
    log = log.filter(pl.len().over("user_id") >= 5).sort("user_id", "item_id")
    user_ids, item_ids = (log[name].unique().sort() for name in ("user_id", "item_id"))
    users, items = (
        np.searchsorted(ids.to_numpy(), log[name].to_numpy()).astype(np.int64)
        for ids, name in ((user_ids, "user_id"), (item_ids, "item_id"))
    )
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(users)), users))
    items, counts = items[order], np.bincount(users)
    first = np.cumsum(counts) - counts
    left = np.ones(len(items), bool)
    left[first], left[first + 1] = False, False

    def part(chosen: Int | np.ndarray[Any, Any], each: Int) -> Interactions:
        return Interactions(indptr=np.concatenate([[0], np.cumsum(each)]).astype(np.int64), items=items[chosen])

    one = np.ones(len(counts), np.int64)
    parts = {"train": part(left, counts - 2), "valid": part(first, one), "test": part(first + 1, one)}
    dataset = Dataset(user_ids=user_ids, item_ids=item_ids, **parts)
    return dataset, _others(users[order] * len(item_ids) + items, len(counts), len(item_ids), rng)


def _others(own: Int, num_users: int, num_items: int, rng: np.random.Generator) -> Int:
    """Return 499 distinct items of each user, none of which is in `own` (user * num_items + item)."""
    found = np.empty((num_users, NEGATIVES), np.int64)
    own = np.sort(own)
    for start in range(0, num_users, BLOCK):
        rows = np.arange(start, min(start + BLOCK, num_users))
        chance = rng.random((len(rows), num_items), dtype=np.float32)
        mine = own[np.searchsorted(own, start * num_items) : np.searchsorted(own, (rows[-1] + 1) * num_items)]
        chance[mine // num_items - start, mine % num_items] = 2.0
        found[rows] = np.argpartition(chance, NEGATIVES, axis=1)[:, :NEGATIVES]
    return found


def places(users: Float, items: Float, wanted: Int, others: Int) -> Int:
    """Return the rank, from 0, of each user's `wanted` item among its `others`; an equal score stands before it."""
    found = np.empty(len(users), np.int64)
    for start in range(0, len(users), BLOCK):
        rows = slice(start, start + BLOCK)
        scores = users[rows] @ items.T
        mine = np.take_along_axis(scores, wanted[rows, None], axis=1)
        found[rows] = (np.take_along_axis(scores, others[rows], axis=1) >= mine).sum(1)
    return found


def metrics(rank: Int) -> dict[str, float]:
    """Return H, NDCG and MRR at each k, of one relevant item at `rank`."""
    found = {}
    for k in KS:
        inside = rank < k
        found[f"hit@{k}"] = float(inside.mean())
        found[f"ndcg@{k}"] = float((inside / np.log2(rank + 2)).mean())
        found[f"mrr@{k}"] = float((inside / (rank + 1)).mean())
    return found


class Bench:
    """The protocol's data and where models go: what every training below shares."""

    def __init__(self, dataset: Dataset, others: Int, folder: Path, joined: World, seed: int) -> None:
        self.dataset, self.others, self.folder, self.joined, self.seed = dataset, others, folder, joined, seed
        self.sequences = Sequences.of(dataset.train)

    def rows(self) -> dict[str, dict[str, float]]:
        """Train teacher, scratch student and distilled student; return what each reaches."""
        found = {"teacher": self.measure("teacher", TEACHER, SETTINGS["teacher"])}
        found["scratch"] = self.measure("scratch", STUDENT, SETTINGS["student"])
        term = load_method(ROOT / "configs" / "methods" / "rrd.yaml").set.distill[0]
        summed = term.model_copy(update={"weight": 1e-3, "balance": False, "compat": "sum"})
        teaching = Teaching(terms=(summed,), labels=self.labels("teacher"))
        found["rrd"] = self.measure("rrd", STUDENT, SETTINGS["student"] | {"list_users": self.together()}, teaching)
        return found

    def together(self) -> int:
        """Return how many distinct users a batch has on average: RRD compares the lists of those."""
        share = np.diff(self.dataset.train.indptr) / len(self.dataset.train)
        return round(float((1 - (1 - share) ** COMMON["batch"]).sum()))

    def tune(self) -> None:
        """Print the best validation H@10 of every setting of the grid, for students of few epochs."""
        for i, values in enumerate(itertools.product(*GRID.values())):
            chosen = dict(zip(GRID, values, strict=True))
            settings = SETTINGS["student"] | {"epochs": 100, "evaluate_every": 10, "patience": 2} | chosen
            row = self.measure(f"tune{i}", STUDENT, settings)
            print(chosen, f"valid H@10 {row['valid']:.4f}, epoch {row['epoch']:.0f} of {row['epochs']:.0f}", flush=True)

    def measure(
        self, name: str, spec: MFSpec, settings: Mapping[str, Any], teaching: Teaching | None = None
    ) -> dict[str, float]:
        """Fit and return the test metrics at k of the validation with the best H at k."""
        out, chosen = self.folder / name, TrainSpec(**settings, seed=self.seed)
        out.mkdir()
        started = time.perf_counter()
        never = 10**9
        more = {"name": name, "world": self.joined, "log": quiet, "checkpoint_every": never, "keep": True}
        facts = fit(self.dataset, spec, chosen, out, teaching=teaching, **more)
        steps = sorted(int(f.stem.removeprefix("weights-")) for f in out.glob("weights-*.safetensors"))
        valid, test = {}, {}
        for step in steps:
            file = out / f"weights-{step}.safetensors"
            sides = vectors(load(spec, self.dataset, out, file.name), self.dataset, self.sequences, 0)
            for held, into in ((self.dataset.valid, valid), (self.dataset.test, test)):
                into[step] = metrics(places(sides.users, sides.items, held.items, self.others))
            file.unlink()
        best = {k: max(steps, key=lambda step: valid[step][f"hit@{k}"]) for k in KS}
        found = {f"{metric}@{k}": test[best[k]][f"{metric}@{k}"] for k in KS for metric in ("hit", "ndcg", "mrr")}
        per_epoch = len(self.dataset.train) // chosen.batch
        found |= {"valid": valid[best[10]]["hit@10"], "epoch": best[10] / per_epoch, "epochs": steps[-1] / per_epoch}
        found["seconds_per_epoch"] = facts["seconds_per_epoch"]
        print(f"{name}: {time.perf_counter() - started:.0f} s, {found}", file=sys.stderr, flush=True)
        return found

    def labels(self, teacher: str) -> Labels:
        """Return the first 500 items of the fitted teacher's vectors, written as labels are."""
        out, data = self.folder / "labels", self.dataset
        out.mkdir()
        users, items = (np.load(self.folder / teacher / f"{side}.npy") for side in ("users", "items"))
        layout = Layout(num_users=data.num_users, num_items=data.num_items, depth=500)
        write_shards(out, layout, lambda: encoder_lister(users, items, layout.depth, data.train), quiet, Share())
        finish(out, layout, {"teacher": teacher}, data.train)
        return open_labels(out)


def show(found: Mapping[str, Mapping[str, float]]) -> None:
    """Print ours beside the published, and the difference."""
    from pipelines.console import table

    body = []
    for name, row in found.items():
        cells = [
            f"{row[metric]:.4f} ({theirs:.4f}, {row[metric] - theirs:+.4f})"
            for metric, theirs in zip(SHOWN, PUBLISHED[name], strict=True)
        ]
        body.append((name, *cells, f"{row['epoch']:.0f} of {row['epochs']:.0f}", f"{row['seconds_per_epoch']:.2f}"))
    print(table(body, ("ours (published, difference)", *SHOWN, "epoch", "s an epoch")))


if __name__ == "__main__":
    main()
