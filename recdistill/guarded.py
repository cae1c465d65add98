"""A guard before MLflow's scoring app: what comes in is bounded and read, what goes out is an answer or one sentence.

Alone that app echoes a request that it cannot read, or a stack trace of it, passes over parameters that it does not
know, answers 500 to JSON that is nested too deep or comes without a content type, and takes bodies of any size.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

ASKED, WHICH = "/invocations", "/model"
BODY = 8 << 20  # bytes of a request
PAST = 8  # so many times as much is read and thrown away, so that who sends too much still reads why
AT_ONCE = 64  # requests that wait or are worked on in one process; more would wait longer than anybody asks again
SMALL = 1 << 16  # bytes of JSON that are read in less time than another thread takes to begin
LONGEST = 400  # characters of a sentence
TABLES = ("dataframe_records", "dataframe_split", "inputs", "instances")
COLUMNS, PARAMS = ("user_id", "history"), ("k", "exclude_seen")
SEND = 'send {"dataframe_records": [{"user_id": ..., "history": [...]}], "params": {"k": 10}} as application/json'
FAULT = "Encountered an unexpected error"  # what MLflow calls a failure of the model that the model did not foresee
TYPES = ("application/json", "application/vnd.apache.parquet")  # CSV has no lists, so MLflow refuses it here

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Doing:
    """What a process that serves is doing; the guard keeps count, and who ends it says that it is to end."""

    busy: int = 0
    leaving: bool = False  # connections are then closed after their next answer, so that clients come back elsewhere


class Reply(NamedTuple):
    """One whole answer."""

    status: int
    body: bytes
    media: str = "application/json"
    more: tuple[tuple[bytes, bytes], ...] = ()


def guarded(app: App, which: Mapping[str, Any], doing: Doing) -> App:
    """Return `app`, guarded; `which` says of what model and version every answer is, in headers and at /model."""
    headers = [(f"recdistill-{name}".encode(), str(which[name]).encode()) for name in ("model", "version")]

    async def answer(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        if scope["path"] == WHICH:
            reply: Reply | None = Reply(200, json.dumps(dict(which)).encode())
        elif scope["path"] != ASKED or scope["method"] != "POST":
            reply = await _asked(app, scope, receive)
        elif doing.busy >= AT_ONCE:
            text = f"{AT_ONCE} requests are being answered; ask again in a second, or start more workers"
            reply = _told(503, text)._replace(more=((b"retry-after", b"1"),))
        else:
            doing.busy += 1
            try:
                reply = await _invoked(app, scope, receive)
            finally:
                doing.busy -= 1
        if reply is None:  # who asked has gone
            return
        closing = [(b"connection", b"close")] if doing.leaving else []
        about = [(b"content-type", reply.media.encode()), (b"content-length", str(len(reply.body)).encode())]
        start = {"type": "http.response.start", "status": reply.status}
        await send(start | {"headers": [*about, *headers, *reply.more, *closing]})
        await send({"type": "http.response.body", "body": reply.body})

    return answer


async def _invoked(app: App, scope: MutableMapping[str, Any], receive: Receive) -> Reply | None:
    """Answer one request for recommendations; None if its client left."""
    media = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
    body = await _body(receive)
    if body is None:
        return None
    if len(body) > BODY:
        return _told(413, f"the body is longer than {BODY >> 20} MiB; send its rows in several requests")
    kind = media.partition(";")[0].strip().lower()
    if kind not in TYPES:
        return _told(415, f"the content type is {kind or 'missing'}; {SEND}")
    if kind == TYPES[0]:
        wrong = unread(body) if len(body) <= SMALL else await asyncio.to_thread(unread, body)
        if wrong is not None:
            return _told(400, wrong)
    return await _asked(app, scope, _again(body, receive))


async def _body(receive: Receive) -> bytes | None:
    """Return the body, or of one that is too long as much as tells so; None if the client left."""
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        size += len(message.get("body", b""))
        if size <= BODY:
            parts.append(message.get("body", b""))
        if not message.get("more_body") or size > PAST * BODY:
            return b"".join(parts) if size <= BODY else bytes(BODY + 1)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read, and then what comes after it."""
    left = [body]

    async def given() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return given


async def _asked(app: App, scope: MutableMapping[str, Any], receive: Receive) -> Reply:
    """Return what `app` answers, its errors as one sentence each; what nobody but us can mend goes to the log."""
    status, media, parts = 500, "application/json", list[bytes]()

    async def keep(message: Message) -> None:
        nonlocal status, media
        if message["type"] == "http.response.start":
            status = int(message["status"])
            media = dict(message.get("headers", ())).get(b"content-type", b"application/json").decode("latin-1")
        else:
            parts.append(message.get("body", b""))

    try:
        await app(scope, receive, keep)
    except Exception as cause:  # MLflow keeps those of the model: these are of reading the request
        log.exception("a request could not be read")
        return _told(400, f"the request cannot be read: {type(cause).__name__}: {cause}; {SEND}")
    body = b"".join(parts)
    if status < 400:
        return Reply(status, body, media)
    if status in (404, 405):
        return _told(status, f"there is nothing at {scope['method']} {scope['path']!r:.80}; ask POST {ASKED}")
    try:
        said = dict(json.loads(body))
    except (ValueError, TypeError):
        said = {"message": body.decode(errors="replace")}
    if str(said.get("message", "")).startswith(FAULT):
        log.error("the model failed: %s", said.get("stack_trace"))
    return _told(400 if status == 500 else status, sentence(str(said.get("message", ""))))


def unread(body: bytes) -> str | None:
    """Return what is wrong with a JSON body before anybody looks at its rows; None if nothing is."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as cause:
        return f"the body is not JSON that can be read: {cause}; {SEND}"
    if not isinstance(asked, dict):
        return f"the body is a JSON {type(asked).__name__}, not an object; {SEND}"
    if odd := [name for name in asked if name not in (*TABLES, "params")]:
        return f"the body has a field {odd[0]!r:.80}, which means nothing here; {SEND}"
    if sum(name in asked for name in TABLES) != 1:
        return f"the body must have exactly one of {', '.join(TABLES)}; {SEND}"
    split = asked.get("dataframe_split")
    columns = split.get("columns") if isinstance(split, dict) else None
    if isinstance(columns, list) and (twice := [name for name in COLUMNS if columns.count(name) > 1]):
        return f"dataframe_split has two columns {twice[0]!r}"  # of which MLflow would read the names for the values
    params = asked.get("params") or {}
    if not isinstance(params, dict):
        return f"params is a JSON {type(params).__name__}; it must be an object of {' and '.join(PARAMS)}"
    if odd := [name for name in params if name not in PARAMS]:
        return f"params has {odd[0]!r:.80}, which means nothing here; it takes {' and '.join(PARAMS)}"
    return None


def sentence(message: str) -> str:
    """Return the one sentence of an MLflow message that says what is wrong, without the request it quotes."""
    text = message.partition("\nInput:")[0]
    if text.startswith("Failed to predict data"):
        columns = "the columns are no user_id and history: " if "Failed to enforce schema" in text else ""
        text = columns + text.rpartition("Error: ")[2]
    return " ".join(text.partition(" IMPORTANT:")[0].split()).strip("'\" ")[:LONGEST] or SEND


def _told(status: int, text: str) -> Reply:
    codes = {413: "TOO_LARGE", 415: "BAD_REQUEST", 503: "TEMPORARILY_UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
    said = {"error_code": codes.get(status, "BAD_REQUEST"), "message": " ".join(text.split())[:LONGEST]}
    return Reply(status, json.dumps(said).encode())
