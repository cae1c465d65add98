"""Teachers of several trainings, out-of-fold labels and calibrated ones, from configuration to label store."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines.distill import distill, plan
from recdistill.config import load_config
from recdistill.data.dataset import read_dataset
from recdistill.folds import fold_of
from recdistill.stages import Run

MF = {"kind": "mf", "dim": 8}
TRAIN = {"epochs": 2, "batch": 512, "negatives": 64}
RANKER = {"kind": "ranker", "dim": 4, "heads": 1, "cross_layers": 1, "hidden": [8], "history": 4}
KL = {"kind": "list", "weight": 0.5, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}
STUDENT = {"model": MF, "train": {"epochs": 1, "batch": 512, "negatives": 32, "list_users": 64}}


@pytest.fixture
def go(tiny, monkeypatch):
    """Run the path as far as a stage, in this process, and return what it made."""
    monkeypatch.chdir(tiny.home)

    def run(name: str, until: str = "labels", **sections: Any) -> SimpleNamespace:
        features = {"features": None} if "RANKER" not in name else {}
        common = {"name": name.lower(), "student": STUDENT, "distill": [KL], "registry": None, "labels": {"depth": 20}}
        config = load_config(Path(tiny.config(name, **features | common | sections)))
        before = plan(config)
        outcome = distill(config, Run(store=Path(config.exec.store)), until=until)
        made = {step.name: step.artifacts for step in outcome.made}
        after = [row["state"] for row in plan(config)][: sum(map(len, made.values()))]
        assert after == ["hit"] * len(after)
        paths = {str(artifact.path) for artifacts in made.values() for artifact in artifacts}
        assert paths <= {str(Path(row["path"])) for row in before}  # what is planned is what is made
        return SimpleNamespace(**made, before=before)

    return run


def recipe_of(made: SimpleNamespace) -> dict[str, Any]:
    assert made.teacher[-1].manifest.stage == "recipe"
    return json.loads((made.teacher[-1].path / "recipe.json").read_text())


def lists_of(made: SimpleNamespace) -> pl.DataFrame:
    return pl.read_ipc(f"{made.labels[0].path}/*.arrow")


def logits_of(made: SimpleNamespace, model: int) -> np.ndarray:
    users, items = (np.load(made.teacher[model].path / f"{side}.npy").astype(np.float64) for side in ("users", "items"))
    return users @ items.T / 0.1  # cosine over the temperature that MFSpec has unless told otherwise


def dataset_of(made: SimpleNamespace):
    return read_dataset(made.ingest[0].path, made.split[0].path)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits - logits.max(1, keepdims=True)
    return top - np.log(np.exp(top).sum(1, keepdims=True))


def test_seeds_are_mixed_as_chances(go) -> None:
    """By hand: each one's log-softmax over what is unseen, at its temperature; then the log of their mean."""
    made = go("seeds", teacher={"model": MF, "train": TRAIN, "recipe": {"kind": "seeds", "seeds": [1, 2]}})
    recipe, dataset = recipe_of(made), dataset_of(made)
    assert [m["share"] for m in recipe["members"]] == [[0.5], [0.5]]
    unseen = np.zeros((dataset.num_users, dataset.num_items))
    unseen[dataset.train.users(), dataset.train.items] = -np.inf
    said = [log_softmax(logits_of(made, m) / one["temperature"] + unseen) for m, one in enumerate(recipe["members"])]
    with np.errstate(divide="ignore"):
        mean = np.log(np.mean(np.exp(said), axis=0))
    best = np.sort(mean, axis=1)[:, ::-1]
    table = lists_of(made)
    np.testing.assert_allclose(table["scores"].to_numpy(), best[:, :20], atol=1e-3)
    rest = np.log(1 - np.exp(best[:, :20]).sum(1))  # they are chances: the list and its rest make 1
    np.testing.assert_allclose(table["residual"].to_numpy(), rest, atol=1e-3)
    # What is held out is the validation part, where every user counts as much.
    valid = dataset.valid
    of = np.repeat(np.arange(dataset.num_users), np.diff(valid.indptr))
    each = np.bincount(of, -mean[of, valid.items]) / np.maximum(np.bincount(of), 1)
    assert recipe["nll"] == pytest.approx(each[np.unique(of)].mean(), abs=1e-4)
    assert recipe["nll"] < max(one["nll"] for one in recipe["judged"])
    facts = json.loads((made.labels[0].path / "labels.json").read_text())
    assert (facts["teacher"], facts["recipe"], facts["space"]) == ("mf", "seeds", "logit")


