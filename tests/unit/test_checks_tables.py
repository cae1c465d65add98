"""Where tables lie must not change what is learned: optimizers whose sums or moments are of whole rows, or tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """
name: small
log: {path: log.parquet, user: u, item: i}
split: {kind: user_random}
teacher: {model: {kind: mf, dim: 16}, train: {epochs: 3, optimizer: OPTIMIZER}}
student: {model: {kind: mf, dim: 8}, train: {epochs: 3, optimizer: sgd}}
report: {k: [10]}
exec: {tables: LAYOUT}
"""


def write(tmp_path: Path, optimizer: str, layout: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD.replace("OPTIMIZER", optimizer).replace("LAYOUT", layout))
    return path


@pytest.mark.parametrize("layout", ["auto", "data_parallel"])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "sgd"])
def test_what_keeps_its_meaning_may_be_said(tmp_path: Path, optimizer: str, layout: str) -> None:
    assert load_config(write(tmp_path, optimizer, layout)).teacher.train.optimizer == optimizer


@pytest.mark.parametrize(
    ("optimizer", "layout", "reason"),
    [
        ("adam", "row_wise", "row_wise has no teacher.train.optimizer adam, which is of whole tables"),
        ("adam", "table_wise", "use data_parallel"),
        ("rowwise_adagrad", "data_parallel", "another algorithm with teacher.train.optimizer rowwise_adagrad"),
        ("rowwise_adagrad", "column_wise", "use adagrad or sgd"),
    ],
)
def test_what_would_be_another_algorithm_is_refused(tmp_path: Path, optimizer: str, layout: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, optimizer, layout))
    assert [problem.path for problem in caught.value.problems] == ["exec.tables"]
    assert reason in caught.value.problems[0].reason


@pytest.mark.parametrize(
    ("said", "path", "reason"),
    [
        ("{tables: {item: grid}}", "exec.tables.item", "grid is another algorithm with teacher.train.optimizer"),
        ("{device: cpu, topology: {hbm_gb: 80}}", "exec.topology.hbm_gb", "has no effect with exec.device cpu"),
        ("{device: cpu, cache: {load_factor: 0.1}}", "exec.cache", "has no effect with exec.device cpu"),
    ],
)
def test_what_is_said_of_places_must_have_effect(tmp_path: Path, said: str, path: str, reason: str) -> None:
    file = write(tmp_path, "rowwise_adagrad", "auto")
    file.write_text(file.read_text().replace("{tables: auto}", said))
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert reason in caught.value.problems[0].reason


def test_a_cache_is_of_tables_that_are_fused(tmp_path: Path) -> None:
    file = write(tmp_path, "adam", "auto")
    file.write_text(file.read_text().replace("{tables: auto}", "{cache: {}}"))
    with pytest.raises(ConfigError, match=r"has no teacher\.train\.optimizer adam, whose tables are whole"):
        load_config(file)
    file = write(tmp_path, "sgd", "auto")
    file.write_text(file.read_text().replace("{tables: auto}", "{cache: {}, tables: {user: data_parallel}}"))
    with pytest.raises(ConfigError, match=r"has no effect with exec\.tables\.user data_parallel"):
        load_config(file)


def test_a_bound_on_rows_names_a_table(tmp_path: Path) -> None:
    file = write(tmp_path, "sgd", "auto")
    file.write_text(file.read_text().replace("{kind: mf, dim: 8}", "{kind: mf, dim: 8, rows: {}}"))
    with pytest.raises(ConfigError, match=r"student\.model\.rows: has no effect: it names neither users nor items"):
        load_config(file)
