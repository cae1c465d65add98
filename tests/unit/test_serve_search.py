"""Searches without what is seen: right where the answer is known, complete, and as thorough as the index was set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill import serve
from recdistill.ann import IndexSpec, build_index
from recdistill.bundle import open_bundle, write_bundle
from recdistill.serve_search import search_index, search_without

faiss = pytest.importorskip("faiss")
ITEMS, QUERIES, DIM = 1500, 24, 16
SELECTED = ["Flat", "SQfp16", "SQ8", "RaBitQ", "HNSW16", "HNSW16_SQ8", "IVF16,SQ8", "IVF16,PQ8x4fs", "IVF16,PQ8x4"]
SELECTED += ["PCA8,Flat", "PCA8,IVF16,SQ8", "PCA8,HNSW16", "SQ8,Refine(Flat)", "IVF16,PQ8x4fs,Refine(SQ8)"]
REFUSED = ["PQ8x4", "PQ8x4fs", "PQ8x4fs,Refine(SQ8)", "RaBitQfs", "RaBitQfs,Refine(SQfp16)", "NSG16"]


def unit(seed: int, rows: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


VECTORS, ASKED = unit(0, ITEMS), unit(1, QUERIES)
BEST = np.argsort(-(ASKED @ VECTORS.T), axis=1)
# Each has seen many of its own best items, what a search meets first; the first has seen nothing.
SEEN = [np.sort(BEST[q, : 3 * q]).astype(np.int64) for q in range(QUERIES)]


@pytest.fixture(scope="module")
def built():
    made = {}

    def build(factory: str, params: str = ""):
        if factory not in made:
            index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
            index.train(VECTORS)
            index.add(VECTORS)
            made[factory] = index
        faiss.ParameterSpace().set_index_parameters(made[factory], params)
        return made[factory]

    return build


def test_on_an_exact_index_it_is_the_scan_without_the_seen(built) -> None:
    scores, rows = search_without(built("Flat"), ASKED, 20, SEEN)
    for q in range(QUERIES):
        expected = [item for item in BEST[q] if item not in set(SEEN[q].tolist())][:20]
        assert rows[q].tolist() == expected
        np.testing.assert_allclose(scores[q], VECTORS[expected] @ ASKED[q], rtol=1e-5)


@pytest.mark.parametrize("factory", [*SELECTED, *REFUSED])
def test_no_kind_of_index_gives_what_is_seen_or_gives_less_for_it(built, factory: str) -> None:
    index = built(factory)
    _, rows = search_without(index, ASKED, 30, SEEN)
    plain = search_index(index, ASKED, 30)[1]
    for q in range(QUERIES):
        assert not np.isin(rows[q], SEEN[q]).any()
        assert len(set(rows[q][rows[q] >= 0].tolist())) == (rows[q] >= 0).sum()
        if (plain[q] >= 0).all() and not factory.startswith(("IVF", "PCA8,IVF")):  # a list may hold fewer
            assert (rows[q] >= 0).all()
    assert (rows[0] == plain[0]).all()  # who has seen nothing is answered as ever


@pytest.mark.parametrize(
    ("factory", "low", "high"),
    [
        ("IVF16,SQ8", "nprobe=1", "nprobe=8"),
        ("PCA8,IVF16,SQ8", "nprobe=1", "nprobe=8"),
        ("IVF16,PQ8x4fs", "nprobe=1", "nprobe=8"),
        ("IVF16,PQ8x4", "nprobe=1", "nprobe=8"),
        ("HNSW16", "efSearch=16", "efSearch=256"),
        ("HNSW16_SQ8", "efSearch=16", "efSearch=256"),
        ("SQ8,Refine(Flat)", "k_factor_rf=1", "k_factor_rf=8"),
        ("IVF16,PQ8x4fs,Refine(SQ8)", "nprobe=8,k_factor_rf=1", "nprobe=8,k_factor_rf=16"),
        ("IVF16,PQ8x4fs,Refine(SQ8)", "nprobe=1,k_factor_rf=4", "nprobe=8,k_factor_rf=4"),
        ("PQ8x4fs,Refine(SQ8)", "k_factor_rf=1", "k_factor_rf=16"),
    ],
)
def test_what_the_index_was_set_to_is_kept(built, factory: str, low: str, high: str) -> None:
    far = [BEST[q, -1:] for q in range(QUERIES)]  # what nobody finds anyway: the answers must be those without it
    for params in (low, high):
        index = built(factory, params)
        plain, found = search_index(index, ASKED, 10)[1], search_without(index, ASKED, 10, far)[1]
        assert factory in REFUSED or (plain == found).mean() > 0.99  # one more asked for is one more refined
    recalls = []
    for params in (low, high):
        rows = search_without(built(factory, params), ASKED, 10, SEEN)[1]
        best = [[i for i in BEST[q] if i not in set(SEEN[q].tolist())][:10] for q in range(QUERIES)]
        recalls.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), best, strict=True)]))
    assert recalls[1] > recalls[0] + 0.005


@pytest.mark.parametrize("factory", [*SELECTED, *REFUSED])
def test_nobody_is_answered_otherwise_for_who_else_asks(built, factory: str) -> None:
    index, order = built(factory), np.random.default_rng(5).integers(0, QUERIES, 60)
    scores, rows = search_without(index, ASKED[order], 20, [SEEN[q] for q in order])
    for at, q in enumerate(order):
        alone = search_without(index, ASKED[q : q + 1], 20, [SEEN[q]])
        np.testing.assert_array_equal(rows[at], alone[1][0])
        np.testing.assert_allclose(scores[at], alone[0][0], rtol=1e-4)


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "PQ8x4fs"])
def test_who_has_seen_nearly_all_gets_the_rest(built, factory: str) -> None:
    left = np.array([3, 700, 1400])
    seen = [np.setdiff1d(np.arange(ITEMS), left)]
    scores, rows = search_without(built(factory), ASKED[:1], 10, seen)
    assert sorted(rows[0, :3].tolist()) == left.tolist()
    assert rows[0, 3:].tolist() == [-1] * 7
    assert np.isneginf(scores[0, 3:]).all()
    assert search_without(built(factory), ASKED[:1], ITEMS + 5, [np.arange(ITEMS)])[1].max() == -1


def test_repeats_and_order_of_what_is_seen_change_nothing(built) -> None:
    seen = [np.concatenate([items[::-1], items]) for items in SEEN]
    assert (search_without(built("PQ8x4fs"), ASKED, 10, seen)[1] >= 0).all()
    for factory in ("Flat", "IVF16,SQ8"):
        index = built(factory)
        assert (search_without(index, ASKED, 10, seen)[1] == search_without(index, ASKED, 10, SEEN)[1]).all()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory):
    def make(histories: list[np.ndarray] | None) -> serve.Bundle:
        out: Path = tmp_path_factory.mktemp("seen")
        build_index(VECTORS, ASKED, IndexSpec(factory="Flat", k=(2,)), out / "index")
        write_bundle(
            out / "bundle",
            query={"user": ASKED},
            query_meta={"kind": "mf", "space": "cosine", "dim": DIM, "num_users": QUERIES, "num_items": ITEMS},
            user_ids=pl.Series(range(100, 100 + QUERIES)),
            item_ids=pl.Series([f"i{n}" for n in range(ITEMS)]),
            histories=histories,
            popular=np.arange(ITEMS),
            index_dir=out / "index",
            facts={"fingerprint": "f", "data_end": None},
        )
        return open_bundle(out / "bundle")

    return make


def test_recommendations_leave_out_the_history_that_counts(bundle) -> None:
    made = bundle(SEEN)
    index = serve.read_index(made.path / "index.faiss")
    asked = [(123, None), (105, ["i0", "i1"]), (7, ["i0", "i2", "unheard of"]), (8, None)]
    plain = serve.recommend(made, index, asked, 5)
    kept, given, stranger, nobody = serve.recommend(made, index, asked, 5, exclude_seen=True)
    assert [answer.item_ids for answer in plain[:2]] == [[f"i{i}" for i in BEST[q][:5]] for q in (23, 5)]
    assert kept.item_ids == [f"i{i}" for i in BEST[23][69:74]]
    assert given.item_ids == [f"i{i}" for i in BEST[5] if i > 1][:5]  # a history given counts alone
    assert (stranger.item_ids, stranger.source) == (["i1", "i3", "i4", "i5", "i6"], "popular")
    assert nobody == plain[3]


def test_a_bundle_without_histories_asks_for_them(bundle) -> None:
    made = bundle(None)
    index = serve.read_index(made.path / "index.faiss")
    with pytest.raises(ValueError, match="keeps no histories"):
        serve.recommend(made, index, [(123, None), (7, None), (105, ["i0"])], 5, exclude_seen=True)
    (answer,) = serve.recommend(made, index, [(123, [f"i{i}" for i in SEEN[23]])], 5, exclude_seen=True)
    assert answer.item_ids == [f"i{i}" for i in BEST[23][69:74]]
