"""What a configuration may say of a ranker's time and heads, and what it is told when the log cannot give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i, time: t, weight: stars, event: kind, events: [view, buy]}
teacher:
  model:
    kind: ranker
    time: true
    tasks: {liked: {min_weight: 4}, bought: {event: buy, score: 1}}
  train: {epochs: 3}
labels: {depth: 50, compute: bf16}
student:
  model: {kind: two_tower, dim: 8}
  train: {epochs: 3}
distill:
  - {kind: list, weight: 0.5, draw: [{kind: top, k: 10}], loss: {kind: softmax_kl}}
report: {k: [10]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


def test_time_and_heads_are_taken(file):
    model = load_config(file).teacher.model
    assert {name: task.score for name, task in model.tasks.items()} == {"liked": 0.0, "bought": 1.0}


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["log.weight=null"], "7:13: teacher.model.tasks.liked: the log does not say it: name the column in log.weigh"),
        (["log.event=null", "log.events=null"], "tasks.bought: the log does not say it: name the column in log.event"),
        (["log.events=[view]"], "tasks.bought: log.events leaves out every 'buy': add it there"),
        (["log.time=null", "split.kind=user_random"], "6:5: teacher.model.time: has no effect: the log has no times"),
        (["teacher.model.tasks.liked.event=view"], "give either event or min_weight"),
        (["teacher.model={kind: external, path: x}", "teacher.train=null"], "labels.compute: has no effect"),
    ],
)
def test_what_the_log_cannot_give_is_refused(file, sets, said):
    with pytest.raises(ConfigError) as caught:
        load_config(file, sets)
    assert said in str(caught.value)
