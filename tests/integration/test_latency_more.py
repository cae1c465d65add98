"""Queries a second and requests over HTTP, of a real bundle; no test says how long anything takes."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from pipelines.__main__ import main
from recdistill import http_latency
from recdistill.http_latency import NotServed, measure_http
from recdistill.latency import Target, measure
from recdistill.latency_spec import LatencySpec
from recdistill.throughput import measure_throughput


@pytest.fixture(scope="module")
def bundle(make_bundle, tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("more"))


def test_queries_a_second_of_every_batch_and_number_of_threads(bundle):
    targets = [Target(label="student@index", bundle=bundle), Target(label="unseen", bundle=bundle, exclude=True)]
    asked = {"k": 5, "batches": (1, 7), "threads": (1, 2), "rounds": 3, "seconds": 0.01}
    rows, environment = measure_throughput(targets, **asked)
    ways = [(r["model"], r["batch"], r["threads"]) for r in rows]
    assert ways == [(t.label, batch, threads) for t in targets for batch in (1, 7) for threads in (1, 2)]
    assert all(r["qps"] > 0 and r["spread"] >= 0 for r in rows)
    assert environment["torch_loaded"] is False
    assert (environment["threads"], environment["batch"]) == ([1, 2], [1, 7])
    assert isinstance(environment["noise"]["judge"], bool)


def test_requests_over_http_to_a_real_scoring_server(bundle):
    rows, environment = measure_http(bundle, label="student@index", k=5, exclude=True, queries=20, repeats=3)
    assert "skipped" not in environment, environment
    (row,) = rows
    assert (row["model"], row["part"], row["queries"]) == ("student@index", "http", 60)
    assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert environment["queries"] == 60
    assert environment["connections"] == 1


def test_without_a_server_http_is_skipped_with_the_reason(bundle, monkeypatch):
    def broken(_: object) -> None:
        raise NotServed("the scoring server did not come up: no port")

    monkeypatch.setattr(http_latency, "serving", broken)
    rows, environment = measure_http(bundle, label="student@index", k=5, exclude=False)
    assert rows == []
    assert environment["skipped"] == "the scoring server did not come up: no port"


def test_what_the_user_took_is_left_out_of_what_is_timed(bundle):
    # Lists as long as the catalogue hold everything, so the five items that each user took are in them, or left out.
    targets = [Target(label="all", bundle=bundle), Target(label="unseen", bundle=bundle, exclude=True)]
    rows, environment = measure(targets, k=300, queries=30, repeats=1, warmup=1, simd="NONE")
    shown = {label: told["shown_again"] for label, told in environment["targets"].items()}
    assert shown == {"all": pytest.approx(5 / 300), "unseen": 0.0}
    assert environment["targets"]["unseen"]["exclude"] is True
    assert environment["simd"] == "NONE"
    assert len(rows) == 6


def test_a_bundle_is_measured_again_by_the_command(bundle, capsys):
    words = ["latency", str(bundle), "--queries", "100", "--repeats", "3", "--batch", "2", "--threads", "1", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["model"], r["part"], r["queries"]) for r in found["latency"]] == [
        ("student@index", part, 300) for part in ("encode", "search", "total")
    ]
    assert [(r["batch"], r["threads"]) for r in found["throughput"]] == [(2, 1)]
    told = found["latency_environment"]["targets"]["student@index"]
    assert told["exclude"] is True  # the bundle keeps histories
    assert told["factory"] == "SQfp16"


@pytest.mark.parametrize("words", [["--batch", "1,x"], ["--queries", "5"], ["--simd", "SIMD9", "--batch", ""]])
def test_what_the_command_cannot_do_is_told(bundle, words, capsys):
    assert main(["latency", str(bundle), *words]) == 2
    said = capsys.readouterr().err
    assert words[0].strip("-") in said
    assert "Traceback" not in said


def test_threads_without_batches_are_refused():
    with pytest.raises(ValidationError, match="threads has no effect without batches"):
        LatencySpec(threads=(1, 2))
    assert LatencySpec(batches=(1,), threads=(1, 2)).threads == (1, 2)
