"""Ours: `fit` as `recdistill run` calls it, standing still between rounds, and `recommend` with the metrics."""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from worker import Job, serve

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

NEVER = 10**9
OPEN = ExitStack()


def opened(asked):
    """Return the log as a Dataset, in a world of one with the threads that were asked for."""
    import polars as pl

    from benchmarks.handover import interactions
    from recdistill.types import Dataset
    from recdistill.world import world

    data = np.load(asked["data"])
    users, items = int(data["users"]), int(data["items"])
    joined = OPEN.enter_context(world(device="cpu", threads=asked["threads"]))
    parts = {"train": interactions(data["train"], users), "test": interactions(data["test"], users)}
    nothing = interactions(data["train"][:0], users)
    ids = {"user_ids": pl.Series(range(users)), "item_ids": pl.Series(range(items))}
    return Dataset(valid=nothing, **parts, **ids), joined


def versions():
    import recdistill

    return {"recdistill": getattr(recdistill, "__version__", "here")}


def train(asked):
    """A student's training, `model` and `train` as a configuration has them; a round is `steps` of it, or an epoch."""
    import torch
    from pydantic import TypeAdapter

    from benchmarks.methods import Stepped
    from recdistill.data.sequences import Sequences
    from recdistill.fit import fit, load
    from recdistill.models.build import history_length
    from recdistill.models.spec import ModelSpec, TrainSpec
    from recdistill.scoring import vectors

    data, joined = opened(asked)
    steps = asked["steps"] or max(1, len(data.train) // asked["train"]["batch"])
    kept = asked["steps"] is None  # for its vectors, which a speed alone does not need
    out = Path(tempfile.mkdtemp(prefix="ours-"))
    epochs = asked["train"].get("epochs", NEVER // 1000)
    settings = TrainSpec(**{"patience": 0, **asked["train"], "epochs": epochs, "evaluate_every": 1 if kept else epochs})
    spec = TypeAdapter(ModelSpec).validate_python({"kind": "mf", "dim": asked["dim"], **asked.get("model", {})})

    def run(log):
        fit(data, spec, settings, out, name="timed", world=joined, log=log, checkpoint_every=NEVER, keep=kept)

    stepped = Stepped(run, steps)

    def work():
        torch.set_num_threads(asked["threads"])
        stepped()
        return steps * settings.batch

    def save(path):
        newest = max(out.glob("weights-*.safetensors"), key=lambda file: int(file.stem.partition("-")[2]))
        found = vectors(load(spec, data, out, newest.name), data, Sequences.of(data.train), history_length(spec))
        np.savez(path, users=found.users, items=found.items)

    return Job(work, save, **versions())


def evaluate(asked):
    """Full ranking, as evaluation and validation of a run do it."""
    import torch

    from recdistill.data.sequences import Sequences
    from recdistill.metrics import hits, ndcg, recall, relevant
    from recdistill.models.build import build
    from recdistill.models.spec import MFSpec
    from recdistill.models.tables import PlainTable
    from recdistill.scoring import recommend

    data, _ = opened(asked)
    given = np.load(asked["vectors"])
    model = build(MFSpec(dim=given["users"].shape[1], space="dot", temperature=1.0), data, PlainTable, seed=0)
    model.load_state_dict({f"{side}.weight": torch.from_numpy(given[f"{side}s"]) for side in ("user", "item")})
    users, sequences = np.flatnonzero(np.diff(data.test.indptr)), Sequences.of(data.train)

    def work():
        lists = recommend(model, data, users, 20, sequences=sequences, history=0, seen=data.train)
        hit, count = hits(lists, data.test, users), relevant(data.test, users)
        job.about |= {"ndcg": float(ndcg(hit, count, 20).mean()), "recall": float(recall(hit, count, 20).mean())}
        return len(users)

    job = Job(work, **versions())
    return job


def label(asked):
    """A teacher's best 100 of the whole catalogue, as its label store is filled."""
    from recdistill.topk import exact_topk

    data, _ = opened(asked)
    given = np.load(asked["vectors"])
    rows = np.arange(min(asked["users"], data.num_users))

    def work():
        exact_topk(given["users"], given["items"], 100, seen=data.train, rows=rows, precision="bf16")
        return len(rows)

    given = {side: given[side] for side in ("users", "items")}
    return Job(work, **versions())


if __name__ == "__main__":
    serve({"train": train, "evaluate": evaluate, "label": label})
