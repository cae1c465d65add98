"""Ranks that wait for rank 0: as long as it says that it lives, and no longer."""

from __future__ import annotations

import time
from datetime import timedelta
from threading import Event

import pytest
import torch.distributed as dist

from recdistill import pulse

SHORT, ASK, LONG = timedelta(seconds=0.4), timedelta(seconds=0.02), timedelta(seconds=30)


class Store:
    """A key-value store in this process, with what a test says of its answers."""

    def __init__(self, *, dead: Event | None = None, broken: bool = False) -> None:
        self.values: dict[str, bytes] = {}
        self.dead, self.broken = dead, broken

    def clone(self) -> Store:
        return self

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)

    def wait(self, keys: list[str], patience: timedelta) -> None:
        if self.dead is not None:
            self.dead.wait()
        if self.broken:
            raise dist.DistNetworkError("connection reset")
        if not self.check(keys):
            time.sleep(patience.total_seconds())
            raise dist.DistStoreError("timeout")


def wait(store: Store) -> bool:
    return pulse.await_key(store, "k", silence=SHORT, ask=ASK, long=LONG)


def test_what_is_there_is_found() -> None:
    store = Store()
    store.set("k", "1")
    assert wait(store)


def test_a_rank_that_says_nothing_is_given_up() -> None:
    assert not wait(Store())


def test_a_store_that_never_answers_is_given_up_too() -> None:
    answers = Event()
    try:
        assert not wait(Store(dead=answers))
    finally:
        answers.set()


def test_a_broken_connection_is_an_error() -> None:
    with pytest.raises(dist.DistNetworkError, match="connection reset"):
        wait(Store(broken=True))


def test_a_rank_that_lives_is_waited_for(monkeypatch) -> None:
    """It takes three times as long as it may be silent."""
    monkeypatch.setattr(pulse, "BEAT", SHORT / 8)
    store = Store()
    began = time.monotonic()

    class Late(Store):
        def check(self, keys: list[str]) -> bool:
            if time.monotonic() > began + 3 * SHORT.total_seconds():
                store.values["k"] = b"1"
            return super().check(keys)

    late = Late()
    late.values = store.values
    with pulse.beating(store):
        assert wait(late)
