"""A bundle whose digests are right and whose parts do not fit is refused when it is opened, not when it is asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from recdistill import serve
from recdistill.bundle import open_bundle, write_bundle
from recdistill.errors import ArtifactError

USERS, ITEMS = 3, 4


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    (tmp_path / "index/index.faiss").write_bytes(b"none")
    (tmp_path / "index/index.json").write_text('{"params": ""}')
    rng = np.random.default_rng(0)
    query = {"user": rng.normal(size=(USERS, 2)), "history": rng.normal(size=(ITEMS, 2))}
    write_bundle(
        tmp_path / "bundle",
        query={name: table.astype(np.float32) for name, table in query.items()},
        query_meta={"kind": "two_tower", "space": "dot", "dim": 2, "num_users": USERS, "num_items": ITEMS},
        user_ids=pl.Series([10, 20, 30]),
        item_ids=pl.Series(["a", "b", "c", "d"]),
        histories=[[0], [1, 2], []],
        popular=np.arange(ITEMS),
        index_dir=tmp_path / "index",
        facts={"fingerprint": "f"},
    )
    return tmp_path / "bundle"


def sealed(bundle: Path) -> Path:
    """Let the manifest name what the files hold now."""
    said = json.loads((bundle / "manifest.json").read_text())
    said["files"] = {name: serve.file_digest(bundle / name) for name in said["files"]}
    (bundle / "manifest.json").write_text(json.dumps(said))
    return bundle


def arrays(bundle: Path, **changes: object) -> None:
    file = bundle / "query.safetensors"
    save_file({**load_file(file), **changes}, file)


def json_file(name: str, **changes: object):
    def change(bundle: Path) -> None:
        (bundle / name).write_text(json.dumps(json.loads((bundle / name).read_text()) | changes))

    return change


def table(name: str, **columns: object):
    return lambda bundle: pl.DataFrame(columns, strict=False).write_parquet(bundle / name)


WRONG = {
    "a row too few": (lambda b: arrays(b, user=np.ones((2, 2), np.float32)), "user has not one row"),
    "a vector for a table": (lambda b: arrays(b, user=np.ones(3, np.float32)), "user has not one row"),
    "another width": (lambda b: arrays(b, history=np.ones((ITEMS, 5), np.float32)), "layers do not follow"),
    "a layer too narrow": (
        lambda b: arrays(
            b, **{"layers.0.weight": np.ones((2, 3), np.float32), "layers.0.bias": np.ones(2, np.float32)}
        ),
        "layers do not follow",
    ),
    "bytes without their scale": (lambda b: arrays(b, user=np.ones((3, 2), np.uint8)), "user has not one row"),
    "popular beyond the items": (lambda b: np.save(b / "popular.npy", np.array([0, 4])), "popular holds"),
    "popular below them": (lambda b: np.save(b / "popular.npy", np.array([0, -1])), "popular holds"),
    "a kind nobody has": (json_file("query.json", kind="lstm"), "no known kind"),
    "a history that is no count": (json_file("query.json", history=-3), "no count"),
    "params that are no text": (json_file("index.json", params=["nprobe=1"]), "params that are no text"),
    "histories of strangers": (table("histories.parquet", history=[[0], [9], []]), "histories do not fit"),
    "histories of fewer": (table("histories.parquet", history=[[0], [1]]), "histories do not fit"),
    "ids that are lists": (table("user_ids.parquet", user_id=[[1], [2], [3]]), "unhashable"),
    "ids that are null": (table("item_ids.parquet", item_id=["a", "b", "c", None]), "ids are neither"),
    "ids that repeat": (table("item_ids.parquet", item_id=["a", "b", "c", "c"]), "item_ids are not one of each"),
    "an array that ends early": (lambda b: (b / "popular.npy").write_bytes(b"\x93NUMPY\x01\x00"), "cannot be read"),
    "tables that are none": (lambda b: (b / "query.safetensors").write_bytes(b"\xff" * 9), "cannot be read"),
    "JSON without end": (lambda b: (b / "query.json").write_text("[" * 100_000), "nested too deeply"),
}


@pytest.mark.parametrize("name", WRONG)
def test_parts_that_do_not_fit_are_told_when_a_bundle_is_opened(bundle: Path, name: str) -> None:
    open_bundle(bundle)
    change, says = WRONG[name]
    change(bundle)
    with pytest.raises(ArtifactError, match=says) as caught:
        open_bundle(sealed(bundle))
    assert caught.value.fix


def test_a_link_is_no_file_of_a_bundle(bundle: Path, tmp_path: Path) -> None:
    (bundle / "popular.npy").rename(tmp_path / "popular.npy")
    (bundle / "popular.npy").symlink_to(tmp_path / "popular.npy")
    with pytest.raises(ArtifactError, match=r"popular\.npy: the file is missing"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a\0b", "", ".", "x" * 5000])
def test_a_manifest_names_files_of_the_bundle_alone(bundle: Path, name: str) -> None:
    said = json.loads((bundle / "manifest.json").read_text())
    said["files"][name] = "00"
    (bundle / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(ArtifactError, match="the file is missing"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "text", ["[]", "null", "{", "\xff", '{"files": [], "format": 1}', '{"files": {}, "format": 1e999}']
)
def test_a_manifest_that_is_none_is_told(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ArtifactError, match=r"manifest\.json: (cannot be read|does not name)"):
        open_bundle(bundle)
