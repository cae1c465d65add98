"""A real `mlflow models serve` process answers with exactly the ids that the index gives."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from recdistill import registry, tracking
from recdistill.ann import search

START = 180  # seconds a server may take on a busy machine
MLFLOW = Path(sys.executable).parent / "mlflow"


@pytest.fixture(scope="module")
def bundle(make_bundle, tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("served"), seed=4, data_end="2026-01-01")


@pytest.fixture(scope="module")
def uri(bundle, new_registry):
    folder = bundle.parent / "mlflow"
    uri = new_registry(folder)
    dataset: tracking.DatasetFacts = {"name": "d", "digest": "0" * 32, "rows": 1}
    run = tracking.record(uri, "serve", "r", [], dataset, folder / "none")
    registry.promote(uri, "m", registry.register(uri, "m", bundle, run, {}), gates=[])
    return uri


@pytest.fixture(scope="module")
def ask(uri, bundle):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [MLFLOW, "models", "serve", "-m", "models:/m@champion", "--env-manager", "local", "-h", "127.0.0.1"]
    log = (bundle.parent / "server.log").open("wb")
    server = subprocess.Popen(
        [*map(str, command), "-p", str(port)],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "PATH": f"{MLFLOW.parent}:{os.environ['PATH']}"},
        cwd=bundle.parent,  # not where the package lies: the model carries all it needs
        stdout=log,
        stderr=log,
        start_new_session=True,
    )

    def post(body, path="/invocations"):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text.strip() else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    try:
        wait_until_up(server, post, bundle.parent / "server.log")
        yield post
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its own session: the server and its workers, nothing else
        server.wait()
        log.close()


def wait_until_up(server, post, log):
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if post(None, "/ping")[0] == 200:
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail(log.read_text()[-3000:])


def expected(bundle, user, items, k):
    """What the index gives for a user row or None and history item rows, the query worked out here."""
    arrays = load_file(bundle / "query.safetensors")
    own = np.zeros(8, np.float32) if user is None else arrays["user"][user]
    x = np.concatenate([own, arrays["history"][items].mean(axis=0)])
    q = arrays["layers.0.weight"] @ x + arrays["layers.0.bias"]
    q /= np.linalg.norm(q)
    params = json.loads((bundle / "index.json").read_text())["params"]
    scores, rows = search(bundle / "index.faiss", q[None], k, params)
    return [f"i{row}" for row in rows[0] if row >= 0], scores[0][rows[0] >= 0].tolist()


def kept(bundle, user):
    return pl.read_parquet(bundle / "histories.parquet")["history"][user].to_list()


def predictions(ask, records, **params):
    status, answer = ask({"dataframe_records": records, "params": params})
    assert status == 200, answer
    return answer["predictions"]


def test_known_users_get_what_the_index_gives(ask, bundle):
    answers = predictions(ask, [{"user_id": 1000 + u} for u in range(50)], k=10)
    for user, answer in enumerate(answers):
        ids, scores = expected(bundle, user, kept(bundle, user), 10)
        assert answer["item_ids"] == ids
        assert answer["scores"] == pytest.approx(scores, abs=1e-5)
        assert answer["source"] == "model"


def test_a_given_history_replaces_the_kept_one(ask, bundle):
    (answer,) = predictions(ask, [{"user_id": 1003, "history": ["i7", "i250"]}], k=5)
    assert answer["item_ids"] == expected(bundle, 3, [7, 250], 5)[0]


def test_an_unknown_user_is_answered_by_history(ask, bundle):
    (answer,) = predictions(ask, [{"user_id": 5, "history": ["i7", "unheard of", "i9"]}], k=5)
    assert (answer["item_ids"], answer["source"]) == (expected(bundle, None, [7, 9], 5)[0], "history")


def test_an_unknown_user_without_history_gets_what_is_popular(ask, bundle):
    (answer,) = predictions(ask, [{"user_id": 5}], k=4)
    assert answer["item_ids"] == [f"i{row}" for row in np.load(bundle / "popular.npy")[:4]]
    assert answer["source"] == "popular"


def test_k_is_ten_by_default_and_clipped_to_the_catalogue(ask, bundle):
    (answer,) = predictions(ask, [{"user_id": 1000}])
    assert answer["item_ids"] == expected(bundle, 0, kept(bundle, 0), 10)[0]
    (answer,) = predictions(ask, [{"user_id": 1000}], k=1000)
    assert answer["item_ids"] == expected(bundle, 0, kept(bundle, 0), 300)[0]
    assert sorted(answer["item_ids"]) == sorted(f"i{row}" for row in range(300))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"dataframe_records": [{"user_id": 1000}], "params": {"k": 0}}, "k is 0"),
        ({"dataframe_records": [{"user_id": 1000}], "params": {"k": "many"}}, "k"),
        ({"dataframe_records": [{"user_id": None}]}, "user_id"),
        ({"dataframe_records": [{"user_id": "Ann"}]}, "user_id"),
        ({"dataframe_records": [{"user_id": 1000, "history": "i1"}]}, "history"),
        ({"dataframe_records": [{"user": 1000}]}, "user_id"),
        ({"dataframe_records": []}, "user_id"),
        ({"rows": []}, "dataframe_records"),
    ],
)
def test_malformed_requests_are_told_what_is_wrong(ask, body, said):
    status, text = ask(body)
    assert 400 <= status < 500
    assert said in text
    assert "recommend(" not in text  # no stack trace of ours


def test_what_a_history_holds_is_left_out_where_the_request_says_so(ask, bundle):
    given = [{"user_id": 1003}], [{"user_id": 1003, "history": ["i7", "i9"]}]
    for seen, asked in zip((kept(bundle, 3), [7, 9]), given, strict=True):
        (before,), (after,) = predictions(ask, asked, k=300), predictions(ask, asked, k=300, exclude_seen=True)
        gone = {f"i{row}" for row in seen}
        assert after["item_ids"] == [item for item in before["item_ids"] if item not in gone]
        assert len(after["item_ids"]) == 300 - len(gone)
