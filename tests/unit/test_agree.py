"""What ranks on several machines say of themselves, and what stands against running them together."""

from __future__ import annotations

import pytest

from pipelines.distill import _meant
from recdistill import agree
from recdistill.config import load_config
from recdistill.errors import ArtifactError, ConfigError
from recdistill.world import World


def says(host, *, sees=True, meant="a"):
    return {"host": host, "root": f"/{host}/store", "sees": sees, "meant": meant}


def test_ranks_that_agree_may_begin() -> None:
    agree.judge([says("one"), says("two")])


def test_the_first_rank_that_means_another_run_is_named() -> None:
    with pytest.raises(ConfigError, match="rank 2 on three is about to run something else than rank 0 on one"):
        agree.judge([says("one"), says("two"), says("three", meant="b"), says("four", meant="b")])


def test_the_first_rank_that_does_not_see_the_store_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"rank 1 on two does not see .* to /one/store \(2 of 3 ranks do not\)"):
        agree.judge([says("one"), says("two", sees=False), says("three", sees=False)])


def test_what_a_run_means_is_not_where_a_machine_has_its_store(tmp_path) -> None:
    file = tmp_path / "run.yaml"
    log = "{path: log.parquet, user: user_id, item: item_id, time: timestamp}"
    model = "{model: {kind: mf, dim: 8}, train: {epochs: 3}}"
    file.write_text(f"name: same\nlog: {log}\nteacher: {model}\nstudent: {model}\n")
    meant = [_meant(load_config(file, sets)) for sets in ((), ("exec.store=/mnt/store",), ("teacher.train.seed=2",))]
    assert meant[0] == meant[1] != meant[2]


def test_one_machine_is_asked_nothing(tmp_path) -> None:
    agree.agree(tmp_path / "store", World(size=2, local=2), "a")
    agree.agree(tmp_path / "store", World(), "a")
    assert not (tmp_path / "store").exists()


def test_what_another_machine_writes_may_take_a_while_to_appear(tmp_path, monkeypatch) -> None:
    file, waits = tmp_path / "trace", []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            file.touch()

    monkeypatch.setattr(agree.time, "sleep", wait)
    assert agree._appears(file)
    assert len(waits) == 3
    monkeypatch.setattr(agree, "PATIENCE", 0.0)
    assert not agree._appears(tmp_path / "never")
