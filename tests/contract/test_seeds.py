"""Every paper's preset trains on a small log, teacher and labels included; no code knows one by its name."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines.teach import teach
from pipelines.yesterday import needed
from recdistill import stages
from recdistill.config import load_config
from recdistill.methods import Method, load_method
from recdistill.models.spec import Fitted
from recdistill.types import quiet
from recdistill.world import world

ROOT = Path(__file__).parents[2]
PRESETS = {path.stem: path for path in sorted((ROOT / "configs" / "methods" / "seeds").glob("*.yaml"))}
CONFIG = """\
name: toy
log: {path: log.parquet, user: user, item: item, min_user: 3, min_item: 1}
split: {kind: user_random, valid_fraction: 0.15, test_fraction: 0.15}
teacher:
  model: {kind: mf, dim: 16, temperature: 0.2}
  train: {epochs: 2, batch: 200, negatives: 40, evaluate_every: 1, patience: 0}
labels: {depth: 150}
student:
  model: {kind: mf, dim: 8, temperature: 0.2}
  train: {epochs: 16, batch: 2000, negatives: 30, list_users: 20, evaluate_every: 16, patience: 0}
distill:
  - {kind: list, weight: 1.0, draw: [{kind: top, k: 10}], loss: {kind: softmax_kl}}
report: {k: [10]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log of 50 users in four groups, each of which takes items of its own."""
    made, rng = tmp_path_factory.mktemp("toy"), np.random.default_rng(0)
    rows = [(u, u % 4 + 4 * int(i)) for u in range(50) for i in rng.permutation(50)[:15]]
    pl.DataFrame(rows, schema=["user", "item"], orient="row").write_parquet(made / "log.parquet")
    (made / "run.yaml").write_text(CONFIG)
    return made


@pytest.mark.parametrize("name", PRESETS)
def test_it_trains_to_finite_losses_of_all_its_terms(folder, name) -> None:
    config = load_config(folder / "run.yaml", [f"log.path={folder / 'log.parquet'}"], PRESETS[name])
    with warnings.catch_warnings(), world(device="cpu", threads=1) as joined:
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        run = stages.Run(store=folder / "store", world=joined, log=quiet)
        data = stages.split(stages.ingest(config.log, config.features, run), config.split, run)
        student = config.student
        plain = Fitted(student.model, stages.fit(data, student.model, student.train, config.exec, run, name="scratch"))
        day = needed(config, data, run)
        teacher, _ = teach(config, data, plain, run, day)
        labels = stages.label(data, teacher, plain, config.labels, run)
        more = {"labels": labels, "terms": config.distill, "student": student, "yesterday": day}
        fit = stages.fit(data, student.model, student.train, config.exec, run, name=name, **more)
    [point] = json.loads((fit.path / "curve.json").read_text())
    values = {key: value for key, value in point.items() if key not in ("step", "valid")}
    kinds = [term.kind if term.kind == "gates" else term.loss.kind for term in config.distill]
    assert {f"{i}.{kind}" for i, kind in enumerate(kinds)} < set(values)
    assert np.isfinite(list(values.values())).all()
    vectors = np.load(fit.path / "users.npy")
    assert np.isfinite(vectors).all()
    assert vectors.std() > 0


@pytest.mark.parametrize("name", PRESETS)
def test_what_it_says_survives_writing_and_reading(name) -> None:
    method = load_method(PRESETS[name])
    assert Method.model_validate_json(method.model_dump_json()) == method


def test_no_code_knows_a_preset_by_its_name() -> None:
    sources = [*ROOT.glob("recdistill/**/*.py"), *ROOT.glob("pipelines/**/*.py")]
    numbers = re.compile(r"[\"'](?:[ab]\d\d|r0\d)[\"'-]")
    known = [path.name for path in sources if any(f'"{n}"' in path.read_text() for n in PRESETS)]
    assert known == []
    assert [path.name for path in sources if numbers.search(path.read_text())] == []
