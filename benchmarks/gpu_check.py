"""Does a training on the GPU do what it does on the CPU: device placement, curves, NCCL, the planner, batches ahead.

    python benchmarks/gpu_check.py                 make gpu-check: one line, and exit 0, where there is no GPU
    python benchmarks/gpu_check.py --device cpu    the same lines on the CPU: what can be tried of them without a GPU

Needs torch, torchrec, numba, polars, pydantic, safetensors, scipy and what they stand on; none of MLflow, faiss and
cyclopts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")
logging.getLogger("torchrec").setLevel(logging.ERROR)

USERS, ITEMS, EACH, DEPTH = 400, 300, 24, 30
NEEDS = ("torch", "torchrec", "numba", "polars", "pydantic", "safetensors", "scipy", "yaml", "filelock")
CLOSE = 2e-2  # relative: sums in another order, carried from step to step, and atomic additions in any order


def dataset():
    """Return a log in which users of a cluster take items of it."""
    import polars as pl

    from recdistill.types import Dataset, Interactions

    rng = np.random.default_rng(0)
    own = (np.arange(ITEMS)[None] % 10 == np.arange(USERS)[:, None] % 10) * 3.0
    rows = np.argsort(-(own + rng.gumbel(size=(USERS, ITEMS))), axis=1)[:, :EACH]
    rows = rng.permuted(rows, axis=1)

    def csr(part):
        indptr = np.arange(len(part) + 1, dtype=np.int64) * part.shape[1]
        return Interactions(indptr=indptr, items=part.reshape(-1), times=np.arange(part.size, dtype=np.int64))

    parts = {"train": csr(rows[:, :-4]), "valid": csr(rows[:, -4:-2]), "test": csr(rows[:, -2:])}
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **parts)


def teaching():
    """Return the lists of a teacher that knows the clusters, and a term that compares them."""
    from recdistill.distill.spec import ListTermSpec
    from recdistill.distill.spec_draws import Ranked, Unseen
    from recdistill.distill.spec_lists import PlackettLuce
    from recdistill.teaching import Teaching
    from recdistill.types import Labels

    score = (np.arange(ITEMS)[None] % 10 == np.arange(USERS)[:, None] % 10) * 2.0
    score = (score + np.random.default_rng(1).normal(size=score.shape)).astype(np.float32)
    items = np.argsort(-score, axis=1)[:, :DEPTH].astype(np.int32)
    scores = np.take_along_axis(score, items, 1)
    nothing = np.zeros(USERS, np.float32)
    labels = Labels(items=(items,), scores=(scores,), residual=(nothing,), per_shard=USERS, facts={})
    term = ListTermSpec(weight=1.0, draw=(Ranked(k=10), Unseen(n=20)), loss=PlackettLuce())
    return Teaching(terms=[term], labels=labels)


def placed(model, batch, device: str) -> None:
    """Check that everything a step touches is where it computes."""
    import torch

    from recdistill.data.prefetch import mapped

    kind = torch.device(device).type
    for name, value in [*model.module.named_parameters(), *model.module.named_buffers()]:
        assert value.device.type == kind, f"{name} is on {value.device}"

    def on(tensor) -> None:
        assert tensor.device.type == kind, f"a tensor of the batch, {tuple(tensor.shape)}, is on {tensor.device}"

    mapped(batch, on)


def trained(spec, settings, device: str, prefetch: int, taught, data) -> list[dict]:
    """Return the curve of a training on `device`, after a look at where its first step's tensors are."""
    from recdistill import fit
    from recdistill.train import train
    from recdistill.types import quiet
    from recdistill.world import world

    def watched(model, batch, at, **rest):
        placed(model, batch(at.step), device)
        return train(model, batch, at, **rest)

    fit.train = watched
    try:
        with tempfile.TemporaryDirectory() as folder, world(device=device) as joined:
            how = {"name": "check", "world": joined, "log": quiet, "teaching": taught, "prefetch": prefetch}
            fit.fit(data, spec, settings, Path(folder), **how)
            return json.loads((Path(folder) / "curve.json").read_text())
    finally:
        fit.train = train