def test_checkpoints_come_from_one_training(go) -> None:
    train = TRAIN | {"epochs": 4}
    made = go("checkpoints", teacher={"model": MF, "train": train, "recipe": {"kind": "checkpoints", "most": 2}})
    recipe = recipe_of(made)
    assert [artifact.manifest.stage for artifact in made.teacher] == ["fit", "recipe"]
    kept = {file.name for file in made.teacher[0].path.glob("weights-*.safetensors")}
    assert len(kept) == 4
    assert {one["weights"] for one in recipe["judged"]} == kept
    assert 1 <= len(recipe["members"]) <= 2
    assert recipe["nll"] <= recipe["nll_best_alone"] == min(one["nll"] for one in recipe["judged"])


def test_fold_teachers_label_what_they_did_not_learn(go) -> None:
    """Every training interaction in a list has the score of the model that lacks it, everything else that of all."""
    made = go(
        "folds",
        teacher={"model": MF, "train": TRAIN | {"epochs": 8, "patience": 0}, "folds": 2},
        labels={"depth": 150, "exclude_seen": False},
    )
    recipe, dataset = recipe_of(made), dataset_of(made)
    assert (recipe["folds"], recipe["held_out"]["part"], len(recipe["members"])) == (2, "out of fold", 1)
    table = lists_of(made)
    items, scores, fold = (table[name].to_numpy() for name in ("items", "scores", "fold"))
    users = np.arange(dataset.num_users)
    train = dataset.train
    taken = np.full((dataset.num_users, dataset.num_items), -1)
    taken[train.users(), train.items] = fold_of(train.users(), train.items, dataset.num_items, 2)
    np.testing.assert_array_equal(fold, taken[users[:, None], items])
    temperature = recipe["members"][0]["temperature"]
    knows = [(taken >= 0) & (taken != k) for k in (0, 1)]  # what each model learned from is no candidate of its own
    raw = [logits_of(made, k) / temperature for k in (0, 1)]
    said = np.exp([log_softmax(np.where(knows[k], -np.inf, raw[k])) for k in (0, 1)])
    mean = np.where(taken < 0, said.mean(0), np.where(taken == 0, said[0], said[1]))
    np.testing.assert_allclose(np.exp(scores), mean[users[:, None], items], rtol=1e-3)
    # A model that learned a pair ranks it high, whatever it is worth; the one that lacks it does not.
    ranks = [(-one).argsort(1).argsort(1) for one in raw]
    at = taken >= 0
    inside = np.where(taken == 0, ranks[1], ranks[0])[at].mean()
    outside = np.where(taken == 0, ranks[0], ranks[1])[at].mean()
    assert inside < outside - 10


@pytest.mark.parametrize("kind", ["temperature", "platt"])
def test_calibrated_labels(go, kind) -> None:
    made = go(f"calibrated-{kind}", teacher={"model": MF, "train": TRAIN}, labels={"depth": 20, "calibration": kind})
    recipe, dataset = recipe_of(made), dataset_of(made)
    unseen = np.zeros((dataset.num_users, dataset.num_items))
    unseen[dataset.train.users(), dataset.train.items] = -np.inf
    wanted = np.sort(logits_of(made, 0) * recipe["scale"] + recipe["shift"] + unseen, axis=1)[:, ::-1]
    np.testing.assert_allclose(lists_of(made)["scores"].to_numpy(), wanted[:, :20], atol=1e-3)
    before, after = (recipe["calibration"][when] for when in ("before", "after"))
    assert after["nll"] < before["nll"]
    assert after["ece"] < before["ece"]
    if kind == "platt":  # the chances add up to what was taken
        assert sum(row["expected"] for row in after["table"]) == pytest.approx(len(dataset.valid), rel=1e-3)
        assert sum(row["observed"] for row in after["table"]) == len(dataset.valid)
    facts = json.loads((made.labels[0].path / "labels.json").read_text())
    assert facts["space"] == {"temperature": "logit", "platt": "probability"}[kind]


def test_a_pool_of_a_ranker_and_an_encoder(go) -> None:
    pool = {"kind": "pool", "segments": 2, "members": [{"model": MF, "train": TRAIN}]}
    teacher = {"model": RANKER, "train": TRAIN | {"negatives": 4}, "recipe": pool}
    made = go("pool-RANKER", until="latency", teacher=teacher)
    recipe = recipe_of(made)
    assert len(recipe["edges"]) == 1
    shares = np.array([one["share"] for one in recipe["judged"]])
    assert (shares.sum(0) == 1).all()
    assert set(shares.ravel()) == {0, 1}
    assert recipe["nll"] <= recipe["nll_best_alone"] + 1e-9


