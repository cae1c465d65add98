"""What serves is mapped from its files: the same to the bit, in one copy, and untouched by who replaces the files."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from recdistill import serve
from recdistill.ann import IndexSpec, build_index
from recdistill.bundle import open_bundle, write_bundle
from recdistill.serve_tables import pack, read_tables

ITEMS, USERS, DIM = 2000, 40, 16
KINDS = ["Flat", "SQ8", "SQfp16", "IVF16,Flat", "IVF16,SQ8", "HNSW16", "HNSW16_SQ8", "IVF16,PQ8x4fs,Refine(SQ8)"]


def unit(seed: int, rows: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def index(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    made = faiss.index_factory(DIM, request.param, faiss.METRIC_INNER_PRODUCT)
    made.train(unit(0, ITEMS))
    made.add(unit(0, ITEMS))
    faiss.write_index(made, str(tmp_path / "index.faiss"))
    return tmp_path / "index.faiss"


@pytest.mark.parametrize("index", KINDS, indirect=True)
def test_a_mapped_index_answers_as_one_that_was_read(index: Path) -> None:
    queries = unit(1, USERS)
    read, mapped = faiss.read_index(str(index)), serve.read_index(index)
    for asked in (queries, queries[:1]):
        for ours, theirs in zip(mapped.search(asked, 50), read.search(asked, 50), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    found = serve.search_without(mapped, queries, 20, [np.arange(n) for n in range(USERS)])
    again = serve.search_without(read, queries, 20, [np.arange(n) for n in range(USERS)])
    np.testing.assert_array_equal(found[1], again[1])


@pytest.mark.parametrize("index", ["Flat", "SQ8", "IVF16,Flat", "IVF16,SQ8"], indirect=True)
def test_its_vectors_stay_in_the_file(index: Path) -> None:
    def maps() -> int:
        return Path("/proc/self/maps").read_text().count(str(index))

    assert maps() == 0
    mapped = serve.read_index(index)
    assert maps() >= 1
    del mapped
    assert maps() == 0


@pytest.mark.parametrize("index", ["Flat", "IVF16,SQ8", "HNSW16"], indirect=True)
@pytest.mark.parametrize("keep", [0, 10, 0.5, -100])
def test_a_file_that_was_cut_is_refused(index: Path, keep: float) -> None:
    limit = faiss.get_deserialization_vector_byte_limit()
    whole = index.read_bytes()
    index.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(serve.BundleError, match="FAISS cannot read it"):
        serve.read_index(index)
    assert faiss.get_deserialization_vector_byte_limit() == limit


def bundle(out: Path, seed: int, factory: str) -> Path:
    vectors = unit(seed, ITEMS)
    build_index(vectors, vectors[:USERS], IndexSpec(factory=factory, k=(2,)), out.parent / f"index{seed}")
    write_bundle(
        out,
        query={"user": unit(seed + 100, USERS)},
        query_meta={"kind": "mf", "space": "cosine", "dim": DIM, "num_users": USERS, "num_items": ITEMS},
        user_ids=pl.Series(range(USERS)),
        item_ids=pl.Series([f"v{seed}-{n}" for n in range(ITEMS)]),
        histories=None,
        popular=np.arange(ITEMS),
        index_dir=out.parent / f"index{seed}",
        facts={"fingerprint": "f", "data_end": None},
    )
    return out


@pytest.mark.parametrize("factory", ["Flat", "IVF16,SQ8", "HNSW16"])
def test_who_serves_a_bundle_keeps_it_while_another_takes_its_place(tmp_path: Path, factory: str) -> None:
    asked = [(user, None) for user in range(USERS)]
    opened = open_bundle(bundle(tmp_path / "bundle", 1, factory))
    index = serve.read_index(opened.path / "index.faiss", opened.params)
    before = serve.recommend(opened, index, asked, 10)  # the pages of these answers may be in memory, of others not
    bundle(tmp_path / "bundle", 2, factory)
    assert serve.recommend(opened, index, asked, 10) == before
    deep = serve.recommend(opened, index, asked, 500)
    assert all(item.startswith("v1-") for answer in deep for item in answer.item_ids)
    assert [answer.item_ids[:10] for answer in deep] == [answer.item_ids for answer in before] or factory == "HNSW16"
    other = open_bundle(tmp_path / "bundle")
    (answer,) = serve.recommend(other, serve.read_index(other.path / "index.faiss", other.params), asked[:1], 1)
    assert answer.item_ids[0].startswith("v2-")


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_tables_are_what_the_library_reads_and_cannot_be_written_to(tmp_path: Path, kind: str) -> None:
    arrays = pack("user", unit(0, 31), kind) | {"layers.0.bias": np.arange(7, dtype=np.float32)}
    save_file(arrays, tmp_path / "t", metadata={"about": "x"})
    found, theirs = read_tables(tmp_path / "t"), load_file(tmp_path / "t")
    assert found.keys() == theirs.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, theirs[name])
        assert array.dtype == theirs[name].dtype
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("damage", [lambda b: b[:4], lambda b: b[:20], lambda b: b[:-1], lambda b: b"\xff" * 8 + b[8:]])
def test_a_damaged_file_of_tables_is_refused(tmp_path: Path, damage) -> None:
    save_file({"user": unit(0, 3)}, tmp_path / "t")
    (tmp_path / "t").write_bytes(damage((tmp_path / "t").read_bytes()))
    with pytest.raises(ValueError, match="t is not the file of tables that its header says"):
        read_tables(tmp_path / "t")


def test_a_table_of_another_kind_than_a_bundle_has_is_refused(tmp_path: Path) -> None:
    save_file({"user": np.zeros(3)}, tmp_path / "t")
    with pytest.raises(ValueError, match="F64"):
        read_tables(tmp_path / "t")
