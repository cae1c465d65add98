"""The surface on planted vectors: what is measured is right where the answer is known, and nothing beaten is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from recdistill.ann import IndexSpec, check_factory
from recdistill.ann_tune import Tuned
from recdistill.bundle import encode, open_bundle
from recdistill.config import load_config
from recdistill.data.sequences import Sequences
from recdistill.errors import ConfigError
from recdistill.evaluate import merge
from recdistill.export import index_student
from recdistill.fit import load
from recdistill.latency import Target, measure
from recdistill.measure import _index_lists
from recdistill.metrics import ndcg
from recdistill.models.build import build, history_length
from recdistill.models.spec import Fitted, MFSpec, ModelSpec, TwoTowerSpec
from recdistill.models.tables import PlainTable
from recdistill.report import ReportSpec
from recdistill.scoring import vectors
from recdistill.serve import default_history, read_index, recommend
from recdistill.surface import measure as surface_measure
from recdistill.surface import timing
from recdistill.surface.front import thinned, unbeaten
from recdistill.surface.points import norms
from recdistill.surface.presets import presets
from recdistill.surface.spec import SurfaceSpec
from recdistill.surface.stages import teacher_row
from recdistill.types import Dataset, Interactions

USERS, ITEMS, DIM = 60, 120, 12
FACTORIES = ("SQ8", "IVF8,Flat", "HNSW8")
MODELS: dict[str, ModelSpec] = {
    "mf": MFSpec(dim=DIM),
    "mf dot": MFSpec(dim=DIM, space="dot", temperature=1.0),
    "two_tower": TwoTowerSpec(dim=DIM, history=5),
    "two_tower hidden": TwoTowerSpec(dim=DIM, history=5, hidden=(10,)),
    "two_tower hidden dot": TwoTowerSpec(dim=DIM, history=5, hidden=(10,), space="dot", temperature=1.0),
}


def rows(each: list[np.ndarray]) -> Interactions:
    ends = np.concatenate([[0], np.cumsum([len(items) for items in each])])
    return Interactions(indptr=ends, items=np.concatenate(each).astype(np.int64))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    # Two of each user's are nobody else's first, so that every item is in somebody's training part.
    own = [np.array([2 * user, 2 * user + 1]) for user in range(USERS)]
    taken = [np.r_[two, rng.choice(np.setdiff1d(np.arange(ITEMS), two), 12, replace=False)] for two in own]
    parts = (rows([np.sort(items[a:b]) for items in taken]) for a, b in ((0, 8), (8, 10), (10, 14)))
    train, valid, test = parts
    user_ids, item_ids = pl.Series(range(1000, 1000 + USERS)), pl.Series([f"i{n}" for n in range(ITEMS)])
    return Dataset(user_ids=user_ids, item_ids=item_ids, train=train, valid=valid, test=test)


def fitted(dataset: Dataset, spec: ModelSpec, out: Path) -> Fitted:
    """A model of random weights whose first numbers say most, as if it was trained at every width."""
    torch.manual_seed(3)
    model = build(spec, dataset, PlainTable, seed=1)
    weights = {name: torch.randn_like(weight) for name, weight in model.state_dict().items()}
    weights["item.weight"] *= torch.linspace(1.5, 0.5, DIM)
    out.mkdir(parents=True)
    save_file(weights, out / "weights.safetensors")
    return Fitted(spec, SimpleNamespace(path=out, fingerprint="f"))  # type: ignore[arg-type]


def short(found: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The first numbers of the vectors in float64, normalised where the space is cosine."""
    sides = [side[:, :width].astype(np.float64) for side in (found.users, found.items)]
    if found.space == "cosine":
        sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    return sides[0], sides[1]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tables", ["fp32", "int8"])
