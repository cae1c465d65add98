"""Labelling shard by shard, by one process or by several machines: whose a shard is, what is missing, how it ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from recdistill.coverage import coverage
from recdistill.errors import ArtifactError, ConfigError
from recdistill.label_facts import FACTS
from recdistill.labels import RELABEL, Layout, Lister, open_shard, shard_path, write_shard
from recdistill.spec import canonical
from recdistill.store import sha256, write_text
from recdistill.types import Interactions, Log
from recdistill.whole import signature


@dataclass(frozen=True, slots=True)
class Share:
    """Part `number` of `of` equal ones: the shards s with s % of == number - 1."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Return the share that `i/n` names, 1/n to n/n; raises ConfigError if it names none."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of:
            fix = "write i/n with i from 1 to n, such as --shard 1/4 on the first of four machines"
            raise ConfigError(f"{text!r} names no share", where="--shard", fix=fix)
        return cls(number, of)

    def owns(self, shard: int) -> bool:
        """Say whether `shard` is of this share."""
        return shard % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def write_shards(out: Path, layout: Layout, make: Callable[[], Lister], log: Log, share: Share) -> dict[str, Any]:
    """Write the shards of `share` that are not there; returns which it wrote, and how much is there and missing.

    `make` gives the teacher's lists and is not called if nothing is missing. Raises ArtifactError, before anything is
    labelled, if a shard that is there is damaged or of other labels.
    """
    own = [shard for shard in range(layout.shards) if share.owns(shard)]
    for shard in sorted(set(own) - set(missing(out, layout))):
        _check(out, layout, shard)
    total, done = sum(len(layout.users(shard)) for shard in own), 0
    lister: Lister | None = None
    written: list[int] = []
    for shard in own:
        users = layout.users(shard)
        done += len(users)
        if not shard_path(out, shard).is_file():
            lister = lister or make()
            write_shard(out, layout, shard, lister(users))
            written.append(shard)
            log("label", done, total, {})
    return {"written": written, "shards": layout.shards, "missing": missing(out, layout)}


def missing(out: Path, layout: Layout) -> list[int]:
    """Return the shards that are not in `out`; one is renamed into place when it is whole."""
    return [shard for shard in range(layout.shards) if not shard_path(out, shard).is_file()]


def _check(out: Path, layout: Layout, shard: int) -> None:
    """Raise ArtifactError if a shard that is there is damaged, or of other labels."""
    open_shard(out, layout, shard, RELABEL)
    path = shard_path(out, shard)
    digest = signature(path)  # of a file that was gathered from elsewhere there may be none
    if digest.is_file() and digest.read_text(encoding="utf-8") != sha256(path):
        raise ArtifactError("contents differ from what was written", where=str(path), fix=RELABEL)


def finish(out: Path, layout: Layout, facts: Mapping[str, Any], train: Interactions) -> dict[str, Any]:
    """Check that every shard is there and of these labels, and write labels.json; returns it and `scored_at`.

    Raises ArtifactError that names all missing shards, or the first that is damaged or of other labels.
    """
    for shard in sorted(set(range(layout.shards)) - set(absent := missing(out, layout))):
        _check(out, layout, shard)
    if absent:
        what = f"{len(absent)} of {layout.shards} shards are missing: {', '.join(spans(absent))}"
        fix = "label them with `recdistill label CONFIG --shard i/n`, or without --shard here; or copy their files here"
        raise ArtifactError(what, where=str(out), fix=fix)
    known = asdict(layout) | {"along": list(layout.along)} | {"per_shard": layout.per_shard, "format": 2} | dict(facts)
    del known["shard_users"]
    known["coverage"] = coverage(out, layout, train)
    write_text(out / FACTS, canonical(known))
    # When they were scored is no part of what they are: the same labels made twice are the same files.
    times = [shard_path(out, shard).stat().st_mtime for shard in range(layout.shards)]
    return known | {"scored_at": datetime.fromtimestamp(min(times), UTC).isoformat(timespec="seconds")}


def spans(numbers: list[int]) -> Iterator[str]:
    """Yield the runs of rising `numbers`, such as 2-5."""
    known = set(numbers)
    lasts = (number for number in numbers if number + 1 not in known)
    for first, last in zip((number for number in numbers if number - 1 not in known), lasts, strict=True):
        yield str(first) if first == last else f"{first}-{last}"


def check_fresh(path: Path, facts: Mapping[str, Any], teacher: str, ttl_days: float | None, now: datetime) -> None:
    """Check what a label artifact's manifest says of itself.

    Raises ArtifactError if it is of another teacher, or if its oldest shard was scored more than `ttl_days` ago.
    """
    found = facts.get("stamp", {}).get("teacher")
    if found != teacher:
        what = f"labels of teacher {found}, where teacher {teacher} is asked for"
        raise ArtifactError(what, where=str(path), fix="delete the directory and run the same command again")
    age = now - datetime.fromisoformat(facts["scored_at"])
    if ttl_days is not None and age > timedelta(days=ttl_days):
        days = age / timedelta(days=1)
        what = f"the labels were scored at {facts['scored_at']}, {days:.1f} days ago; labels.ttl_days is {ttl_days:g}"
        fix = "delete the directory and run the same command again, which scores them anew, or raise labels.ttl_days"
        raise ArtifactError(what, where=str(path), fix=fix)