def test_assistants_learn_from_the_teacher_and_teach(go) -> None:
    models = [{"model": MF, "train": TRAIN}, {"model": MF | {"dim": 4}, "train": TRAIN}]
    recipe = {"kind": "assistants", "models": models, "terms": [KL]}
    made = go("assistants", teacher={"model": MF | {"dim": 16}, "train": TRAIN, "recipe": recipe})
    assert [artifact.manifest.stage for artifact in made.teacher] == ["fit", "labels", "fit", "fit", "recipe"]
    assert [made.teacher[i].manifest.inputs["labels"] for i in (2, 3)] == [made.teacher[1].fingerprint] * 2
    found = recipe_of(made)
    assert sum(one["share"][0] for one in found["judged"]) == pytest.approx(1)
    assert found["nll"] <= found["nll_best_alone"] + 1e-6


def test_a_generation_learns_from_the_one_before(go) -> None:
    recipe = {"kind": "self", "generations": 2, "terms": [KL]}
    made = go("self", teacher={"model": MF, "train": TRAIN, "recipe": recipe})
    assert [a.manifest.stage for a in made.teacher] == ["fit", "labels", "fit", "labels", "fit", "recipe"]
    assert made.teacher[3].manifest.inputs["teacher"] == made.teacher[2].fingerprint
    found = recipe_of(made)
    assert len(found["members"]) == 1
    best = min(found["judged"], key=lambda one: one["nll"])
    assert (found["members"][0]["model"], found["nll"]) == (best["model"], best["nll"])


def test_a_calibrated_file_teaches_chances_to_the_end(go, tiny) -> None:
    """Somebody else's ranks, made chances on the validation part, are what soft_bce may read."""
    rng = np.random.default_rng(5)
    users = pl.read_parquet(tiny.home / "d" / "users.parquet")["user_id"].to_list()
    items = pl.read_parquet(tiny.home / "d" / "items.parquet")["item_id"].to_list()
    log = pl.read_parquet(tiny.home / "d" / "interactions.parquet")
    liked = set(zip(log["user_id"].to_list(), log["item_id"].to_list(), strict=True))
    rows = [
        (u, i, rank)
        for u in users
        for rank, i in enumerate(sorted(items, key=lambda i: rng.random() - 0.5 * ((u, i) in liked)), start=1)
    ]
    schema = {"user_id": pl.String, "item_id": pl.Int64, "rank": pl.Int64}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet("ranks.parquet")
    made = go(
        "ranks",
        until="latency",
        teacher={"model": {"kind": "external", "path": "ranks.parquet", "score": "rank", "space": "rank"}},
        labels={"depth": 20, "calibration": "platt"},
        distill=[KL | {"loss": {"kind": "soft_bce"}}],
    )
    recipe = recipe_of(made)
    assert recipe["scale"] > 0
    scores = lists_of(made)["scores"].to_numpy()
    first = recipe["scale"] * -1 + recipe["shift"]  # the best of those whose first rank is unseen
    assert scores[:, 0].max() == pytest.approx(first, abs=1e-5)


def test_several_processes_make_the_same_teacher(tiny) -> None:
    """Trainings are collective and the choice is of one process: two of them get through, to what was planned."""
    teacher = {"model": MF, "train": TRAIN | {"epochs": 1}, "recipe": {"kind": "seeds", "seeds": [1, 2]}}
    sections = {"teacher": teacher, "student": STUDENT, "distill": [KL], "features": None, "registry": None}
    config = tiny.config("two", **sections, exec={"store": "two/store", "device": "cpu", "threads": 1})
    planned = json.loads(tiny("plan", config, "--json").stdout)["stages"]
    process = tiny("run", config, "--until", "labels", "--json", processes=2)
    assert process.returncode == 0, process.stderr
    made = json.loads(process.stdout)["stages"]
    assert [row["fingerprint"] for row in made] == [row["fingerprint"] for row in planned][: len(made)]
    assert [row["stage"] for row in made][-4:] == ["teacher-1", "teacher-2", "teacher-3", "labels"]
    recipe = json.loads((tiny.at("recipe", made[-2], "two/store") / "recipe.json").read_text())
    assert [one["share"] for one in recipe["members"]] == [[0.5], [0.5]]
