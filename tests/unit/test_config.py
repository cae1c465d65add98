from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import Config, ExecSpec, config_schema, load_config
from recdistill.errors import ConfigError

GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i, time: t}
teacher:
  model: {kind: ranker, dim: 16}
  train: {epochs: 3, negatives: 4, lr: 1e-2}
labels: {depth: 50, candidates: {ann: 20, popular: 5, uniform: 5}}
student:
  model: {kind: two_tower, dim: 8}
  train: {epochs: 3, seed: 2}
distill:
  - kind: list
    weight: 0.5
    draw:
      - {kind: ranked, k: 10}
      - {kind: unseen, n: 20}
    loss: {kind: plackett_luce}
index: {k: [10, 50]}
report: {k: [10, 20], metrics: [recall, ndcg]}
registry: {model: tiny-retrieval, gates: {ndcg_at_10: {min_of_teacher: 0.9}, index_recall_at_50: {min: 0.9}}}
exec: {store: runs/store, device: cpu}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


def complaints(file: Path, *sets: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(file, sets)
    assert caught.value.exit_code == 2
    return [str(p).replace(str(file.parent) + "/", "") for p in caught.value.problems]


def test_a_whole_configuration(file: Path) -> None:
    config = load_config(file)
    assert (config.name, config.split.kind, config.features) == ("tiny", "global_time", None)
    assert config.teacher.train is not None
    assert config.teacher.train.lr == 0.01
    assert [d.kind for d in config.distill[0].draw] == ["ranked", "unseen"]
    assert config.exec == ExecSpec(store="runs/store", device="cpu")
    assert config.exec.tracking_uri == "sqlite:///runs/mlflow.db"


def test_settings_on_top(file: Path) -> None:
    config = load_config(file, ["distill.0.weight=2", "exec.mlflow=http://tracking:5000", "student.model.dim=32"])
    assert (config.distill[0].weight, config.exec.tracking_uri) == (2.0, "http://tracking:5000")
    assert config.student.model.dim == 32
    assert load_config(file, ["registry=null"]).registry is None


def test_the_configuration_survives_its_own_json(file: Path) -> None:
    config = load_config(file)
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_everything_wrong_at_once(file: Path) -> None:
    text = GOOD.replace("epochs: 3, negatives: 4", "epoch: 3, negatives: few").replace("kind: ranked", "kind: rank")
    text = text.replace("name: tiny", "name: Tiny Run").replace("metrics: [recall, ndcg]", "metrics: [recal]")
    file.write_text(text.replace("device: cpu", "device: gpu") + "lables: {}\n")
    found = complaints(file, "exec.threads=0", "nothing")
    assert [line.partition(": ")[0] for line in found] == [
        "--set nothing",
        "run.yaml:1:1",
        "run.yaml:5:3",
        "run.yaml:5:11",
        "run.yaml:5:21",
        "run.yaml:14:10",
        found[6].partition(": ")[0],  # the report's metrics: the key, or the entry of its list
        "run.yaml:20:27",
        "run.yaml:21:1",
        "--set exec.threads",
    ]
    assert found[3] == "run.yaml:5:11: teacher.train.epoch: unknown key, did you mean 'epochs'?"
    assert "unknown kind 'rank', did you mean 'ranked'? kinds: top, ranked, unseen, rest, own, whole" in found[5]
    assert found[6].startswith("run.yaml:18:")
    assert found[7].endswith("expected 'auto', 'cpu' or 'cuda', not the text 'gpu', did you mean 'cpu'?")
    assert found[8] == "run.yaml:21:1: lables: unknown key, did you mean 'labels'?"


@pytest.mark.parametrize(
    ("sets", "messages"),
    [
        (["log.time=null"], ["--set log.time: log.time: required by split.kind global_time"]),
        (["split={kind: given}"], ["--set split: split.kind: the log does not say its parts"]),
        (["log.split=part"], ["--set log.split: log.split: has no effect with split.kind global_time"]),
        (["log.path={train: a, test: b}"], ["--set log.path: log.path: has no effect with split.kind global_time"]),
        (
            ["log.path={train: a, valid: c, test: b}", "split={kind: given, seed: 3}"],
            ["--set split: split.seed: has no effect: log.path names a valid part"],
        ),
        (["teacher.train=null"], ["--set teacher.train: teacher.train: required, but not given"]),
        (
            ["teacher.model={kind: external, path: x}", "labels.candidates=null"],
            ["run.yaml:5:3: teacher.train: has no effect: an external teacher"],
        ),
        (
            ["teacher.model={kind: mf, dim: 8}"],
            ["run.yaml:6:21: labels.candidates: has no effect: a teacher of kind mf"],
        ),
        (["distill=[]"], ["run.yaml:6:1: labels: has no effect without distill"]),
        (
            ["labels.depth=15"],
            ["run.yaml:18:10: report.k: 20 is beyond the teacher's lists, 15 deep"],
        ),
        (
            ["distill.0.draw.0.k=60"],
            ["--set distill.0.draw.0.k: distill.0.draw.0.k: 60 is beyond the teacher's lists, 50 deep"],
        ),
        (["distill.0.draw=[{kind: unseen, n: 3}]"], ["--set distill.0.draw: distill.0.draw: draws nothing"]),
        (["teacher.train.list_users=5"], ["--set teacher.train.list_users: teacher.train.list_users: has no effect"]),
        (["student.seeds=[3, 3]", "student.train.seed=3"], ["--set student.seeds: student.seeds: names a seed twice"]),
        (["student.seeds=[4, 5]"], ["run.yaml:9:22: student.train.seed: has no effect: student.seeds are 4, 5"]),
        (
            ["registry.gates={recall_at_30: {min: 0.1}}"],
            ["--set registry.gates: registry.gates.recall_at_30: k = 30 is not measured: add it to report.k"],
        ),
        (
            ["registry.gates={mrr_at_10: {min: 0.1}}"],
            ["--set registry.gates: registry.gates.mrr_at_10: mrr is not measured: add it to report.metrics"],
        ),
        (
            ["registry.gates={ndcg_at_10_worst_popularity: {min: 0.1}, churn_at_30: {max: 0.1}}", "report.slices=[]"],
            [
                "registry.gates.ndcg_at_10_worst_popularity: slices by popularity are not measured: add it to",
                "registry.gates.churn_at_30: k = 30 is not measured: add it to report.k",
            ],
        ),
        (
            ["registry.gates={data_age_hours: {max: 26}}", "log.time=null", "split.kind=user_random"],
            ["--set registry.gates: registry.gates.data_age_hours: can never pass: the log has no times"],
        ),
        (["index.k=[10]"], ["index_recall_at_50: k = 50 is not measured", "index.k: stops at 10, but report.k asks"]),
        (
            ["report.metrics=[recall, ndcg, recall]", "index.k=[50, 50]"],
            [
                "--set report.metrics: report.metrics: names recall twice",
                "--set index.k: index.k: names 50 twice",
            ],
        ),
        (["index.factory=HNSV32"], ["--set index.factory: index.factory: FAISS cannot make"]),
        (["index.params=nprobe=8"], ["--set index.params: index.params: are those of one kind of index"]),
        (
            ["index={factory: HNSW32, k: [50], params: nprobe=8, min_recall: 0.9}"],
            [
                "--set index: index.params: FAISS cannot set 'nprobe=8' of an index 'HNSW32'",
                "--set index: index.min_recall: has no effect: index.params are given",
            ],
        ),
        (
            ["teacher.model={kind: mf, dim: 8}", "labels.candidates=null", "features={users: {path: x, numeric: [a]}}"],
            ["--set features: features: has no effect: a teacher of kind mf"],
        ),
    ],
)
def test_settings_that_contradict_each_other(file: Path, sets: list[str], messages: list[str]) -> None:
    found = complaints(file, *sets)
    assert len(found) == len(messages)
    assert all(message in line for message, line in zip(messages, found, strict=True)), found


def test_list_users_without_distillation(file: Path) -> None:
    text = GOOD.replace("seed: 2", "list_users: 9").replace("labels: {depth: 50, candidates: {", "x: {y: {")
    file.write_text("\n".join(line for line in text.splitlines() if not line.startswith("x:")))
    assert complaints(file, "distill=[]") == [
        "run.yaml:8:22: student.train.list_users: has no effect without distill; leave it out"
    ]


def test_seeds_may_repeat_what_train_says(file: Path) -> None:
    assert load_config(file, ["student.seeds=[2, 3]"]).student.all_seeds == (2, 3)


def test_the_committed_schema_is_current() -> None:
    import json

    committed = json.loads((Path(__file__).parents[2] / "configs" / "schema.json").read_text())
    assert committed == config_schema(), "it is out of date: python -m pipelines.schema"
