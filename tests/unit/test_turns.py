"""Workers take turns one at a time; how one fails is how all of them fail."""

from __future__ import annotations

import pytest

from recdistill import turns
from recdistill.errors import ArtifactError, ConfigError, StageError
from recdistill.turns import Worker, take_turns

CODE = """
import sys, time
from pathlib import Path
from recdistill.errors import ConfigError
from recdistill.turns import work_in_turns


class Broken(Exception):
    pass


def begin(request):
    print("noise of a library")  # is no answer
    def take(turn):
        if request.get("fails") == turn:
            raise {"config": ConfigError("set wrongly", where="here"), "broken": Broken("not whole")}[request["how"]] \
                if "how" in request else ValueError("unforeseen")
        if request.get("hangs"):
            time.sleep(60)
        with Path(request["log"]).open("a") as log:
            log.write(f"{request['name']}{turn} ")
    return take, lambda: {"name": request["name"]}


sys.exit(work_in_turns(Path(sys.argv[1]), begin, Broken))
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Return how to make a worker that writes down its turns; its module lies in a folder of its own."""
    (tmp_path / "turn_taker.py").write_text(CODE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(name: str, **more) -> Worker:
        return Worker("turn_taker", {"name": name, "log": str(tmp_path / "log"), **more})

    return make


def test_workers_take_turns_and_each_goes_first_in_turn(worker, tmp_path):
    assert take_turns([worker("a"), worker("b")], 4) == [{"name": "a"}, {"name": "b"}]
    assert (tmp_path / "log").read_text().split() == ["a0", "b0", "b1", "a1", "a2", "b2", "b3", "a3"]


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({}, StageError, "turn_taker failed: .*unforeseen"),
        ({"how": "broken"}, ArtifactError, "not whole"),
        ({"how": "config"}, ConfigError, "here: set wrongly"),
    ],
)
def test_what_a_worker_fails_of_is_told(worker, how, error, said):
    with pytest.raises(error, match=f"(?s){said}"):
        take_turns([worker("a"), worker("b", fails=1, **how)], 3)


def test_a_worker_that_does_not_begin_is_told(tmp_path):
    with pytest.raises(StageError, match="No module named"):
        take_turns([Worker("nowhere_to_be_found", {})], 1)


def test_a_worker_that_hangs_is_ended(worker, monkeypatch):
    monkeypatch.setattr(turns, "LIMIT", 1.5)
    with pytest.raises(StageError, match="ran past"):
        take_turns([worker("a", hangs=True)], 1)
