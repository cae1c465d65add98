"""One request to an ASGI app in this process: what a server would send, and what it would get."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


def ask(app, body=b"", *, path="/invocations", method="POST", media="application/json", parts=None, leave=False):
    """Return the answer of `app`, None where it gave none; `parts` are pieces of the body, `leave` goes after them."""
    given = [*(parts if parts is not None else [body])]
    sent = []

    async def receive():
        if given:
            piece = given.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(given) or leave}
        if leave:
            return {"type": "http.disconnect"}
        await asyncio.sleep(60)
        raise AssertionError("nobody sends anything more")

    async def send(message):
        sent.append(message)

    headers = [] if media is None else [(b"content-type", media.encode())]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1)}
    asyncio.run(app(scope, receive, send))
    if not sent:
        return None
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:]).decode())
