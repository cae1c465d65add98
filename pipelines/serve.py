"""The command that serves a registered version over HTTP, and goes along when the champion changes."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from pipelines import serve_workers
from pipelines.console import Json, say
from pipelines.models import Trust, Uri, registry_uri
from recdistill.errors import ConfigError, StageError

if TYPE_CHECKING:
    from pipelines.serve_workers import Workers
    from recdistill.registry_served import Wanted

LOOK = 0.2  # seconds between two looks at the workers
Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Seconds = Annotated[float | None, Parameter(validator=validators.Number(gt=0))]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name is served."""

    uri: str
    name: str  # NAME[@alias|version]
    folder: Path  # for what is being checked
    bound: socket.socket
    workers: int
    trust: tuple[Path, ...]  # public keys, one of which must have signed


def serve(
    model: str,
    /,
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 5000,
    workers: Count = 1,
    follow: Seconds = None,
    trust: Trust = (),
    mlflow: Uri = None,
    json: Json = False,
) -> int:
    """Serve a registered version over HTTP, after its files and its code were checked; until control-C or SIGTERM.

    Answers as `mlflow models serve` does, at /invocations, with the version in the header recdistill-version and at
    /model; a request that cannot be answered gets one sentence. Nothing asks who is asking.

    Parameters
    ----------
    model
        Name of the registered model, for its champion; or NAME@alias, or NAME@version.
    host
        The address to listen at; left out, only this machine reaches it.
    port
        The port; 0 takes a free one, and says which.
    workers
        Processes that answer. They share the index and the tables in memory.
    follow
        Look every so many seconds where the alias points, and serve that version once it answers.
    """
    from recdistill import registry_served

    uri = registry_uri(mlflow)
    asked = registry_served.wanted(uri, model)
    if follow is not None and asked.alias is None:
        what = f"version {asked.version} of {asked.model} stays what it is: there is nothing to follow"
        raise ConfigError(what, where="--follow", fix="name an alias, or leave --follow out")
    with (
        tempfile.TemporaryDirectory(prefix="recdistill-serve-") as folder,
        serve_workers.bound(host, port) as bound,
        _stopped() as stop,
    ):
        place = Place(uri, model, Path(folder), bound, workers, trust)
        first = _begun(place, asked)
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
        text = f"{_named(asked)} answers at {address}/invocations"
        say(_which(asked) | {"url": address, "workers": workers}, text, as_json=json)
        serve_workers.end(_until(stop, place, first, follow))
    return 0


def _until(stop: Event, place: Place, now: Workers, follow: float | None) -> Workers:
    """Return the workers that serve when `stop` is set; every `follow` seconds others may have taken their place."""
    looked, said = time.monotonic(), ""
    while not stop.wait(LOOK):
        if now.dead():
            serve_workers.end(now)
            raise StageError(f"a worker of version {now.version} ended", fix="what it said stands above")
        if follow is None or time.monotonic() - looked < follow:
            continue
        text = ""
        try:
            now = _next(place, now)
        except Exception as cause:  # what serves goes on, whatever it is: the next look may find it mended
            text = f"version {now.version} goes on serving: {cause}"
        if text and text != said:
            print(text, file=sys.stderr, flush=True)
        looked, said = time.monotonic(), text
    return now


def _next(place: Place, now: Workers) -> Workers:
    """Return the workers of the version that is wanted now; those of another one have answered all they took."""
    from recdistill import registry_served

    asked = registry_served.wanted(place.uri, place.name)
    if asked.version == now.version:
        return now
    then = _begun(place, asked)
    serve_workers.end(now)
    print(f"{_named(asked)} answers; version {now.version} has ended", file=sys.stderr, flush=True)
    return then


def _begun(place: Place, asked: Wanted) -> Workers:
    """Return workers that answer for a version, after it was checked."""
    from recdistill import registry_served

    folder = place.folder / f"{asked.version}"
    folder.mkdir()
    try:
        model = registry_served.served_model(place.uri, asked, folder / "model", place.trust)
        return serve_workers.begin(model, _which(asked), place.bound, place.workers)
    finally:
        # The workers have read or mapped what they need; a file that is mapped lasts as long as they do, and nobody can
        # write into one that has no name.
        shutil.rmtree(folder, ignore_errors=True)


def _which(asked: Wanted) -> dict[str, Any]:
    return {
        "model": asked.model,
        "version": asked.version,
        "alias": asked.alias,
        "gate": asked.gate,
        "data_end": asked.data_end,
        "manifest_sha256": asked.manifest,
    }


def _named(asked: Wanted) -> str:
    alias = f" ({asked.alias})" if asked.alias else ""
    return f"{asked.model} version {asked.version}{alias}, data up to {asked.data_end}, gates {asked.gate},"


@contextmanager
def _stopped() -> Iterator[Event]:
    """Yield what is set when this process is told to end."""
    stop = Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