def apart(ours: list[dict], theirs: list[dict]) -> float:
    """Return the largest relative difference of the losses of two curves."""
    pairs = [(a[k], b[k]) for a, b in zip(ours, theirs, strict=True) for k in a if k not in ("step", "valid")]
    return max(abs(a - b) / max(abs(b), 1e-6) for a, b in pairs)


def curves(device: str) -> bool:
    from recdistill.models.spec import LightGCNSpec, MFSpec, RankerSpec, SequenceSpec, TrainSpec, TwoTowerSpec

    settings = TrainSpec(epochs=3, batch=512, negatives=64, lr=0.05, list_users=64)
    ranks = settings.model_copy(update={"negatives": 4})
    data, taught, good = dataset(), teaching(), True
    models = {
        "mf, distilled": (MFSpec(dim=16), settings, taught),
        "two_tower, distilled": (TwoTowerSpec(dim=16, history=10, id_dropout=0.0), settings, taught),
        "lightgcn": (LightGCNSpec(dim=16, layers=2), settings, None),
        "sequence": (SequenceSpec(dim=16, history=10, item_dropout=0.0), settings, None),
        "ranker": (RankerSpec(dim=16, heads=2, cross_layers=1, hidden=(32,), history=10), ranks, None),
    }
    for name, (spec, train, who) in models.items():
        plain = trained(spec, train, "cpu", 0, who, data)
        for prefetch in (0, 2):
            found = apart(trained(spec, train, device, prefetch, who, data), plain)
            good &= found < CLOSE
            said = "ok" if found < CLOSE else "APART"
            print(f"{said:6} {name}, {prefetch} batches ahead: losses within {found:.1e} of the CPU's")
    return good


def nccl(device: str) -> bool:
    """A group of one sums a tensor on the device and one on the CPU."""
    import torch
    import torch.distributed as dist

    from recdistill.world import backend

    dist.init_process_group(backend(device), store=dist.HashStore(), rank=0, world_size=1)
    try:
        for place in {device, "cpu"}:
            value = torch.ones(3, device=place)
            dist.all_reduce(value)
            assert value.tolist() == [1.0, 1.0, 1.0]
    finally:
        dist.destroy_process_group()
    print(f"ok     a process group of {backend(device)}")
    return True


def planner(device: str) -> bool:
    """TorchRec's planner finds a place for two tables, one larger than a quarter of the memory."""
    import torch
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology

    cap = torch.cuda.get_device_properties(0).total_memory if device != "cpu" else 2**34
    rows = cap // 4 // (64 * 4)
    tables = [
        EmbeddingBagConfig(name=name, embedding_dim=64, num_embeddings=many, feature_names=[name])
        for name, many in (("user", rows), ("item", 1000))
    ]
    ebc = EmbeddingBagCollection(tables=tables, device=torch.device("meta"))
    topology = Topology(world_size=1, compute_device=torch.device(device).type, hbm_cap=cap, ddr_cap=2**36)
    plan = EmbeddingShardingPlanner(topology=topology).plan(ebc, [EmbeddingBagCollectionSharder()])
    found = {name: (p.sharding_type, p.compute_kernel) for name, p in next(iter(plan.plan.values())).items()}
    print(f"ok     the planner's choice: {found}")
    return set(found) == {"user", "item"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    device = parser.parse_args().device
    if lacking := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        print(f"cannot run here: {', '.join(lacking)} not installed")
        return 1
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        print("no GPU here: skipped")
        return 0
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name(0)
    print(f"{name}, torch {torch.__version__}")
    good = [nccl(device), planner(device), curves(device)]
    print("all is well" if all(good) else "the GPU does not do what the CPU does")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
