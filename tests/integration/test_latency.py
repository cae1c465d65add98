from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recdistill.errors import ArtifactError
from recdistill.latency import Target, measure
from recdistill.latency_stats import noise, summarise
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
    assert isinstance(environment["noise"]["judge"], bool)
    assert environment["noise"]["why"]
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
        # The whole includes the encoding, query by query, so each percentile of it is at least as large.
        whole, part = by[target.label, "total"], by[target.label, "encode"]
        assert all(whole[name] > part[name] for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms"))
    held = environment["targets"]["student@index"]["held"]
    files = sum((bundle / name).stat().st_size for name in ("index.faiss", "query.safetensors"))
    assert held["index"] + held["query"] == files
    # 50 numbers name users, 300 texts items; 300 rows by popularity; 5 items of each user between 51 ends.
    assert held["ids"] == 50 * 8 + sum(8 + len(f"i{n}") for n in range(300))
    assert (held["popular"], held["histories"]) == (300 * 8, 250 * 8 + 51 * 8)
    assert by["student@index", "total"]["size_bytes"] == sum(held.values())


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
    repeats, counts = row.pop("repeats"), row.pop("histogram")["counts"]
    assert row == pytest.approx(
        {
            "p50_ms": 75,
            "p95_ms": 142.5,
            "p99_ms": 148.5,
            "max_ms": 200,
            "queries": 202,
            "spread": 50 / 75,
            "mean_ms": 75,
        }
    )
    each = {"p50_ms": [50, 100], "p95_ms": [95, 190], "p99_ms": [99, 198], "max_ms": [100, 200]}
    assert repeats == {name: pytest.approx(values) for name, values in each.items()}
    assert sum(counts) == 202
    assert summarise(once)["spread"] == 0


def test_repeats_may_be_of_different_lengths():
    # What a slow teacher had time for: 3 queries, then 1, then none.
    row = summarise([np.array([0.001, 0.002, 0.003]), np.array([0.006]), np.array([])])
    assert (row["p50_ms"], row["queries"], row["max_ms"]) == (pytest.approx(4.0), 4, pytest.approx(6.0))


def test_a_quiet_machine_judges_and_one_with_spikes_does_not():
    rng = np.random.default_rng(0)
    quiet = [(1e-4 * (1 + 0.02 * rng.random(10))).tolist() for _ in range(100)]
    found = noise(quiet)
    assert found["judge"] is True
    assert found["samples"] == 1000
    assert "kept its time" in found["why"]
    rare = [[*stretch[:-1], 4e-3] if n % 5 == 0 else stretch for n, stretch in enumerate(quiet)]  # 2% wait a slice
    found = noise(rare)
    assert found["judge"] is False
    assert "p99" in found["why"]
    assert "p95" not in found["why"]
    often = [[4e-4, *stretch[1:]] for stretch in quiet]
    assert "p95" in noise(often)["why"]
    slower = [[2 * t for t in stretch] if n > 50 else stretch for n, stretch in enumerate(quiet)]
    assert "median moved by" in noise(slower)["why"]
