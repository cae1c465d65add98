"""A student put beside a narrower one: the first numbers of its vectors are judged as a student of their own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines.distill import path
from recdistill.config import load_config
from recdistill.evaluate import merge
from recdistill.metrics import hits, ndcg, relevant
from recdistill.stages import Data, Run
from recdistill.world import world

CONFIG = """\
name: grown
log: {path: log.parquet, user: user, item: item, min_user: 3, min_item: 1}
split: {kind: user_random, valid_fraction: 0.15, test_fraction: 0.15}
teacher:
  model: {kind: mf, dim: 16, temperature: 0.2}
  train: {epochs: 4, batch: 200, negatives: 40, patience: 0}
labels: {depth: 40}
student:
  model: {kind: mf, dim: 8, space: dot, temperature: 1.0}
  train: {epochs: 8, batch: 300, negatives: 30, list_users: 20, patience: 0}
  stages: [{epochs: 4, width: 4}, {moves: [users, items]}]
distill:
  - {kind: list, weight: 1.0, draw: [{kind: top, k: 10}], loss: {kind: softmax_kl}}
index: {factory: auto, k: [10]}
report: {k: [10], metrics: [ndcg], bootstrap: 20}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run up to its evaluation, by stage."""
    home, rng = tmp_path_factory.mktemp("grown"), np.random.default_rng(0)
    rows = [(u, u % 4 + 4 * int(i)) for u in range(60) for i in rng.permutation(20)[:9]]
    pl.DataFrame(rows, schema=["user", "item"], orient="row").write_parquet(home / "log.parquet")
    (home / "run.yaml").write_text(CONFIG)
    config = load_config(home / "run.yaml", [f"log.path={home / 'log.parquet'}"])
    found = {}
    with warnings.catch_warnings(), world(device="cpu", threads=1) as joined:
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        for step in path(config, Run(store=home / "store", world=joined)):
            found[step.name] = step.artifacts
            if step.name == "evaluate":
                break
    return found


def test_the_first_numbers_are_a_row_of_the_report_with_the_quality_of_their_own_scores(made) -> None:
    quality = json.loads((made["evaluate"][0].path / "quality.json").read_text())["quality"]
    said = {row["model"]: row["value"] for row in quality if row["metric"] == "ndcg"}
    data = Data(made["ingest"][0], made["split"][0]).read()
    seen = merge(data.train, data.valid)
    users = np.flatnonzero(np.diff(data.test.indptr))
    for model, width in (("student[:4]", 4), ("student", 8)):
        left, right = (np.load(made["student"][0].path / f"{side}.npy")[:, :width] for side in ("users", "items"))
        scores = left.astype(np.float64) @ right.T
        scores[seen.users(), seen.items] = -np.inf
        lists = np.argsort(-scores[users], axis=1, kind="stable")[:, :10]
        expected = ndcg(hits(lists, data.test, users), relevant(data.test, users), 10).mean()
        assert said[model] == pytest.approx(expected, abs=1e-6)
    assert said["student"] != said["student[:4]"]


def test_one_index_answers_by_the_sum_of_both_scores(made) -> None:
    import faiss

    at = Path(made["index"][0].path)
    users, items = (np.load(made["student"][0].path / f"{side}.npy") for side in ("users", "items"))
    scores, found = faiss.read_index(str(at / "flat.faiss")).search(users, 10)
    parts = [users[:, a:b].astype(np.float64) @ items[:, a:b].T for a, b in ((0, 4), (4, 8))]
    total = parts[0] + parts[1]
    np.testing.assert_allclose(np.take_along_axis(total, found, axis=1), scores, atol=1e-4)
    np.testing.assert_allclose(scores, -np.sort(-total, axis=1)[:, :10], atol=1e-4)
