"""The whole path with the other teachers: somebody else's scores in a Parquet file, and an encoder; and with none."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

MF = {"model": {"kind": "mf", "dim": 8}, "train": {"epochs": 2, "batch": 512, "negatives": 64}}
KL = [{"kind": "list", "weight": 0.5, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}]


def said(process, code=0):
    assert process.returncode == code, process.stdout + process.stderr
    return json.loads(process.stdout)


def rows(outcome):
    return {row["stage"]: row for row in outcome["stages"]}


@pytest.fixture(scope="module")
def scored(tiny) -> pl.DataFrame:
    """Scores of 40 items for three users in four, written to scores.parquet, with ids that the log does not have."""
    rng = np.random.default_rng(5)
    users = pl.read_parquet(tiny.home / "d" / "users.parquet")["user_id"].to_list()
    items = pl.read_parquet(tiny.home / "d" / "items.parquet")["item_id"].to_list()
    found = [
        (u, i, s) for u in users[:150] for i, s in zip(rng.choice(items, 40, False), rng.normal(size=40), strict=True)
    ]
    found += [("stranger", items[0], 1.0), (users[0], -5, 9.0)]
    table = pl.DataFrame(found, schema={"user_id": pl.String, "item_id": pl.Int64, "score": pl.Float64}, orient="row")
    table.write_parquet(tiny.home / "scores.parquet")
    return table


def test_an_external_teacher_goes_the_whole_path(tiny, done, scored):
    config = tiny.config(
        "external",
        name="external",
        features=None,
        teacher={"model": {"kind": "external", "path": "scores.parquet"}},
        labels={"depth": 20},
        distill=KL,
        registry={"model": "external-model"},
    )
    outcome = said(tiny("run", config, "--json"))
    stages = rows(outcome)
    assert list(stages) == ["ingest", "split", "scratch", "labels", "student", "index", "evaluate", "latency"]
    assert (outcome["release"]["version"], outcome["release"]["alias"]) == (1, "champion")
    report = json.loads((tiny.home / outcome["report"]).with_suffix(".json").read_text())
    assert {r["model"] for r in report["quality"]} == {"teacher", "scratch", "student", "student@index", "popularity"}
    assert {r["model"] for r in report["latency"]} == {"student@index", "student@flat"}

    labels = tiny.at("labels", stages["labels"])
    wanted = by_hand(tiny, stages, scored, depth=20)
    table = pl.read_ipc(f"{labels}/*.arrow")
    assert table["items"].to_list() == wanted
    facts = json.loads((labels / "labels.json").read_text())
    lengths = [sum(item >= 0 for item in row) for row in wanted]
    counted = {"users": 200, "users_with_labels": sum(n > 0 for n in lengths), "shortest": 0, "p90_length": 20}
    counted |= {
        "mean_length": round(sum(lengths) / 200, 3),
        "items_listed": len({i for row in wanted for i in row} - {-1}),
    }
    assert {name: facts["coverage"][name] for name in counted} == counted
    assert (facts["joined"]["rows"], facts["joined"]["users"]) == (150 * 40 + 2, 151)
    assert (facts["joined"]["rows_joined"], facts["joined"]["users_joined"]) == (150 * 40, 150)
    assert report["data"]["labels"]["joined"] == facts["joined"]


def by_hand(tiny, stages, scored, depth):
    """Return the lists the file should give: by score, without what the user took in training, padded with -1."""
    ingested, divided = tiny.at("ingest", stages["ingest"]), tiny.at("split", stages["split"])
    users = pl.read_parquet(ingested / "users.parquet")["user_id"].to_list()
    items = {item: row for row, item in enumerate(pl.read_parquet(ingested / "items.parquet")["item_id"].to_list())}
    train = pl.read_ipc(divided / "train.arrow")
    taken = set(zip(train["user"].to_list(), train["item"].to_list(), strict=True))
    given: dict[str, list[tuple[float, int]]] = {}
    for user, item, score in scored.rows():
        if item in items:
            given.setdefault(user, []).append((-score, items[item]))
    lists = []
    for row, user in enumerate(users):
        best = [item for _, item in sorted(given.get(user, ())) if (row, item) not in taken][:depth]
        lists.append(best + [-1] * (depth - len(best)))
    return lists


def test_another_teacher_file_is_another_teacher(tiny, done, scored):
    """What the file holds decides, not where it lies."""

    def plan(path):
        teacher = {"model": {"kind": "external", "path": path}}
        sections = {"features": None, "teacher": teacher, "distill": KL, "registry": None}
        found = said(tiny("plan", tiny.config("planned", **sections), "--json"))
        return {row["stage"]: row["fingerprint"] for row in found["stages"]}

    scored.write_parquet(tiny.home / "moved.parquet")
    scored.with_columns(pl.col("score") * 2).write_parquet(tiny.home / "doubled.parquet")
    here, moved, doubled = plan("scores.parquet"), plan("moved.parquet"), plan("doubled.parquet")
    assert moved == here
    assert {stage for stage in here if doubled[stage] != here[stage]} >= {"labels", "student", "index", "evaluate"}
    assert doubled["scratch"] == here["scratch"]


def test_an_encoder_teaches_from_the_whole_catalogue(tiny, done):
    config = tiny.config("encoder", name="encoder", features=None, teacher=MF, distill=KL, registry=None)
    outcome = said(tiny("run", config, "--json"))
    stages = rows(outcome)
    assert outcome["release"] is None
    report = json.loads((tiny.home / outcome["report"]).with_suffix(".json").read_text())
    assert report["verdict"]["promoted"] is None
    assert {r["model"] for r in report["latency"]} == {"student@index", "student@flat", "teacher"}

    teacher = tiny.at("fit", stages["teacher"])
    users, items = (np.load(teacher / f"{side}.npy").astype(np.float64) for side in ("users", "items"))
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, atol=1e-5)
    logits = users @ items.T / 0.1  # cosine over the temperature that MFSpec has unless told otherwise
    train = pl.read_ipc(tiny.at("split", stages["split"]) / "train.arrow")
    logits[train["user"].to_numpy(), train["item"].to_numpy()] = -np.inf
    table = pl.read_ipc(f"{tiny.at('labels', stages['labels'])}/*.arrow")
    best = np.sort(logits, axis=1)[:, ::-1]
    np.testing.assert_allclose(table["scores"].to_numpy(), best[:, :30], atol=1e-4)
    rest = np.log(np.exp(best[:, 30:]).sum(axis=1))
    np.testing.assert_allclose(table["residual"].to_numpy(), rest, atol=1e-4)


def test_a_student_without_distillation_is_its_scratch_twin(tiny, done):
    student = {"model": {"kind": "two_tower", "dim": 8, "history": 8}, "train": {"epochs": 2, "batch": 512}}
    sections = {"features": None, "labels": None, "distill": None, "student": student, "registry": None}
    config = tiny.config("plain", name="plain", teacher=MF, **sections)
    outcome = said(tiny("run", config, "--json"))
    stages = rows(outcome)
    assert "labels" not in stages
    assert stages["student"]["fingerprint"] == stages["scratch"]["fingerprint"]
    assert (stages["scratch"]["hit"], stages["student"]["hit"]) == (False, True)
    report = json.loads((tiny.home / outcome["report"]).with_suffix(".json").read_text())
    assert [r["difference"] for r in report["student_minus_scratch"]] == [0.0, 0.0]
