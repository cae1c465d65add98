from __future__ import annotations

import json

import faiss
import numpy as np
import pytest

from recdistill.ann import IndexSpec, build_index, check_factory, one_thread, search
from recdistill.ann_auto import factories
from recdistill.errors import ArtifactError, ConfigError, DataError
from recdistill.serve import BundleError, read_index


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(3)
    items = rng.normal(size=(600, 8)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    return items, rng.normal(size=(40, 8)).astype(np.float32)


def brute(items, queries, k):
    """The k best rows by a full sort of float64 inner products."""
    return np.argsort(-(queries.astype(np.float64) @ items.astype(np.float64).T), axis=1, kind="stable")[:, :k]


def test_flat_is_exact(vectors, tmp_path):
    items, queries = vectors
    build_index(items, queries, IndexSpec(), tmp_path)
    scores, rows = search(tmp_path / "flat.faiss", queries, 7)
    assert rows.tolist() == brute(items, queries, 7).tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ items.T, rows, axis=1), rtol=1e-5)


@pytest.mark.parametrize("factory", ["auto", "IVF16,SQ8", "HNSW8_SQfp16", "IVF16,PQ4x4fs,RFlat"])
def test_recorded_recall_is_what_a_full_sort_finds(factory, vectors, tmp_path):
    items, queries = vectors
    facts = build_index(items, queries, IndexSpec(factory=factory, k=(5, 20)), tmp_path)
    for k in (5, 20):
        _, rows = search(tmp_path / "index.faiss", queries, k, facts["params"])
        truth = brute(items, queries, k)
        by_id = np.mean([len(set(a) & set(b)) / k for a, b in zip(rows.tolist(), truth.tolist(), strict=True)])
        # Ties within a thousandth count as found, so the recorded recall is at least that by id, and hardly more.
        assert by_id - 1e-6 <= facts["recall"][str(k)] <= by_id + 0.02
    assert json.loads((tmp_path / "index.json").read_text()) == {k: v for k, v in facts.items() if k != "build_s"}


