"""An adjusted target is of items in a user's list, and of losses that read what it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """
name: small
log: {path: log.parquet, user: u, item: i}
split: {kind: user_random}
teacher: {model: {kind: mf, dim: 16}, train: {epochs: 3}}
labels: {depth: 30}
student: {model: {kind: mf, dim: 8}, train: {epochs: 3}}
distill: [{kind: list, weight: 1, draw: [{kind: top, k: 5}], target: [{kind: adjust}], loss: {kind: softmax_kl}}]
report: {k: [10]}
"""


def test_an_adjusted_target_may_be_taught(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    [term] = load_config(path).distill
    assert term.target[0].exponent == 0.1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["distill.0.side=items", "labels.item_depth=30"], "is of items in a user's list"),
        (["distill.0.loss={kind: plackett_luce}"], "has no effect: plackett_luce reads the order alone"),
        (["distill.0.teacher=partner", "student.partner={kind: mf, dim: 16}"], "has no effect: what a partner says"),
    ],
)
def test_an_adjusted_target_that_does_nothing_is_refused(tmp_path: Path, changes: list[str], reason: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_config(path, changes)
    assert [p.path for p in caught.value.problems] == ["distill.0.target.0"]
    assert reason in caught.value.problems[0].reason
