"""Whether rank 0 lives while the others wait for it: it says so every few seconds, and its silence has an end.

A machine that vanishes breaks its connections, or not; a process that is stopped keeps them all. Only what it says
itself tells that it works, and only a thread that nobody waits for may ask a server that may never answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

BEAT = timedelta(seconds=10)
KEY = "pulse"


@contextmanager
def beating(store: Any) -> Iterator[None]:
    """Tell `store` every BEAT that this process lives, for as long as the block runs."""
    stop = Event()

    def beat() -> None:
        with suppress(Exception):  # a store that is gone ends this process by another way
            line, beats = store.clone(), 0
            while not stop.wait(BEAT.total_seconds()):
                beats += 1
                line.set(KEY, str(beats))

    thread = Thread(target=beat, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(1)


def await_key(store: Any, key: str, *, silence: timedelta, ask: timedelta, long: timedelta) -> bool:
    """Wait for `key` in `store`, and say whether it came before rank 0 was silent for `silence`, or in `long` at all.

    `ask` is how often the store is asked anew. What is wrong with the connection to it is raised.
    """
    said: SimpleQueue[BaseException | bool] = SimpleQueue()
    heard = [time.monotonic()]  # when rank 0, or the store for it, last said something new
    thread = Thread(target=_listen, args=(store, key, ask, heard, said), name="listen", daemon=True)
    thread.start()
    end = time.monotonic() + long.total_seconds()
    while (now := time.monotonic()) < min(end, heard[0] + silence.total_seconds()):
        with suppress(Empty):
            found = said.get(timeout=min(1.0, max(0.0, heard[0] + silence.total_seconds() - now)))
            if isinstance(found, BaseException):
                raise found
            return True
    return False


def _listen(store: Any, key: str, ask: timedelta, heard: list[float], said: SimpleQueue[BaseException | bool]) -> None:
    import torch.distributed as dist

    try:
        line, last = store.clone(), b""
        while True:
            with suppress(dist.DistStoreError):  # it is not there yet; a store that is gone is another error
                line.wait([key], ask)
                said.put(True)
                return
            beat = line.get(KEY) if line.check([KEY]) else b""
            if beat != last:
                heard[0], last = time.monotonic(), beat
    except BaseException as cause:
        said.put(cause)
