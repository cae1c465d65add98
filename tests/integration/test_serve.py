"""A real `recdistill serve` process answers with exactly the ids that the index gives, or with a sentence."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import time
from threading import Event, Thread

import numpy as np
import polars as pl
import pytest
from asgi import ask as ask_app
from malformed import OFF, PARQUET, RAW
from safetensors.numpy import load_file
from serving import Server

from recdistill import registry, serve, tracking
from recdistill.ann import search
from recdistill.bundle import open_bundle
from recdistill.scoring_app import scoring_app

USERS, K, WAIT = 50, 10, 120.0


@pytest.fixture(scope="module")
def bundles(make_bundle, tmp_path_factory):
    """The champion, version 1, and the next one, version 2."""
    folder = tmp_path_factory.mktemp("served")
    return {n: make_bundle(folder / f"b{n}", seed=3 + n, data_end=f"2026-01-0{n}") for n in (1, 2)}


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles[1]


@pytest.fixture(scope="module")
def uri(bundles, new_registry):
    folder = bundles[1].parents[1] / "mlflow"
    uri = new_registry(folder)
    for n, bundle in bundles.items():
        dataset: tracking.DatasetFacts = {"name": "d", "digest": "0" * 32, "rows": 1}
        run = tracking.record(uri, "serve", "r", [], dataset, folder / "none")
        assert registry.register(uri, "m", bundle, run, {}) == n
    registry.promote(uri, "m", 1, gates=[])
    return uri


@pytest.fixture(scope="module")
def server(uri, bundle):
    with Server(["m@champion", "--mlflow", uri, "--follow", "2"], bundle.parent) as server:
        yield server


@pytest.fixture(scope="module")
def ask(server):
    return server.ask


@pytest.fixture(scope="module")
def plain(uri):
    """MLflow's own app over the model as the registry holds it: what `mlflow models serve` runs."""
    app = scoring_app(registry.fetch(uri, "m", 1).parent.parent)
    return lambda body: ask_app(app, json.dumps(body).encode())


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


@pytest.mark.parametrize(("body", "said"), OFF)
def test_malformed_requests_are_told_what_is_wrong(ask, plain, body, said):
    status, text = ask(body)
    assert status == 400
    message = json.loads(text)["message"]
    assert said in message
    assert len(message) < 500
    assert "\n" not in message
    assert predictions(ask, [{"user_id": 1000}], k=2)[0]["source"] == "model"  # and the next one is answered
    behind = plain(body)
    assert behind.status == 400
    assert said in behind.text.replace("\\", "")
    assert "recommend(" not in behind.text  # no stack trace of ours


@pytest.mark.parametrize(("data", "media", "expected", "said"), RAW, ids=range(len(RAW)))
def test_what_is_no_request_is_told_what_is_wrong(server, ask, data, media, expected, said):
    status, text = server.send(data, media)
    assert status == expected
    message = json.loads(text)["message"]
    assert said in message
    assert "Traceback" not in text
    assert len(text) < 1000
    assert predictions(ask, [{"user_id": 1000}], k=2)[0]["source"] == "model"


def test_one_who_hangs_up_in_the_middle_is_forgotten(server, ask):
    with socket.create_connection(server.address) as line:
        line.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert predictions(ask, [{"user_id": 1000}], k=2)[0]["source"] == "model"


def test_ids_beyond_64_bits_and_of_nobody_are_unknown(ask, bundle):
    popular = [f"i{row}" for row in np.load(bundle / "popular.npy")[:2]]
    for user in (-1, 2**63, 10**30):
        (answer,) = predictions(ask, [{"user_id": user}], k=2)
        assert (answer["item_ids"], answer["source"]) == (popular, "popular")
    (answer,) = predictions(ask, [{"user_id": 1000, "history": ["\ud800", "", "i7"]}], k=5)
    assert answer["item_ids"] == expected(bundle, 0, [7], 5)[0]


def test_k_beyond_any_catalogue_is_the_catalogue(ask):
    (answer,) = predictions(ask, [{"user_id": 1000}], k=10**30)
    assert len(answer["item_ids"]) == 300


def test_rows_with_and_without_a_history_go_together(ask, bundle):
    asked = [{"user_id": 1003, "history": ["i7"]}, {"user_id": 1004}, {"user_id": 1005, "history": None}]
    found = [answer["item_ids"] for answer in predictions(ask, asked, k=5)]
    assert found == [expected(bundle, u, h, 5)[0] for u, h in ((3, [7]), (4, kept(bundle, 4)), (5, kept(bundle, 5)))]


