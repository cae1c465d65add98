"""One loop for the short and the long run: an input is made, tried, and kept where it ends as none before it did."""

from __future__ import annotations

import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mutate import Maker

from recdistill.errors import ArtifactError, ConfigError, DataError, RecdistillError

ROOT = Path(__file__).parents[2]
PATIENCE = 5.0  # seconds of the processor that one input may take
WAIT = 20  # times as many of the clock


class Hang(BaseException):
    """An input took longer than it may; no handler of ours is to swallow it."""


class Broken(AssertionError):
    """What the errors promise does not hold."""


@dataclass(frozen=True)
class Target:
    """A way into the package: seeds that it takes, a maker of others, and a call that must end or raise ours."""

    name: str
    seeds: Sequence[bytes]
    run: Callable[[bytes], object]
    make: Maker
    allowed: tuple[type[BaseException], ...] = ()  # besides recdistill.errors


@dataclass
class Tried:
    """What came of the inputs of one target."""

    inputs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # by place, the first of each
    kept: dict[tuple[str, ...], bytes] = field(default_factory=dict)  # by how it ended, the shortest of each


def attempt(target: Target, data: bytes, tried: Tried, *, patience: float | None = PATIENCE) -> bool:
    """Try one input; say whether it ended as none before."""
    tried.inputs += 1
    try:
        with limited(patience):
            target.run(data)
        end, place = "accepted", ("accepted",)
    except RecdistillError as error:
        end, place = type(error).__name__, ending(error)
        if said := broken_promise(error):
            tried.failures.setdefault(f"{place}", (data, f"{said}: {error}"))
    except target.allowed as error:
        end, place = type(error).__name__, ending(error)
    except (Exception, Hang) as error:
        end, place = f"FAILED {type(error).__name__}", ending(error)
        told = "".join(traceback.format_exception(error)[-12:])
        before = tried.failures.get(f"{place}")
        if before is None or len(data) < len(before[0]):
            tried.failures[f"{place}"] = data, told[-3000:]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        end, place = f"FAILED {type(error).__name__}", (type(error).__name__,)  # a panic of what is no Python
        tried.failures.setdefault(f"{place}", (data, "".join(traceback.format_exception(error)[-12:])[-3000:]))
    tried.ends[end] += 1
    known = tried.kept.get(place)
    if known is None or len(data) < len(known):
        tried.kept[place] = data
    return known is None


def broken_promise(error: RecdistillError) -> str:
    """Say what an error lacks that every one of its kind has; nothing if it is whole."""
    if isinstance(error, ConfigError):
        return "" if error.problems and all(p.where and p.reason for p in error.problems) else "no problem named"
    if isinstance(error, DataError | ArtifactError) and not (error.what and error.fix):
        return "no fix named"
    return ""


def ending(error: BaseException) -> tuple[str, ...]:
    """Return how an error came about, as lines of the package: two inputs that end alike are as good as one."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f"{Path(f.filename).name}:{f.lineno}"
        for f in frames
        if "recdistill/" in f.filename or "pipelines/" in f.filename
    ]
    cause = error.__cause__ or error.__context__
    return (type(error).__name__, *ours[-6:], type(cause).__name__ if cause is not None else "")


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raise Hang inside the block when it takes longer."""
    if seconds is None:
        yield
        return

    def ring(*_: object) -> None:
        raise Hang(f"more than {seconds} s")

    # Of the processor, as others use the machine too; and of the clock, for what waits for something that never comes.
    timers = [(signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, WAIT * seconds)]
    before = [signal.signal(number, ring) for number, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def go(
    target: Target,
    seed: int,
    *,
    inputs: int | None = None,
    seconds: float | None = None,
    corpus: Sequence[bytes] = (),
    before: Callable[[bytes], object] = lambda _: None,
    patience: float | None = PATIENCE,
) -> Tried:
    """Try the seeds, the corpus, and so many `inputs`, or others for so many `seconds` of the processor."""
    rng, tried = random.Random(f"{target.name} {seed}"), Tried()
    pool = [*target.seeds, *corpus]
    for data in pool:
        before(data)
        attempt(target, data, tried, patience=patience)
    made, end = 0, None if seconds is None else time.process_time() + seconds
    while (inputs is None or made < inputs) and (end is None or time.process_time() < end):
        data = target.make(rng, pool)
        made += 1
        before(data)
        if attempt(target, data, tried, patience=patience) and len(data) < 20_000:
            pool.append(data)
    return tried
