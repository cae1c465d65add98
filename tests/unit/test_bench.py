from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import workers
from benchmarks.environments import environment
from benchmarks.goals import compare, judged, markdown, missing
from benchmarks.timing import Round, interleaved
from benchmarks.workers import Crew, PeerError, crew

PEER = """
import sys
sys.path.insert(0, {peers!r})
from worker import Job, serve


def adds(asked):
    print("a library that prints")
    return Job(lambda: asked["units"], name="adds")


def breaks(asked):
    raise ValueError("no such thing")


def dies(asked):
    sys.exit("the end")


serve({{"adds": adds, "breaks": breaks, "dies": dies}})
"""


@pytest.fixture
def peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "peer.py").write_text(PEER.format(peers=str(workers.PEERS)))
    monkeypatch.setattr(workers, "PEERS", tmp_path)
    return tmp_path


def test_a_peer_answers_rounds_though_its_library_prints_and_one_that_fails_says_why(peers: Path) -> None:
    with crew(peers / "said") as made:
        for task in ("adds", "breaks", "dies"):
            made.add(task, "peer.py", task, python=Path(sys.executable), units=4)
        made.add("absent", "peer.py", "adds", python="could not be installed: no wheel")
        found = interleaved(made.workers, 2)
        assert made.workers["adds"].about == {"name": "adds"}
        with pytest.raises(PeerError, match="no wheel"):
            made.need("absent")
    assert [len(rounds) for rounds in found.values()] == [2]
    assert made.failed == {
        "breaks": "ValueError: no such thing",
        "dies": "the end",
        "absent": "could not be installed: no wheel",
    }


def test_the_seconds_of_a_round_are_those_of_a_unit_of_work(peers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Crew(peers / "said")
    made.add("adds", "peer.py", "adds", python=Path(sys.executable), units=4)
    worker = made.workers["adds"]
    monkeypatch.setattr(worker, "ask", lambda **_: {"wall": 8.0, "cpu": 2.0, "work": 4})
    assert worker() == Round(wall=2.0, cpu=0.5)
    worker.close()


def test_a_ratio_is_the_median_of_those_within_a_round() -> None:
    ours = [Round(1.0, 1.0), Round(1.0, 2.0), Round(1.0, 4.0)]
    theirs = [Round(5.0, 3.0), Round(5.0, 4.0), Round(5.0, 20.0)]
    found = {"ours": ours, "theirs": theirs}
    row = compare(found, "G1", "training", "ours", "theirs", must=2.5, aim=4.0)
    assert (row["ratio"], row["met"], row["spread"]) == (3.0, "must", 1.0)
    assert (row["ours_per_cpu_s"], row["peer_per_s"]) == (0.5, 0.2)
    assert compare(found, "G1", "training", "ours", "theirs", by="wall", must=2.5, aim=4.0)["met"] == "aim"


def test_a_limit_from_above_is_met_below_it() -> None:
    met = [judged({"ratio": value}, 1.5, 1.2, below=True)["met"] for value in (1.1, 1.4, 1.6)]
    assert met == ["aim", "must", "no"]


def test_the_table_gives_the_reason_where_there_is_no_figure() -> None:
    row = judged({"goal": "G1", "what": "w", "ours": "ours", "peer": "p", "ratio": 2.0, "spread": 0.1}, 1.0, None)
    lines = markdown([row, missing("G1", "w", "other", "could not be installed: no wheel")]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "could not be installed: no wheel" in lines[-1]


def test_an_environment_that_cannot_be_made_is_remembered_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.environments.PINS", tmp_path)
    monkeypatch.setattr("benchmarks.environments._bare", lambda _: [sys.executable, "-c", "raise OSError('full')"])
    (tmp_path / "peer.txt").write_text("peer==1\n")
    assert environment("peer", tmp_path / "home") == "could not be installed: OSError: full"
    monkeypatch.setattr("benchmarks.environments._bare", lambda _: [sys.executable, "-c", "raise OSError('again')"])
    assert environment("peer", tmp_path / "home") == "could not be installed: OSError: full"