@pytest.mark.parametrize("table", ["inputs", "instances"])
def test_every_table_that_mlflow_takes_is_answered_alike(ask, table):
    status, answer = ask({table: [{"user_id": 1000}, {"user_id": 1001}], "params": {"k": 5}})
    assert status == 200
    by_records = predictions(ask, [{"user_id": 1000}, {"user_id": 1001}], k=5)
    assert [a["item_ids"] for a in answer["predictions"]] == [a["item_ids"] for a in by_records]


def test_a_table_of_parquet_is_answered_too(server, bundle):
    frame = pl.DataFrame({"user_id": [1003, 1004], "history": [["i7"], None]})
    status, text = server.send(frame.write_parquet(data := io.BytesIO()) or data.getvalue(), PARQUET)
    assert status == 200, text
    found = [answer["item_ids"] for answer in json.loads(text)["predictions"]]
    assert found == [expected(bundle, 3, [7], 10)[0], expected(bundle, 4, kept(bundle, 4), 10)[0]]


def test_each_answer_says_which_version_gave_it(server, uri):
    line = http.client.HTTPConnection(*server.address, timeout=30)
    line.request("GET", "/model")
    which = json.loads(line.getresponse().read())
    assert (which["model"], which["version"], which["alias"], which["gate"]) == ("m", 1, "champion", "passed")
    assert which["manifest_sha256"] == registry.history(uri, "m")[1]["manifest_sha256"]
    for body in ('{"dataframe_records": [{"user_id": 1000}]}', "nonsense"):
        line.request("POST", "/invocations", body, {"content-type": "application/json"})
        answer = line.getresponse()
        answer.read()
        assert (answer.headers["recdistill-model"], answer.headers["recdistill-version"]) == ("m", "1")
    line.close()


def test_what_a_history_holds_is_left_out_where_the_request_says_so(ask, bundle):
    given = [{"user_id": 1003}], [{"user_id": 1003, "history": ["i7", "i9"]}]
    for seen, asked in zip((kept(bundle, 3), [7, 9]), given, strict=True):
        (before,), (after,) = predictions(ask, asked, k=300), predictions(ask, asked, k=300, exclude_seen=True)
        gone = {f"i{row}" for row in seen}
        assert after["item_ids"] == [item for item in before["item_ids"] if item not in gone]
        assert len(after["item_ids"]) == 300 - len(gone)


# The last test of this file: the server moves on, and ends.


def answers_of(bundle):
    """What each user is to be answered, by what the bundle gives in this process."""
    opened = open_bundle(bundle)
    index = serve.read_index(opened.path / "index.faiss", opened.params)
    users = [1000 + n for n in range(USERS)]
    return {user: serve.recommend(opened, index, [(user, None)], K)[0].item_ids for user in users}


def keep_asking(address, stop, seen):
    """Ask on one kept connection, as long as it is kept; a request that got no answer is noted, not repeated."""
    line, n = http.client.HTTPConnection(*address, timeout=60), 0
    while not stop.is_set():
        user = 1000 + n % USERS
        body = json.dumps({"dataframe_records": [{"user_id": user}], "params": {"k": K}})
        try:
            line.request("POST", "/invocations", body, {"content-type": "application/json"})
            answer = line.getresponse()
            said = json.loads(answer.read())
            seen.append((user, int(answer.headers["recdistill-version"]), said["predictions"][0]["item_ids"]))
        except (OSError, http.client.HTTPException, KeyError) as cause:
            seen.append((user, None, repr(cause)))
            line.close()
        n += 1
        time.sleep(0.03)
    line.close()


def test_serving_moves_to_the_next_champion_and_ends_with_every_answer_given(server, uri, bundles):
    expected = {n: answers_of(bundle) for n, bundle in bundles.items()}
    stop, seen = Event(), []
    client = Thread(target=keep_asking, args=(server.address, stop, seen))
    client.start()
    registry.promote(uri, "m", 2, gates=[])
    deadline = time.monotonic() + WAIT
    while "version 1 has ended" not in server.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    client.join(timeout=WAIT)
    versions = [version for _, version, _ in seen]
    assert None not in versions, [each for each in seen if each[1] is None]
    assert set(versions) == {1, 2}
    assert all(items == expected[version][user] for user, version, items in seen)
    # What takes a while is answered even if the server is told to end meanwhile.
    many = {"dataframe_records": [{"user_id": 1000 + n % USERS} for n in range(5000)], "params": {"k": K}}
    line = http.client.HTTPConnection(*server.address, timeout=WAIT)
    line.request("POST", "/invocations", json.dumps(many), {"content-type": "application/json"})
    assert server.ask(many | {"params": {"k": 1}})[0] == 200  # who came before was taken before
    os.kill(server.process.pid, signal.SIGTERM)
    rows = json.loads(line.getresponse().read())["predictions"]
    line.close()
    assert [row["item_ids"] for row in rows] == list(expected[2].values()) * (5000 // USERS)
    assert server.process.wait(timeout=WAIT) == 0