def test_a_bundle_of_fewer_numbers_answers_as_the_first_numbers_do(
    dataset: Dataset, tmp_path: Path, name: str, tables: str
) -> None:
    student, known = fitted(dataset, MODELS[name], tmp_path / "fit"), merge(dataset.train, dataset.valid)
    model, length = load(student.spec, dataset, student.artifact.path), history_length(student.spec)
    spec = IndexSpec.model_validate({"factory": "Flat", "width": 4, "tables": tables, "histories": "whole"})
    facts = index_student(dataset, student, spec, tmp_path / "index", "f")
    assert facts["dim"] == 4
    bundle = open_bundle(tmp_path / "index" / "bundle")
    users, items = short(vectors(model, dataset, Sequences.of(known), length), 4)
    asked = encode(bundle, range(USERS), [default_history(bundle, user) for user in range(USERS)])
    scale = np.linalg.norm(users) / np.linalg.norm(asked)  # the temperature of dot space is in no bundle
    np.testing.assert_allclose(asked * scale, users, atol=1e-4 if tables == "fp32" else 0.15)
    if tables == "int8":
        return
    index = read_index(bundle.path / "index.faiss", bundle.params)
    answers = recommend(bundle, index, [(1000 + user, None) for user in range(USERS)], 5, exclude_seen=True)
    scores = users @ items.T
    for user, answer in enumerate(answers):
        scores[user, known.items[known.indptr[user] : known.indptr[user + 1]]] = -np.inf
        best = np.sort(scores[user])[::-1][:5]
        np.testing.assert_allclose(scores[user, [int(item[1:]) for item in answer.item_ids]], best, rtol=1e-3)
    served = SimpleNamespace(index=SimpleNamespace(path=tmp_path / "index"))
    lists = _index_lists(dataset, served, np.arange(USERS), 5, Sequences.of(known), known)  # type: ignore[arg-type]
    assert [[f"i{item}" for item in row] for row in lists] == [answer.item_ids for answer in answers]


def test_hidden_layers_read_whole_rows_and_others_keep_no_more_than_they_serve(
    dataset: Dataset, tmp_path: Path
) -> None:
    sizes = {}
    for name in ("two_tower", "two_tower hidden"):
        student = fitted(dataset, MODELS[name], tmp_path / name)
        index_student(dataset, student, IndexSpec(factory="Flat", width=4), tmp_path / name / "index", "f")
        bundle = open_bundle(tmp_path / name / "index" / "bundle")
        assert bundle.history is not None
        sizes[name] = bundle.users.shape[1], bundle.history.shape[1], [len(bias) for _, bias in bundle.layers]
        assert all(len(default_history(bundle, user)) <= 5 for user in range(USERS))
    assert sizes == {"two_tower": (4, 4, []), "two_tower hidden": (DIM, DIM, [10, 4])}


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


QUICK = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
LEARNED = [
    "student.model={kind: mf, dim: 16, space: dot, temperature: 1.0}",
    "student.stages=[{epochs: 1, width: 8}, {}]",
]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["index.width=16"], "index.width: has no effect: 16 is all that the student has"),
        (["index.width=32"], "index.width: 32 is beyond student.model.dim, which is 16"),
        (["index.width=4"], "index.width: the student is none by its first 4 numbers (it learned 8)"),
        (["index.width=8", "index.factory=PQ16x4fs"], "index.factory: FAISS cannot make"),
        (["surface.widths=[8, 4]"], "surface.widths: the student is none by its first 4 numbers"),
        (["surface.widths=[8, 8]"], "surface.widths: names one of them twice"),
        (["surface.factories=[SQ8, Banana]"], "surface.factories: FAISS cannot make an inner-product index 'Banana'"),
        (["surface.factories=[PQ16x4fs]"], "of 8 dimensions"),
        (["surface={}", "report.metrics=[coverage, ndcg]"], "report.metrics: has coverage first"),
    ],
)
def test_what_cannot_be_measured_or_served_is_refused_before_anything_is_trained(sets: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(QUICK, [*LEARNED, *sets])
    assert said in str(caught.value)


def test_a_width_that_was_learned_is_welcome_and_what_is_left_out_changes_no_fingerprint() -> None:
    config = load_config(QUICK, [*LEARNED, "index.width=8", "surface={widths: [8, 16]}"])
    assert config.surface is not None
    assert (config.index.width, config.surface.widths) == (8, (8, 16))
    plain = load_config(QUICK)
    assert "surface" not in plain.model_dump()
    assert not {"width", "histories"} & set(plain.index.model_dump())
