"""The surface on planted vectors: what is measured is right where the answer is known, and nothing beaten is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import untrained
from untrained import DIM, ITEMS, MODELS, USERS, fitted, short

from recdistill.ann import check_factory
from recdistill.ann_tune import Tuned
from recdistill.data.sequences import Sequences
from recdistill.evaluate import merge
from recdistill.fit import load
from recdistill.latency import Target, measure
from recdistill.metrics import ndcg
from recdistill.models.spec import Fitted
from recdistill.report import ReportSpec
from recdistill.scoring import vectors
from recdistill.surface import measure as surface_measure
from recdistill.surface import timing
from recdistill.surface.front import thinned, unbeaten
from recdistill.surface.points import norms
from recdistill.surface.presets import presets
from recdistill.surface.spec import SurfaceSpec
from recdistill.surface.stages import teacher_row
from recdistill.types import Dataset

FACTORIES = ("SQ8", "IVF8,Flat", "HNSW8")


@pytest.fixture(scope="module")
def dataset():
    return untrained.dataset()


@pytest.fixture(scope="module")
def found(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """One surface, measured twice."""
    patch = pytest.MonkeyPatch()
    patch.setattr(timing, "MOST", 20)
    patch.setattr(timing, "REPEATS", 2)
    out = tmp_path_factory.mktemp("surface")
    student, surfaces = fitted(dataset, MODELS["mf"], out / "fit"), []
    for name in ("first", "second"):
        told = surface_measure.write_surface(
            dataset,
            student,
            SurfaceSpec(factories=FACTORIES, recall_k=(5, 20)),
            ReportSpec(k=(5,), metrics=("ndcg",), bootstrap=20),
            out / name,
            widths=(4, DIM),
            tables="fp32",
            teacher=None,
            fingerprint="f",
            log=lambda *_: None,
        )
        surfaces.append(json.loads((out / name / "surface.json").read_text()) | {"out": out / name, "told": told})
    yield surfaces
    patch.undo()


def test_a_surface_has_every_width_and_factory(found: list[dict[str, Any]]) -> None:
    surface = found[0]
    assert {(p["width"], p["factory"]) for p in surface["points"]} == {
        (width, factory) for width in (4, DIM) for factory in ("Flat", *FACTORIES)
    }
    assert surface["told"] == {"points": len(surface["points"]), "kept": sum(p["kept"] for p in surface["points"])}
    assert len({p["id"] for p in surface["points"]}) == len(surface["points"])
    assert (surface["users"], surface["num_items"], surface["k"]) == (USERS, ITEMS, 5)
    for point in surface["points"]:
        assert point["bytes"] == point["index_bytes"] + point["query_bytes"]
        assert set(point["recall"]) == {"5", "20"}
        assert point["low"] <= point["quality"] <= point["high"]
        parts = point["latency"]
        assert set(parts) == {"encode", "search", "total"}
        assert all(0 < p["p50_ms"] <= p["p95_ms"] <= p["p99_ms"] <= p["max_ms"] for p in parts.values())
        assert point["qps"] > 0


def test_exact_search_is_exact_and_its_quality_is_that_of_a_full_sort(
    found: list[dict[str, Any]], dataset: Dataset
) -> None:
    surface = found[0]
    student = Fitted(MODELS["mf"], SimpleNamespace(path=surface["out"].parent / "fit"))  # type: ignore[arg-type]
    both, seen = load(student.spec, dataset, student.artifact.path), merge(dataset.train, dataset.valid)
    for width in (4, DIM):
        users, items = short(vectors(both, dataset, Sequences.of(seen), 0), width)
        scores = users @ items.T
        scores[seen.users(), seen.items] = -np.inf
        lists = np.argsort(-scores, axis=1)[:, :5]
        truth = [
            set(dataset.test.items[a:b]) for a, b in zip(dataset.test.indptr, dataset.test.indptr[1:], strict=False)
        ]
        hit = np.array([[item in truth[user] for item in row] for user, row in enumerate(lists)])
        expected = float(ndcg(hit, np.full(USERS, 4), 5).mean())
        (flat,) = (p for p in surface["points"] if (p["width"], p["factory"]) == (width, "Flat"))
        assert flat["recall"] == {"5": 1.0, "20": 1.0}
        assert flat["quality"] == pytest.approx(expected, abs=1e-9)
        assert surface["exact"][str(width)]["quality"] == pytest.approx(expected, abs=1e-9)
        most = [p["recall"]["5"] for p in surface["points"] if (p["width"], p["factory"]) == (width, "HNSW8")]
        assert max(most) > 0.9


def test_what_is_kept_is_beaten_by_nothing_and_its_index_is_there(found: list[dict[str, Any]]) -> None:
    points, out = found[0]["points"], found[0]["out"]

    def costs(point: dict[str, Any]) -> tuple[float, float, float]:
        return -point["quality"], point["latency"]["total"]["p95_ms"], point["bytes"]

    for point in points:
        better = [p for p in points if costs(p) != costs(point) and np.all(np.array(costs(p)) <= costs(point))]
        assert point["kept"] == (not better)
        assert (point["file"] is not None) or not point["kept"]
    assert not all(point["kept"] for point in points)
    there = {path.relative_to(out).as_posix() for path in out.glob("d*/*.faiss")}
    assert there == {p["file"] for p in points if p["file"] and p["factory"] != "Flat"}
    (kept, *_) = (p for p in points if p["kept"])
    bundle = out / f"d{kept['width']}" / "bundle"
    index = None if kept["factory"] == "Flat" else out / kept["file"]
    target = Target(label="again", bundle=bundle, index=index, params=kept["params"], exclude=True)
    assert measure([target], k=5, queries=10, repeats=1, warmup=1)[0]


def test_the_same_surface_again_is_the_same_but_for_its_times(found: list[dict[str, Any]]) -> None:
    timed = {"latency", "spread", "qps", "build_s", "kept", "file"}
    one, other = ([{k: v for k, v in p.items() if k not in timed} for p in s["points"]] for s in found)
    assert one == other
    assert [found[0][name] for name in ("exact", "norms")] == [found[1][name] for name in ("exact", "norms")]


def test_of_many_users_a_sample_is_served_that_is_always_the_same(dataset: Dataset, monkeypatch) -> None:
    assert surface_measure.evaluated(dataset).tolist() == list(range(USERS))
    monkeypatch.setattr(surface_measure, "SEARCHED_PAIRS", 10 * ITEMS)
    monkeypatch.setattr(surface_measure, "FEWEST_USERS", 5)
    some = surface_measure.evaluated(dataset)
    assert len(some) == 10
    assert (some == surface_measure.evaluated(dataset)).all()


def test_the_front_by_hand() -> None:
    costs = np.array([[1, 5], [2, 2], [2, 2], [3, 3], [5, 1], [1, 6]], np.float64)
    assert unbeaten(costs).tolist() == [True, True, True, False, True, False]


def test_settings_are_thinned_by_work_and_what_finds_little_is_left_out() -> None:
    points = [Tuned(f"nprobe={2**n}", {10: min(0.4 + 0.05 * n, 1.0)}, 2.0**n) for n in range(13)]
    kept = thinned(points)
    assert [p.params for p in (kept[0], kept[-1])] == ["nprobe=64", "nprobe=4096"]
    assert len(kept) == 6
    assert thinned(points[:3]) == [points[2]]  # the best of an index that finds little
    assert thinned(points[8:11]) == points[8:11]


def test_presets_can_be_built_and_differ_in_character() -> None:
    for items, dim in ((100, 8), (5_000, 12), (41_000, 64), (1_000_000, 24)):
        for factory in presets(items, dim):
            check_factory(factory, dim)
    assert not any("IVF" in f or "PQ" in f for f in presets(500, 16))
    assert len(presets(41_000, 64)) > len(presets(500, 16))


def test_lengths_that_differ_are_warned_of_where_an_inverted_file_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((500, 8))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    even, uneven = norms(unit, ["IVF8,Flat"]), norms(unit * rng.lognormal(0, 0.3, (500, 1)), ["IVF8,Flat", "HNSW8"])
    assert (even["mean"], even["spread"], even["warning"]) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-6), "")
    assert uneven["spread"] == pytest.approx(0.3, abs=0.05)
    assert "IVF8,Flat" in uneven["warning"]
    assert "HNSW8" not in uneven["warning"]
    assert norms(unit * rng.lognormal(0, 0.3, (500, 1)), ["HNSW8"])["warning"] == ""


def test_the_teacher_is_as_it_was_evaluated_and_timed() -> None:
    quality = {"quality": [{"model": "teacher", "slice": "all", "metric": "ndcg", "k": 10, "value": 0.2, "low": 0.1}]}
    quality["quality"][0]["high"] = 0.3
    times = {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "max_ms": 4.0}
    latency = {"latency": [{"model": "teacher", "part": "total", "size_bytes": 9, **times}]}
    assert teacher_row(quality, latency, "ndcg", 10) == {"quality": 0.2, "low": 0.1, "high": 0.3, "bytes": 9, **times}
    external = teacher_row(quality, {"latency": []}, "ndcg", 10)
    assert external is not None
    assert external["p50_ms"] is None
    assert teacher_row(quality, latency, "recall", 10) is None
