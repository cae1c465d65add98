"""A bundle to serve, and an empty MLflow registry copied from one template: migrating a new one takes seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill.ann import IndexSpec, build_index
from recdistill.bundle import write_bundle
from recdistill.tracking import MLFLOW_ENV, initialise

for name, value in (MLFLOW_ENV | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}).items():
    os.environ.setdefault(name, value)


@pytest.fixture(scope="session")
def make_bundle():
    """Write an untrained two-tower bundle, with its index beside it; another seed is another bundle."""

    def make(out, *, seed=0, data_end=None, users=50, items=300, dim=8):
        rng = np.random.default_rng(seed)
        vectors = rng.normal(size=(items, dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        query = {
            "user": rng.normal(size=(users, dim)).astype(np.float32),
            "history": rng.normal(size=(items, dim)).astype(np.float32),
            "layers.0.weight": rng.normal(size=(dim, 2 * dim)).astype(np.float32),
            "layers.0.bias": rng.normal(size=dim).astype(np.float32),
        }
        build_index(vectors, query["user"], IndexSpec(), out / "index")
        meta = {"kind": "two_tower", "space": "cosine", "dim": dim, "num_users": users, "num_items": items}
        write_bundle(
            out / "bundle",
            query=query,
            query_meta=meta,
            user_ids=pl.Series(range(1000, 1000 + users)),
            item_ids=pl.Series([f"i{n}" for n in range(items)]),
            histories=[rng.choice(items, 5, replace=False) for _ in range(users)],
            popular=rng.permutation(items),
            index_dir=out / "index",
            facts={"fingerprint": f"seed{seed}", "data_end": data_end},
        )
        return out / "bundle"

    return make


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    initialise(f"sqlite:///{folder / 'mlflow.db'}", folder)
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def new_registry(empty_registry):
    """Return a function that gives the URI of an empty registry in a folder."""

    def new(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(empty_registry, folder / "mlflow.db")
        return f"sqlite:///{folder / 'mlflow.db'}"

    return new


@pytest.fixture
def spawn():
    """Start Python code in processes of its own; none outlives the test."""
    started = []

    def start(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        started.append(subprocess.Popen(command, cwd=Path(__file__).parents[2]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def finish():
    """Wait for processes, bounded, and return their exit codes."""
    return lambda processes: [p.wait(timeout=120) for p in processes]