@pytest.mark.parametrize("factory", ["auto", "IVF16,SQ8"])
def test_two_builds_are_byte_identical(factory, vectors, tmp_path):
    for name in ("a", "b"):
        build_index(*vectors, IndexSpec(factory=factory), tmp_path / name, seed=5)
    for name in ("index.faiss", "flat.faiss", "index.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_seed_moves_the_cells(vectors, tmp_path):
    for seed in (0, 1):
        build_index(*vectors, IndexSpec(factory="IVF16,Flat"), tmp_path / str(seed), seed=seed)
    assert (tmp_path / "0" / "index.faiss").read_bytes() != (tmp_path / "1" / "index.faiss").read_bytes()


def test_a_higher_target_costs_more_probes(vectors, tmp_path):
    probes = []
    for target in (0.2, 0.5, 0.9):
        facts = build_index(*vectors, IndexSpec(factory="IVF32,Flat", k=(10,), min_recall=target), tmp_path)
        assert facts["reached"]
        assert facts["recall"]["10"] >= target
        probes.append(int(facts["params"].removeprefix("nprobe=")))
    assert probes[0] < probes[1] < probes[2]


def test_an_unreachable_target_takes_the_best_and_says_so(vectors, tmp_path):
    # FAISS offers at most half of 16 cells, and no half holds every neighbour.
    facts = build_index(*vectors, IndexSpec(factory="IVF16,Flat", k=(10,), min_recall=1.0), tmp_path)
    assert not facts["reached"]
    assert facts["params"] == "nprobe=8"


def test_equal_items_are_ties_not_misses(tmp_path):
    items = np.repeat(np.eye(4, dtype=np.float32), 50, axis=0)
    facts = build_index(items, np.eye(4, dtype=np.float32), IndexSpec(factory="HNSW16", k=(10,)), tmp_path)
    assert facts["recall"]["10"] == 1.0


def test_small_scores_do_not_all_tie(tmp_path):
    # Every score is below the absolute tolerance of 1e-3; one cell of 16 must still not count as full recall.
    rng = np.random.default_rng(0)
    items = (1e-3 * rng.normal(size=(600, 8))).astype(np.float32)
    spec = IndexSpec(factory="IVF16,Flat", k=(10,), min_recall=0.01)
    facts = build_index(items, (1e-2 * rng.normal(size=(50, 8))).astype(np.float32), spec, tmp_path)
    assert facts["params"] == "nprobe=1"
    assert facts["recall"]["10"] < 0.9


def test_k_beyond_the_catalogue_is_padded(tmp_path):
    items = np.eye(3, dtype=np.float32)
    facts = build_index(items, items, IndexSpec(k=(10,)), tmp_path)
    scores, rows = search(tmp_path / "index.faiss", items[:1], 5, facts["params"])
    assert rows[0, 0] == 0
    assert sorted(rows[0, :3].tolist()) == [0, 1, 2]
    assert rows[0, 3:].tolist() == [-1, -1]
    assert scores[0, 3:].tolist() == [-np.inf, -np.inf]


def test_a_graph_answers_deeper_than_it_was_tuned(vectors, tmp_path):
    items, queries = vectors
    facts = build_index(items, queries, IndexSpec(factory="HNSW32", k=(1,), min_recall=0.5), tmp_path)
    assert int(facts["params"].removeprefix("efSearch=")) < 100
    _, rows = search(tmp_path / "index.faiss", queries, 600, facts["params"])
    assert np.sort(rows, axis=1).tolist() == [list(range(600))] * len(queries)


def test_auto_grows_with_the_catalogue():
    for dim in (8, 24, 64):
        tried = [factories(n, dim) for n in (10, 5_000, 5_001, 5_000_000, 50_000_000)]
        assert tried[0] == tried[1] == ("SQfp16",)
        assert tried[2] == ("IVF128,SQ8", f"PQ{dim}x4fs,Refine(SQ8)")
        assert len(set(tried)) == 4
        for factory in {factory for each in tried for factory in each}:
            check_factory(factory, dim)


def test_auto_takes_cells_where_vectors_lie_in_them_and_else_a_scan_of_short_codes(tmp_path):
    rng = np.random.default_rng(1)
    spread = rng.normal(size=(6000, 16)).astype(np.float32)
    heaped = np.repeat(rng.normal(size=(100, 16)), 60, axis=0) + 0.05 * spread
    for name, items in {"spread": spread, "heaped": heaped}.items():
        items = np.ascontiguousarray(items / np.linalg.norm(items, axis=1, keepdims=True), np.float32)
        facts = build_index(items, items[::150], IndexSpec(k=(10,), min_recall=0.9), tmp_path / name)
        assert facts["reached"]
        assert facts["factory"].partition(",")[0] == {"spread": "PQ16x4fs", "heaped": "IVF128"}[name]
    asked = IndexSpec(k=(10,), min_recall=0.9, factory="IVF128,SQ8")
    assert build_index(spread, spread[::150], asked, tmp_path)["factory"] == "IVF128,SQ8", "what is named is taken"


def test_a_scan_refines_until_the_recall_is_reached(tmp_path):
    rng = np.random.default_rng(1)
    items, queries = (rng.normal(size=(rows, 16)).astype(np.float32) for rows in (3000, 50))
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    factors = []
    for target in (0.6, 0.9, 0.98):
        spec = IndexSpec(factory="PQ16x4fs,Refine(SQ8)", k=(10,), min_recall=target)
        facts = build_index(items, queries, spec, tmp_path)
        assert facts["reached"]
        assert target <= facts["recall"]["10"]
        factors.append(float(facts["params"].removeprefix("k_factor_rf=")))
    assert factors[0] < factors[-1]
    assert factors == sorted(factors)


@pytest.mark.parametrize("factory", ["Banana", "PQ3", "IVF5000,Flat", "LSH"])
def test_an_impossible_factory_is_named(factory, vectors, tmp_path):
    with pytest.raises(ConfigError, match=repr(factory)):
        build_index(*vectors, IndexSpec(factory=factory), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_check_factory_before_training():
    with pytest.raises(ConfigError, match="'PQ3'"):
        check_factory("PQ3", 8)
    check_factory("PQ3", 9)
    check_factory("auto", 9)


def test_diverged_vectors_are_refused(vectors, tmp_path):
    items = vectors[0].copy()
    items[4, 2] = np.nan
    with pytest.raises(DataError, match="1 item vectors are not finite, first row 4"):
        build_index(items, vectors[1], IndexSpec(), tmp_path)
    with pytest.raises(DataError, match="query vectors"):
        build_index(vectors[0], np.empty((0, 8), np.float32), IndexSpec(), tmp_path)


def test_truncated_and_mismatched_indexes_are_refused(vectors, tmp_path):
    build_index(*vectors, IndexSpec(), tmp_path)
    with pytest.raises(ArtifactError, match="8-dimensional"):
        search(tmp_path / "flat.faiss", np.zeros((1, 9), np.float32), 3)
    data = (tmp_path / "flat.faiss").read_bytes()
    (tmp_path / "flat.faiss").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="cannot read"):
        search(tmp_path / "flat.faiss", vectors[1], 3)
    with pytest.raises(ArtifactError):
        search(tmp_path / "absent.faiss", vectors[1], 3)


def test_one_thread_gives_the_count_back():

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        with one_thread():
            assert faiss.omp_get_max_threads() == 1
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


def test_parameters_that_are_given_are_set_and_not_chosen(vectors, tmp_path):
    given = IndexSpec(factory="IVF16,Flat", k=(10,), params="nprobe=3")
    facts = build_index(*vectors, given, tmp_path / "given")
    assert (facts["params"], facts["min_recall"], facts["reached"]) == ("nprobe=3", None, True)
    assert read_index(tmp_path / "given" / "index.faiss").nprobe == 3  # as it is read, without being told
    chosen = build_index(*vectors, IndexSpec(factory="IVF16,Flat", k=(10,), min_recall=1.0), tmp_path / "chosen")
    assert facts["recall"]["10"] < chosen["recall"]["10"]


@pytest.mark.parametrize(
    ("factory", "params", "said"),
    [
        ("HNSW32", "nprobe=8", "could not set parameter nprobe"),
        ("IVF16,Flat", "nprob=8", "could not set parameter nprob"),
    ],
)
def test_parameters_that_the_index_has_not_are_refused(factory, params, said):
    with pytest.raises(ConfigError, match=said) as caught:
        check_factory(factory, 8, params)
    assert caught.value.problems[0].where == "index.params"


@pytest.mark.parametrize("params", ["", "nprobe", "nprobe=0", "nprobe=-1", "nprobe=8,", "nprobe=8,efSearch=0"])
def test_parameters_that_would_find_nothing_are_no_parameters(params):
    with pytest.raises(ValueError, match="pattern"):
        IndexSpec(factory="IVF16,Flat", params=params)
    assert "params" not in IndexSpec().model_dump()


def test_reading_an_index_gives_the_limits_of_the_process_back(vectors, tmp_path):
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    build_index(*vectors, IndexSpec(factory="SQ8"), tmp_path)
    read_index(tmp_path / "index.faiss")
    assert (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()) == before
    (tmp_path / "index.faiss").write_bytes(b"nothing")
    with pytest.raises(BundleError):
        read_index(tmp_path / "index.faiss")
    assert (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()) == before
