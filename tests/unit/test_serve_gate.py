"""The gate where it serves: the lists it reads, what it decides, and that nothing else of the answer changes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill import serve
from recdistill.ann import IndexSpec, build_index
from recdistill.bundle import gated_bundle, model_code, open_bundle, write_bundle
from recdistill.errors import ArtifactError
from recdistill.serve_gate import FEATURES, joined, list_features, unseen_lists

USERS, ITEMS, DEPTH, SCALE = 30, 40, 6, 4.0
OFFSETS = np.concatenate([[0], np.cumsum(np.arange(USERS) % 9)])  # some took nothing, some more than the depth
GATE = {
    "features": list(FEATURES),
    "mean": [1.5, 0.2, 1.0, 2.0],
    "spread": [0.2, 0.5, 0.7, 0.4],
    "weights": [0.3, -0.2, 0.1, 0.2],
    "shift": 0.05,
    "threshold": 0.1,
    "depth": DEPTH,
    "scale": SCALE,
}


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


VECTORS, QUERIES = (random(n).standard_normal((rows, 4)).astype(np.float32) for n, rows in enumerate((ITEMS, USERS)))
TAKEN = np.concatenate([random(u).choice(ITEMS, n, replace=False) for u, n in enumerate(np.diff(OFFSETS))])
POPULARITY = np.log1p(random(5).integers(0, 50, ITEMS)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gate")
    build_index(VECTORS, QUERIES, IndexSpec(factory="Flat", k=(2,)), out / "index")
    write_bundle(
        out / "bundle",
        query={"user": QUERIES},
        query_meta={"kind": "mf", "space": "dot", "dim": 4, "num_users": USERS, "num_items": ITEMS},
        user_ids=pl.Series(range(100, 100 + USERS)),
        item_ids=pl.Series([f"i{n}" for n in range(ITEMS)]),
        histories=None,
        popular=np.arange(ITEMS),
        index_dir=out / "index",
        facts={"fingerprint": "f", "data_end": "2026-01-01"},
    )
    return out / "bundle"


def gated(plain: Path, out: Path, **changes: object) -> Path:
    given = {"gate": GATE | changes, "popularity": POPULARITY, "offsets": OFFSETS, "items": TAKEN}
    gated_bundle(plain, out, fingerprint="g", **given)
    return out


def by_hand(query: np.ndarray, taken: np.ndarray) -> float:
    """What the gate expects of one user, worked out here over the whole catalogue."""
    scores = VECTORS @ query
    scores[taken] = -np.inf
    best = np.argsort(-scores)[:DEPTH]
    logits = SCALE * scores[best].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum()
    found = [-(p * np.log(p)).sum(), logits[0] - logits[1], math.log1p(len(taken)), POPULARITY[best].mean()]
    sides = (np.array(GATE[name]) for name in ("mean", "spread", "weights"))
    mean, spread, weights = sides
    return float(((np.array(found) - mean) / spread * weights).sum() + GATE["shift"])


def kept(user: int) -> np.ndarray:
    return TAKEN[OFFSETS[user] : OFFSETS[user + 1]]


def test_a_user_is_asked_about_where_the_gate_by_hand_expects_enough(plain: Path, tmp_path: Path) -> None:
    expected = np.array([by_hand(QUERIES[user], kept(user)) for user in range(USERS)])
    bundle = open_bundle(gated(plain, tmp_path / "b", threshold=float(np.sort(expected)[-8:-6].mean())))
    index = serve.read_index(bundle.path / "index.faiss")
    asked = serve.deferred(bundle, index, [(100 + user, None) for user in range(USERS)])
    assert sum(asked) == 7
    assert bundle.deferral is not None
    assert asked == (expected > bundle.deferral.threshold).tolist()
    alone = [serve.deferred(bundle, index, [(100 + user, None)])[0] for user in range(USERS)]
    assert alone == asked


def test_a_given_history_is_what_the_user_took_and_a_stranger_is_nobody_to_ask_about(
    plain: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(gated(plain, tmp_path / "b", threshold=by_hand(QUERIES[3], np.array([1, 7])) - 1e-3))
    index = serve.read_index(bundle.path / "index.faiss")
    assert serve.deferred(bundle, index, [(103, ["i1", "i7", "nobody knows"]), (5, ["i1"]), (5, None)]) == [
        True,
        False,
        False,
    ]


def test_the_lists_are_the_best_that_were_not_taken() -> None:
    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(-(queries @ VECTORS.T), axis=1)[:, :k]
        return np.take_along_axis(queries @ VECTORS.T, order, axis=1), order

    histories = [*(kept(user) for user in range(USERS - 1)), np.arange(2, ITEMS)]  # the last took all but two
    scores, items = unseen_lists(search, QUERIES, *joined(histories), DEPTH, ITEMS)
    for user, taken in enumerate(histories):
        order = [item for item in np.argsort(-(VECTORS @ QUERIES[user])) if item not in taken][:DEPTH]
        assert items[user].tolist() == order + [-1] * (DEPTH - len(order))
        np.testing.assert_allclose(scores[user, : len(order)], (VECTORS @ QUERIES[user])[order], rtol=1e-5)
    assert np.isneginf(scores[items < 0]).all()
    assert not joined([])[1].size


def test_scale_makes_the_scores_logits() -> None:
    scores, items = -np.sort(-random().standard_normal((5, 6))), np.tile(np.arange(6), (5, 1))
    given = items, np.arange(5), np.ones(6)
    np.testing.assert_allclose(list_features(scores, *given, scale=3.0), list_features(3 * scores, *given))
    assert (list_features(scores, *given, scale=3.0)[:, 0] < list_features(scores, *given)[:, 0]).all()


def test_a_gate_changes_no_answer_and_a_bundle_without_one_has_none(plain: Path, tmp_path: Path) -> None:
    with_gate, without = open_bundle(gated(plain, tmp_path / "b")), open_bundle(plain)
    index = serve.read_index(plain / "index.faiss")
    asked = [(100, None), (129, ["i3"]), (5, None)]
    assert serve.recommend(with_gate, index, asked, 7) == serve.recommend(without, index, asked, 7)
    assert without.deferral is None
    assert serve.deferred(without, index, asked) == [False] * 3


def test_the_manifest_names_the_gate_and_what_it_was_made_from(plain: Path, tmp_path: Path) -> None:
    one, other = (gated(plain, tmp_path / name) for name in "ab")
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()
    manifest, before = (json.loads((path / "manifest.json").read_text()) for path in (one, plain))
    assert set(manifest["files"]) == set(before["files"]) | {"gate.json", "gate.npy", "histories.parquet"}
    assert (manifest["fingerprint"], manifest["data_end"]) == ("g", before["data_end"])
    assert pl.read_parquet(one / "histories.parquet")["history"].to_list() == [kept(u).tolist() for u in range(USERS)]


@pytest.mark.parametrize("name", ["gate.json", "gate.npy"])
def test_a_changed_or_missing_gate_is_refused(plain: Path, tmp_path: Path, name: str) -> None:
    path = gated(plain, tmp_path / "b") / name
    data = path.read_bytes()
    path.write_bytes(data.replace(b"0.1", b"0.2") if name == "gate.json" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=f"{name}: contents differ"):
        open_bundle(path.parent)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{name}: the file is missing"):
        open_bundle(path.parent)


def test_a_gate_of_other_features_is_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gate\.json reads \['height'\]"):
        open_bundle(gated(plain, tmp_path / "b", features=["height"]))


def test_the_one_file_that_serves_needs_nothing_of_this_package(plain: Path, tmp_path: Path) -> None:
    """It is run under a name of its own, as MLflow does, which stands aside here; recdistill cannot be imported."""
    bundle = gated(plain, tmp_path / "b")
    code = model_code(tmp_path)
    program = f"""
