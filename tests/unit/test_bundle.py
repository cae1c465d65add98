from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill import serve
from recdistill.ann import IndexSpec, build_index
from recdistill.bundle import encode, open_bundle, write_bundle
from recdistill.errors import ArtifactError, DataError

ROOT = Path(__file__).parents[2]
ITEMS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
USERS = np.array([[3, 4], [1, 0], [0, 2]], np.float32)
HISTORY = np.array([[1, 1], [3, 1], [0, 0], [5, 5]], np.float32)
FILES = {"query.safetensors", "query.json", "user_ids.parquet", "item_ids.parquet", "popular.npy", "index.faiss"}
NO_ITEMS = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("index")
    build_index(ITEMS, USERS, IndexSpec(factory="Flat", k=(2,)), out)
    return out


@pytest.fixture
def write(tmp_path, index_dir):
    def make(query=None, out=tmp_path / "bundle", **changes):
        meta = {"kind": "mf", "space": "dot", "dim": 2, "num_users": 3, "num_items": 4}
        meta |= changes.pop("meta", {})
        given = {
            "query_meta": meta,
            "user_ids": pl.Series([10, 20, 30]),
            "item_ids": pl.Series(["a", "b", "c", "d"]),
            "histories": None,
            "popular": np.array([2, 0, 1, 3]),
            "index_dir": index_dir,
            "facts": {"fingerprint": "f", "data_end": "2026-01-01"},
        }
        write_bundle(out, query=query or {"user": USERS}, **(given | changes))
        return out

    return make


def two_tower(**layers):
    return {"user": USERS, "history": HISTORY, **layers}


def test_mf_is_the_users_row(write):
    q = encode(open_bundle(write()), [2, 0], [NO_ITEMS] * 2)
    assert q.tolist() == [[0, 2], [3, 4]]


def test_cosine_has_length_one(write):
    q = encode(open_bundle(write(meta={"space": "cosine"})), [0], [NO_ITEMS])
    np.testing.assert_allclose(q, [[0.6, 0.8]], rtol=1e-6)


def test_two_tower_without_layers_adds_the_mean(write):
    bundle = open_bundle(write(two_tower(), meta={"kind": "two_tower"}))
    # Items 0 and 1 average to [2, 1]; an unknown user is zeros, and so is no history.
    q = encode(bundle, [1, -1, 1], [np.array([0, 1]), np.array([0, 1]), NO_ITEMS])
    assert q.tolist() == [[3, 1], [2, 1], [1, 0]]


def test_two_tower_layers_have_relu_between_but_not_after(write):
    first = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]], np.float32)  # [3,4] on (user, mean of history)
    second = np.array([[1, 1, 0], [0, 0, -2]], np.float32)
    query = two_tower(
        **{
            "layers.0.weight": first,
            "layers.0.bias": np.array([0.5, 0, 0], np.float32),
            "layers.1.weight": second,
            "layers.1.bias": np.array([0, 1], np.float32),
        }
    )
    bundle = open_bundle(write(query, meta={"kind": "two_tower"}))
    # x = (3, 4, 2, 1) -> (3.5, -2, 1) -> ReLU (3.5, 0, 1) -> (3.5, -2 + 1)
    assert encode(bundle, [0], [np.array([0, 1])]).tolist() == [[3.5, -1]]


def test_only_the_latest_items_are_averaged(write):
    bundle = open_bundle(write(two_tower(), meta={"kind": "two_tower", "history": 1}))
    assert encode(bundle, [-1], [np.array([3, 0])]).tolist() == [[1, 1]]


def test_requests_use_their_history_or_the_kept_one(write):
    kept = [np.array([3]), np.array([0, 1]), NO_ITEMS]
    bundle = open_bundle(write(two_tower(), meta={"kind": "two_tower"}, histories=kept))
    assert serve.default_history(bundle, 1).tolist() == [0, 1]
    assert serve.default_history(bundle, -1).tolist() == []
    index = serve.read_index(bundle.path / "index.faiss", bundle.params)
    asked = [(20, None), (20, ["c"]), (99, ["b", "nobody knows"]), (99, ["nobody knows"]), (99, None), (30, None)]
    answers = serve.recommend(bundle, index, asked, 2)
    # Queries: (1,0) + (2,1) = (3,1); (1,0) + (0,0); (3,1); none; none; (0,2) + nothing. Inner products by hand:
    assert [a.item_ids for a in answers] == [["a", "c"]] * 3 + [["c", "a"]] * 2 + [["b", "c"]]
    assert [a.source for a in answers] == ["model", "model", "history", "popular", "popular", "model"]
    assert answers[0].scores == pytest.approx([3, 2.6])
    assert answers[2].scores == pytest.approx([3, 2.6])
    assert answers[3].scores == [0, 0]


