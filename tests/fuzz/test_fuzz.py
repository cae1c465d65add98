"""The short run: every way in, the kept inputs and a dozen new ones; the long one is `make fuzz`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # modules here are loaded by their files

import drive
import targets
from mutate import as_json

INPUTS = 15  # new ones of each target


@pytest.mark.parametrize("make", targets.MAKERS, ids=lambda make: make.__name__)
def test_whatever_comes_in_ends_well_or_in_an_error_of_ours(tmp_path, make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what readers say of hostile bytes
        target = make(tmp_path)
        # The slow are tried less: their inputs are few in the long run, too.
        count = 5 if make.__name__ in {"config_text", "words", "log_rows", "report"} else INPUTS
        tried = drive.go(target, 7, inputs=count, corpus=targets.corpus(make.__name__), patience=None)
    assert not tried.failures, "\n".join(f"{data!r}\n{said}" for data, said in tried.failures.values())
    assert tried.inputs >= count + len(target.seeds)


def test_a_failure_a_hang_and_a_promise_that_is_broken_are_found():
    from recdistill.errors import ArtifactError

    def run(data: bytes) -> None:
        if data == b"fail":
            raise KeyError("not ours")
        if data == b"hang":
            while True:
                pass
        if data == b"bare":
            raise ArtifactError("no fix")
        raise ArtifactError("what", where="here", fix="so")

    target = drive.Target("t", [b"fail", b"hang", b"bare", b"good"], run, lambda *_: b"good")
    tried = drive.go(target, 1, inputs=3, patience=0.2)
    assert tried.inputs == 7
    assert sorted(tried.ends) == ["ArtifactError", "FAILED Hang", "FAILED KeyError"]
    assert sorted(data for data, _ in tried.failures.values()) == [b"bare", b"fail", b"hang"]


def test_equal_seeds_make_equal_inputs_and_others_do_not():
    made: list[bytes] = []
    target = next(t for t in (make(Path()) for make in targets.MAKERS[1:2]))
    watched = drive.Target("t", target.seeds, made.append, target.make)
    for seed in (3, 3, 4):
        drive.go(watched, seed, inputs=5)
    step = len(made) // 3
    assert made[:step] == made[step : 2 * step] != made[2 * step :]
    assert as_json({"a": float("nan")}) == b'{"a": NaN}'


def test_the_corpus_is_small_and_of_targets_that_are_there():
    names = {make.__name__ for make in targets.MAKERS}
    files = list(targets.CORPUS.glob("*.json"))
    assert files
    assert {file.stem for file in files} <= names
    assert sum(file.stat().st_size for file in files) < 300_000
    assert targets.decoded(targets.encoded(b"\0\xff")) == b"\0\xff"
    assert targets.decoded(targets.encoded(b"a: b\n")) == b"a: b\n"