import importlib.util, sys, types
sys.modules["recdistill"] = None
models = types.SimpleNamespace(set_model=lambda model: None)
sys.modules["mlflow"] = types.SimpleNamespace(pyfunc=types.SimpleNamespace(PythonModel=object), models=models)
import pandas as pd
spec = importlib.util.spec_from_file_location("served", {str(code)!r})
served = importlib.util.module_from_spec(spec)
spec.loader.exec_module(served)
for path in ({str(plain)!r}, {str(bundle)!r}):
    model = served.Recommender()
    model.load_context(types.SimpleNamespace(artifacts={{"bundle": path}}))
    frame = model.predict(model_input=pd.DataFrame({{"user_id": list(range(100, {100 + USERS}))}}), params={{"k": 2}})
    print(frame.to_json(orient="records"))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = (json.loads(line) for line in done.stdout.splitlines())
    opened = open_bundle(bundle)
    asked = serve.deferred(opened, serve.read_index(bundle / "index.faiss"), [(100 + u, None) for u in range(USERS)])
    assert {name for row in before for name in row} == {"item_ids", "scores", "source"}
    assert [row.pop("defer") for row in after] == asked
    assert after == before
    assert 0 < sum(asked) < USERS


def test_searching_is_as_wide_as_the_user_needs_and_no_wider_for_others() -> None:
    widths: list[int] = []

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        widths.append(k)
        return np.zeros((len(queries), k), np.float32), np.tile(np.arange(k), (len(queries), 1))

    search_all = partial(unseen_lists, search, depth=3, num_items=20)
    _, items = search_all(QUERIES[:3], at=np.array([1] * 5 + [2] * 18), taken=np.array([*range(5), *range(18)]))
    assert widths == [4, 8, 20]
    assert items.tolist() == [[0, 1, 2], [5, 6, 7], [18, 19, -1]]