def test_mf_cannot_use_a_history(write):
    bundle = open_bundle(write())
    index = serve.read_index(bundle.path / "index.faiss")
    (answer,) = serve.recommend(bundle, index, [(99, ["a"])], 10)
    assert answer == (["c", "a", "b", "d"], [0.0] * 4, "popular")  # and 10 of 4 items are 4


def test_missing_answers_are_left_out(write):
    class Sparse:
        def search(self, *_):
            return np.array([[2.0, -np.inf]], np.float32), np.array([[1, -1]])

    (answer,) = serve.recommend(open_bundle(write()), Sparse(), [(10, None)], 2)
    assert answer == (["b"], [2.0], "model")


def test_equal_inputs_give_equal_bytes(write, tmp_path):
    kept = [np.array([3]), np.array([0, 1]), NO_ITEMS]
    a, b = (write(out=tmp_path / n, histories=kept) for n in "ab")
    assert (a / "manifest.json").read_bytes() == (b / "manifest.json").read_bytes()
    manifest = json.loads((a / "manifest.json").read_text())
    assert set(manifest["files"]) == FILES | {"index.json", "histories.parquet"}
    assert (manifest["format"], manifest["fingerprint"], manifest["data_end"]) == (1, "f", "2026-01-01")


@pytest.mark.parametrize("name", sorted(FILES | {"index.json"}))
def test_a_changed_or_missing_file_is_refused(name, write):
    path = write() / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name}: contents differ") as caught:
        open_bundle(path.parent)
    assert caught.value.exit_code == 5
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{name}: the file is missing"):
        open_bundle(path.parent)


def test_a_manifest_that_lies_is_refused(write, tmp_path):
    path = write()
    manifest = json.loads((path / "manifest.json").read_text())

    def rewritten(**changes):
        (path / "manifest.json").write_text(json.dumps(manifest | changes))
        return path

    with pytest.raises(ArtifactError, match="format 3"):
        open_bundle(rewritten(format=3))
    with pytest.raises(ArtifactError, match="does not name"):
        open_bundle(rewritten(files={}))
    with pytest.raises(ArtifactError, match="not the one that was registered"):
        open_bundle(rewritten(), manifest="0" * 64)
    (path / "extra.py").write_text("")
    with pytest.raises(ArtifactError, match=r"extra\.py"):
        open_bundle(path)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        open_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"meta": {"kind": "tree"}}, "kind is 'tree'"),
        ({"meta": {"dim": 3}}, "another dim"),
        ({"meta": {"num_items": 5}}, "counts other"),
        ({"user_ids": pl.Series([1, 1, 2])}, "not unique"),
        ({"item_ids": pl.Series(["a", "b", "c", None])}, "without null"),
        ({"popular": np.array([0, 1, 2])}, "popular"),
        ({"histories": [NO_ITEMS]}, "one list per user"),
        ({"query": {"user": USERS[:2]}}, "one row per user_id"),
    ],
)
def test_contradictory_parts_are_refused_and_leave_nothing(changes, said, write, tmp_path):
    with pytest.raises(DataError, match=said):
        write(**changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("columns", "k", "said"),
    [
        ({"user": [1]}, 1, "no column `user_id`"),
        ({"user_id": [1]}, 0, "k is 0"),
        ({"user_id": [1]}, 2.5, "k is 2.5"),
        ({"user_id": [1, None]}, 1, "row 1: user_id is null"),
        ({"user_id": ["x"]}, 1, "row 0: user_id is 'x'; it must be a whole number"),
        ({"user_id": [1.5]}, 1, "whole number"),
        ({"user_id": [1], "history": ["abc"]}, 1, "must be a list"),
        ({"user_id": [1], "history": [["a", None]]}, 1, "row 0: history is null"),
        ({"user_id": [1], "history": [[3]]}, 1, "must be text"),
    ],
)
def test_bad_requests_are_named(columns, k, said):
    import pandas as pd

    with pytest.raises(ValueError, match=said):
        serve.requests_of(pd.DataFrame({c: pd.Series(v, dtype=object) for c, v in columns.items()}), k, (1, "a"))


def test_good_requests_are_read():
    import pandas as pd

    frame = pd.DataFrame({"user_id": [1, 2, 3], "history": [["a"], None, np.array(["b"], object)]})
    assert serve.requests_of(frame, np.int64(3), (1, "a")) == [(1, ["a"]), (2, None), (3, ["b"])]


def test_reading_a_bundle_loads_neither_mlflow_nor_torch_nor_faiss(write):
    code = (
        "import sys, pathlib; from recdistill import serve; serve.open_bundle(pathlib.Path(sys.argv[1]));"
        "sys.exit(bool({'mlflow', 'torch', 'faiss'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(write())], cwd=ROOT, timeout=60, check=False).returncode == 0
