"""What one nested training gives at each width, and rounding at few bits: against students trained for that alone.

    python benchmarks/nested.py quality configs/science-citeulike.yaml --dim 64 --nested 8,16,32
    python benchmarks/nested.py rounding configs/science-citeulike.yaml --dim 8,32
    python benchmarks/nested.py cost configs/science-citeulike.yaml --dim 64 --nested 8,16,32 --rounds 5

`quality`: NDCG at the first `report.k`, test users, of a nested student's prefixes, of plain ones of each width, and
of a plain wide student's prefixes; distilled, and each one's scratch twin. `rounding`: the same metric of exact search
over items as a flat FAISS index of SQ8 and SQ4 reads them again, after plain training and after training for 8 and 4
bits. `cost`: CPU-seconds of an epoch, in turns, beside those of the plain student of the same dim.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.methods import NEVER, Stepped, costs
from benchmarks.timing import interleaved, machine, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality", "rounding", "cost"])
    parser.add_argument("config", type=Path)
    parser.add_argument("--dim", default="64")
    parser.add_argument("--nested", default="8,16,32")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    from pipelines.console import table
    from recdistill.world import world

    dims, nested = ([int(n) for n in text.split(",")] for text in (args.dim, args.nested))
    with world(device="auto", threads=args.threads) as joined:
        trained = Trained(args.config, [*args.sets, f"student.seeds=[{args.seed}]"], joined)
        if args.what == "cost":
            rows = cost(trained, dims[0], nested, args.rounds)
        else:
            made = quality(trained, dims[0], nested) if args.what == "quality" else rounding(trained, dims)
            rows = list(made)
    print(table([[_text(v) for v in row.values()] for row in rows], tuple(rows[0])))
    if args.out:
        write(args.out, {"config": str(args.config), "machine": machine(args.threads), "rows": rows})


class Trained:
    """The students of one configuration with other models, found or made in its store; and what they recommend."""

    def __init__(self, file: Path, sets: list[str], joined: Any) -> None:
        from pipelines.teach import teach
        from recdistill import stages
        from recdistill.config import load_config
        from recdistill.models.spec import Fitted

        self.config = config = load_config(file, sets)
        self.run = run = stages.Run(store=Path(config.exec.store), world=joined, log=_begins)
        self.data = data = stages.split(stages.ingest(config.log, config.features, run), config.split, run)
        self.train = config.student.train.model_copy(update={"seed": config.student.all_seeds[0]})
        plain = Fitted(config.student.model, self.fit(config.student.model, taught=False, name="scratch"))
        teacher, _ = teach(config, data, plain, run)
        self.labels = stages.label(data, teacher, plain, config.labels, run)

    def fit(self, model: Any, *, taught: bool = True, name: str = "student", **more: Any) -> Any:
        from recdistill import stages

        lessons = (
            {"labels": self.labels, "terms": self.config.distill, "student": self.config.student} if taught else {}
        )
        how = {"train": self.train, "how": self.config.exec, "run": self.run} | more
        return stages.fit(self.data, model, how["train"], how["how"], how["run"], name=name, **lessons)

    def model(self, dim: int, **more: Any) -> Any:
        old = self.config.student.model
        return type(old).model_validate(old.model_dump() | {"dim": dim} | more)

    def vectors(self, model: Any, *, taught: bool = True) -> Any:
        """Return what the student `model` serves at test time."""
        from recdistill.data.sequences import Sequences
        from recdistill.evaluate import merge
        from recdistill.fit import load
        from recdistill.models.build import history_length
        from recdistill.scoring import vectors

        fitted, dataset = self.fit(model, taught=taught), self.data.read()
        known = Sequences.of(merge(dataset.train, dataset.valid))
        return vectors(load(model, dataset, fitted.path), dataset, known, history_length(model))

    def ndcg(self, found: Any) -> float:
        import numpy as np

        from recdistill.evaluate import merge
        from recdistill.metrics import hits, ndcg, relevant
        from recdistill.topk import top_items

        dataset, k = self.data.read(), self.config.report.k[0]
        users = np.flatnonzero(np.diff(dataset.test.indptr))
        lists = top_items(found.users, found.items, k, seen=merge(dataset.train, dataset.valid), rows=users)
        return float(ndcg(hits(lists, dataset.test, users), relevant(dataset.test, users), k).mean())


def quality(trained: Trained, dim: int, nested: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a row a width: NDCG of the nested student's prefix, of a student of that width, of a plain one's prefix."""
    from recdistill.scoring import narrowed

    wide = trained.model(dim)
    for width in (*nested, dim):
        row: dict[str, Any] = {"width": width}
        for taught, called in ((True, ""), (False, " scratch")):
            models = {"nested": trained.model(dim, nested=nested), "plain": trained.model(width), "prefix": wide}
            for name, model in models.items():
                row[name + called] = trained.ndcg(narrowed(trained.vectors(model, taught=taught), width))
        yield row


def rounding(trained: Trained, dims: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a row a width and training: NDCG of exact search over items as they are, as SQ8 and as SQ4."""
    for dim in dims:
        for kind in ("fp32", "int8", "int4"):
            found = trained.vectors(trained.model(dim, rounding=kind))
            row: dict[str, Any] = {"width": dim, "trained for": kind, "fp32": trained.ndcg(found)}
            for factory in ("SQ8", "SQ4"):
                row[factory] = trained.ndcg(replace(found, items=read_again(found.items, factory)))
            yield row


def read_again(items: Any, factory: str) -> Any:
    """Return `items` as a flat FAISS index of `factory` has them."""
    import faiss
    import numpy as np

    index = faiss.index_factory(items.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(np.ascontiguousarray(items))
    index.add(np.ascontiguousarray(items))
    return index.reconstruct_n(0, len(items))


def cost(trained: Trained, dim: int, nested: list[int], rounds: int) -> list[dict[str, Any]]:
    """Return a row a training: what its epoch takes, against the plain scratch one's and its own plain twin's."""
    found: list[dict[str, Any]] = []
    models = {"plain": trained.model(dim), "nested": trained.model(dim, nested=nested)}
    models |= {bits: trained.model(dim, rounding=bits) for bits in ("int8",)}
    interactions = len(trained.data.read().train)
    settings = trained.train.model_copy(
        update={"epochs": max(trained.train.epochs, rounds + 2), "evaluate_every": NEVER}
    )
    how = trained.config.exec.model_copy(update={"checkpoint_every": NEVER})
    for taught in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            peers = {}
            for name, model in {"scratch": models["plain"], **models}.items():
                own = Path(folder) / name

                def work(log: Any, own: Path = own, model: Any = model, taught: bool = taught) -> None:
                    there = replace(trained.run, store=own, log=log)
                    trained.fit(model, taught=taught, name="timed", train=settings, how=how, run=there)

                peers[name] = Stepped(work, max(1, interactions // settings.batch))
            try:
                rows = costs(interleaved(peers, rounds))
            finally:
                for peer in peers.values():
                    peer.end()
        called = "distilled" if taught else "scratch"
        for row in rows:
            who = "plain again" if row["name"] == "scratch" else row["name"]
            told = {"CPU-s an epoch": row["cpu_s"], "x plain": row["ratio"], "spread": row["spread"]}
            found.append({"": f"{called} {who}"} | told)
    return found


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _begins(what: str, done: int, total: int, values: Any) -> None:  # noqa: ARG001
    if not done:
        print(f"{what} ...", file=sys.stderr)


if __name__ == "__main__":
    main()
