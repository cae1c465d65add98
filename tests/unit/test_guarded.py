"""The guard before the scoring app: what it lets through, what it says instead, and that it counts right."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from asgi import ask

from recdistill import guarded as guard
from recdistill.guarded import Doing, guarded, sentence, unread

WHICH = {"model": "films", "version": 3, "manifest_sha256": "ab"}
GOOD = b'{"dataframe_records": [{"user_id": 1}], "params": {"k": 3}}'


def app_of(status=200, body=b'{"predictions": []}', media="application/json", *, fails=None):
    """An app that answers so, and keeps what it was asked."""

    async def app(scope, receive, send):
        app.asked.append((await receive())["body"])
        if fails is not None:
            raise fails
        headers = [(b"content-type", media.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    app.asked = []
    return app


def told(answer):
    said = json.loads(answer.text)
    assert set(said) == {"error_code", "message"}
    assert "\n" not in said["message"]
    return said["message"]


def test_an_answer_goes_through_and_says_which_version_gave_it() -> None:
    app, doing = app_of(), Doing()
    answer = ask(guarded(app, WHICH, doing), parts=[GOOD[:20], GOOD[20:]])
    assert (answer.status, answer.text) == (200, '{"predictions": []}')
    assert answer.headers["recdistill-model"] == "films"
    assert answer.headers["recdistill-version"] == "3"
    assert "connection" not in answer.headers
    assert app.asked == [GOOD]
    assert doing.busy == 0
    assert json.loads(ask(guarded(app, WHICH, doing), path="/model", method="GET").text) == WHICH


def test_a_body_that_is_too_long_is_read_to_its_end_and_kept_from_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY", 100)
    app = app_of()
    parts = [b"x" * 60, b"x" * 60, b"x" * 60]
    answer = ask(guarded(app, WHICH, Doing()), parts=parts)
    assert answer.status == 413
    assert "several requests" in told(answer)
    assert app.asked == []
    endless = [b"x" * 60] * 50
    assert ask(guarded(app, WHICH, Doing()), parts=endless).status == 413


@pytest.mark.parametrize("media", [None, "", "text/plain", "text/csv", "application/x-www-form-urlencoded"])
def test_other_content_types_are_named(media: str | None) -> None:
    app = app_of()
    answer = ask(guarded(app, WHICH, Doing()), GOOD, media=media)
    assert answer.status == 415
    assert "application/json" in told(answer)
    assert app.asked == []


def test_more_requests_than_are_worked_on_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "AT_ONCE", 2)
    doing = Doing(busy=2)
    answer = ask(guarded(app_of(), WHICH, doing), GOOD)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert ask(guarded(app_of(), WHICH, doing), path="/ping", method="GET").status == 200  # it lives
    doing.busy = 1
    assert ask(guarded(app_of(), WHICH, doing), GOOD).status == 200
    assert doing.busy == 1


def test_one_who_leaves_closes_connections() -> None:
    assert ask(guarded(app_of(), WHICH, Doing(leaving=True)), GOOD).headers["connection"] == "close"


def test_nobody_is_answered_who_has_gone_and_nothing_is_asked() -> None:
    app, doing = app_of(), Doing()
    assert ask(guarded(app, WHICH, doing), parts=[GOOD], leave=True) is None
    assert app.asked == []
    assert doing.busy == 0


def test_what_the_app_cannot_read_is_a_sentence_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    doing = Doing()
    answer = ask(guarded(app_of(fails=RecursionError("too deep")), WHICH, doing), GOOD)
    assert answer.status == 400
    assert "RecursionError: too deep" in told(answer)
    assert "Traceback" not in answer.text
    assert "could not be read" in caplog.text
    assert doing.busy == 0


def test_a_cancelled_request_is_no_longer_counted() -> None:
    async def cancelled() -> int:
        async def never():
            await asyncio.sleep(60)

        async def nothing(_):
            raise AssertionError

        doing = Doing()
        scope = {"type": "http", "path": "/invocations", "method": "POST", "headers": []}
        task = asyncio.create_task(guarded(app_of(), WHICH, doing)(scope, never, nothing))
        await asyncio.sleep(0)
        assert doing.busy == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return doing.busy

    assert asyncio.run(cancelled()) == 0


def test_a_failure_of_the_model_leaves_its_trace_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    said = {"error_code": "BAD_REQUEST", "message": f"{guard.FAULT} while ...", "stack_trace": "Traceback: line 7"}
    with caplog.at_level(logging.ERROR):
        answer = ask(guarded(app_of(400, json.dumps(said).encode()), WHICH, Doing()), GOOD)
    assert answer.status == 400
    assert "Traceback" not in answer.text
    assert "line 7" in caplog.text


@pytest.mark.parametrize(
    ("status", "body", "expected", "said"),
    [
        (500, b'{"error_code": "INTERNAL_ERROR", "message": "no such column"}', 400, "no such column"),
        (500, b"Internal Server Error", 400, "Internal Server Error"),
        (404, b'{"detail": "Not Found"}', 404, "POST /invocations"),
        (504, b"Request processing time exceeded limit", 504, "exceeded limit"),
        (400, b"[1]", 400, "[1]"),
        (400, b'{"message": ""}', 400, "dataframe_records"),
    ],
)
def test_every_error_is_one_sentence_and_none_is_ours(status: int, body: bytes, expected: int, said: str) -> None:
    answer = ask(guarded(app_of(status, body), WHICH, Doing()), GOOD)
    assert answer.status == expected
    assert said in told(answer)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "Failed to predict data ' user_id\n0 1'. \nError: k is 0; it must be at least 1",
            "k is 0; it must be at least 1",
        ),
        (
            "Failed to predict data 'x'. \nError: Failed to enforce schema of data 'x'. Error: Missing ['user_id'].",
            "the columns are no user_id and history: Missing ['user_id'].",
        ),
        ("Invalid input. Error: 'it'\nInput: \nb'Error: a secret'\n", "Invalid input. Error: 'it"),
        ("Unrecognized parameters: x. IMPORTANT: the protocol changed", "Unrecognized parameters: x."),
    ],
)
def test_what_mlflow_quotes_is_left_out(message: str, said: str) -> None:
    assert sentence(message) == said
    assert len(sentence("Error: " + "x" * 10_000)) == guard.LONGEST


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"dataframe_records": [{"user_id": ' + b"1" * 5000 + b"}]}", "not JSON"),
        (b"[]", "a JSON list"),
        (b"null", "a JSON NoneType"),
        (b"{}", "exactly one of"),
        (b'{"dataframe_records": [], "inputs": []}', "exactly one of"),
        (b'{"dataframe_records": [], "messages": []}', "'messages', which means nothing"),
        (b'{"dataframe_records": [], "params": [1]}', "params is a JSON list"),
        (b'{"dataframe_split": {"columns": ["user_id", "user_id"], "data": [["a", "b"]]}}', "two columns 'user_id'"),
        (b'{"dataframe_records": [], "params": {"K": 3}}', "params has 'K'"),
    ],
)
def test_json_that_is_no_request_is_told_what_is_wrong(body: bytes, said: str) -> None:
    assert said in (unread(body) or "")
    assert len(told(ask(guarded(app_of(), WHICH, Doing()), body))) <= guard.LONGEST


@pytest.mark.parametrize(
    "params", ["", ', "params": null', ', "params": {}', ', "params": {"k": 1, "exclude_seen": true}']
)
def test_a_request_is_let_through(params: str) -> None:
    for table in guard.TABLES:
        assert unread(f'{{"{table}": []{params}}}'.encode()) is None
