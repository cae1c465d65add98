"""A student that may ask its teacher about some users: found beside what is done, registered, and served as judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recdistill import serve
from recdistill.bundle import open_bundle
from recdistill.data.dataset import read_dataset
from recdistill.evaluate import merge
from recdistill.gains.defer import Gate, list_features
from recdistill.report import read_report

SPEC = {"budget": 0.3, "k": 5, "depth": 20}


@pytest.fixture(scope="module")
def asks(tiny, done) -> SimpleNamespace:
    """The run of all tests again, with the section that lets the student ask."""
    config = tiny.config("asks", defer=SPEC, registry={"model": "tiny-asks"})
    process = tiny("run", config, "--json")
    assert process.returncode == 0, process.stdout + process.stderr
    outcome = json.loads(process.stdout)
    stages = {row["stage"]: row for row in outcome["stages"]}
    return SimpleNamespace(outcome=outcome, stages=stages, at=tiny.at("defer", stages["defer"]))


def test_nothing_that_was_made_before_is_made_again(done, asks) -> None:
    assert [row["stage"] for row in asks.outcome["stages"] if not row["hit"]] == ["defer"]
    for name, row in done.stages.items():
        assert asks.stages[name]["fingerprint"] == row["fingerprint"]


def test_the_report_says_what_asking_gains(tiny, done, asks) -> None:
    report = read_report((tiny.home / asks.outcome["report"]).parent)
    found = report["defer"]
    assert (found["budget"], found["k"], found["depth"], found["users"]) == (
        0.3,
        5,
        20,
        report["data"]["evaluated"]["users"],
    )
    assert found["rate"] <= 0.3
    assert found["curve"][0]["gain"] == 0
    assert found["curve"][-1]["gain"] == pytest.approx(found["cascade"]["value"])
    assert "Asking the teacher" in (tiny.home / asks.outcome["report"]).read_text()
    before = read_report((tiny.home / done.outcome["report"]).parent)
    assert "defer" not in before
    assert "defer" not in before["config"]


def test_the_served_column_is_the_offline_gate_of_the_same_users(tiny, done, asks) -> None:
    """Every test user is worked out here: scores of the whole catalogue, less what the user took."""
    dataset = read_dataset(tiny.at("ingest", done.stages["ingest"]), tiny.at("split", done.stages["split"]))
    bundle = open_bundle(asks.at / "bundle")
    index = serve.read_index(bundle.path / "index.faiss", bundle.params)
    users = np.flatnonzero(np.diff(dataset.test.indptr))
    requests = [(dataset.user_ids[int(user)], None) for user in users]
    served = np.array(serve.deferred(bundle, index, requests))
    assert served.mean() == json.loads((asks.at / "defer.json").read_text())["rate"]

    seen, said = merge(dataset.train, dataset.valid), json.loads((asks.at / "gate.json").read_text())
    rows, histories, _ = serve.known(bundle, requests)
    scores = serve.encode(bundle, rows, histories) @ index.reconstruct_n(0, index.ntotal).T
    taken = [seen.items[seen.indptr[user] : seen.indptr[user + 1]] for user in users]
    for row, items in enumerate(taken):
        scores[row, items] = -np.inf
    order = np.argsort(-scores, axis=1)[:, :20]
    popularity = np.log1p(np.bincount(dataset.train.items, minlength=dataset.num_items))
    best = np.take_along_axis(scores, order, axis=1) * said["scale"]
    features = list_features(best, order, np.array([len(items) for items in taken]), popularity)
    gate = Gate(*(np.array(said[name]) for name in ("mean", "spread", "weights")), said["shift"])
    np.testing.assert_array_equal(served, gate(features) > said["threshold"])
    assert 0 < served.sum() < len(served)


LOAD = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
users = json.loads(sys.argv[3])
model = mlflow.pyfunc.load_model(sys.argv[2])
print(model.predict(pd.DataFrame({"user_id": users, "history": [None] * len(users)}), params={"k": 3}).to_json())
print(json.dumps(model.metadata.signature.outputs.input_names()))
"""


def test_the_registered_model_answers_with_the_column(tiny, asks) -> None:
    bundle = open_bundle(asks.at / "bundle")
    users = list(bundle.user_row)[:50]
    uri, version = asks.outcome["release"]["uri"], asks.outcome["release"]["version"]
    model = f"models:/tiny-asks/{version}"
    command = [sys.executable, "-W", "ignore", "-c", LOAD, uri, model, json.dumps(users)]
    env = os.environ | {"PYTHONPATH": ""}
    loaded = subprocess.run(command, cwd=tiny.home, capture_output=True, text=True, env=env, check=False)
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    frame, names = (json.loads(line) for line in loaded.stdout.splitlines()[-2:])
    index = serve.read_index(Path(bundle.path) / "index.faiss", bundle.params)
    assert list(frame["defer"].values()) == serve.deferred(bundle, index, [(user, None) for user in users])
    assert names == ["item_ids", "scores", "source", "defer"]
