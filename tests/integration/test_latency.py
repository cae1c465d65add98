from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recdistill.errors import ArtifactError
from recdistill.latency import Target, measure
from recdistill.latency_stats import calibrate, summarise
from recdistill.results import LatencyRow


@pytest.fixture
def bundle(make_bundle, tmp_path):
    return make_bundle(tmp_path / "a")


def test_every_target_and_part_is_measured_without_torch(bundle, make_bundle, tmp_path):
    other = make_bundle(tmp_path / "b", seed=1, items=200)
    targets = [
        Target(label="student@index", bundle=bundle),
        Target(label="student@flat", bundle=bundle, index=bundle.parent / "index" / "flat.faiss"),
        Target(label="champion@index", bundle=other),
    ]
    rows, environment = measure(targets, k=10, queries=130, repeats=3, warmup=10)
    assert environment["torch_loaded"] is False
    assert environment["faiss_threads"] == 1
    assert set(environment["pools"].values()) == {1}
    assert environment["simd"]
    assert environment["cpu"]
    assert environment["noise"] >= 0
    assert [(r["model"], r["part"]) for r in rows] == [
        (t.label, part) for t in targets for part in ("encode", "search", "total")
    ]
    fields = {f.name for f in dataclasses.fields(LatencyRow)}
    for row in rows:
        assert set(row) == fields
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["queries"] == 3 * 130
    by = {(r["model"], r["part"]): r for r in rows}
    for target in targets:
        # The whole includes its parts, query by query, so its largest is at least theirs.
        whole = by[target.label, "total"]["max_ms"]
        assert whole >= max(by[target.label, p]["max_ms"] for p in ("encode", "search"))
    index_bytes = (bundle / "index.faiss").stat().st_size + (bundle / "query.safetensors").stat().st_size
    assert by["student@index", "total"]["size_bytes"] == index_bytes


def test_a_tampered_index_is_refused_before_it_is_read(bundle):
    flat = bundle.parent / "index" / "flat.faiss"
    data = bytearray(flat.read_bytes())
    data[-1] ^= 1
    flat.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"flat\.faiss: contents differ"):
        measure([Target(label="flat", bundle=bundle, index=flat)], k=5, queries=10, repeats=1, warmup=1)


def test_a_tampered_bundle_is_refused(bundle):
    (bundle / "popular.npy").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"popular\.npy"):
        measure([Target(label="x", bundle=bundle)], k=5, queries=10, repeats=1, warmup=1)


def test_an_index_of_other_items_is_refused(bundle, make_bundle, tmp_path):
    other = make_bundle(tmp_path / "b", items=200)
    with pytest.raises(ArtifactError, match="200 x 8, the bundle has 300 items x 8"):
        measure(
            [Target(label="x", bundle=bundle, index=other.parent / "index" / "flat.faiss")],
            k=5,
            queries=10,
            repeats=1,
            warmup=1,
        )


def test_summary_by_hand():
    # Two repeats of 101 queries, 0..100 ms and twice that: percentile p is p and 2p ms, the median between them.
    once = np.arange(101) / 1000
    row = summarise(np.stack([once, 2 * once]))
    assert row == pytest.approx(
        {"p50_ms": 75, "p95_ms": 142.5, "p99_ms": 148.5, "max_ms": 200, "queries": 202, "spread": 50 / 75}
    )
    assert summarise(once)["spread"] == 0


def test_noise_is_the_tail_of_fixed_work():
    assert calibrate([1.0] * 99) == {"noise": 0.0, "warning": None}
    noisy = calibrate([1.0] * 50 + [2.0] * 49)
    assert noisy["noise"] == pytest.approx(1.0)
    assert "noisy machine" in noisy["warning"]
