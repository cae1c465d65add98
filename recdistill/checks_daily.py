"""What a configuration can get wrong of a run of every night."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config


def nights_told_apart(config: Config) -> Iterator[Finding]:
    """A day is a matter of times, and what a night finds by itself is not given."""
    if config.daily is None:
        return
    if config.log.time is None:
        yield ("daily",), "needs times to tell a day by: name their column in log.time"
    if isinstance(config.log.path, dict):
        yield ("log", "path"), "names the parts, which no window of days can be cut out of: give one log"
    if config.yesterday is not None:
        yield ("yesterday",), "has no effect with daily, which finds the day before in the registry: leave it out"
    for name, side in {"teacher": config.teacher, "student": config.student}.items():
        if side.start == "yesterday":
            yield (name, "start"), "is decided every night: leave it out, daily.start says by what"


def champion_possible(config: Config) -> Iterator[Finding]:
    """To begin where the champion ended takes a registry, models that can, and a test part they have not learned."""
    daily = config.daily
    if daily is None:
        return
    if daily.start == "full":
        for name in sorted({"full_every_days", "full_on_drift"} & daily.model_fields_set):
            yield ("daily", name), "has no effect: every night begins at random; set daily.start: champion"
        return
    if config.registry is None:
        yield ("daily", "start"), "asks for the champion, and there is no registry: add one, or set daily.start: full"
    if config.split.kind == "user_random":
        reason = "would test a night on what its champion has learned: hold out by time, or set daily.start: full"
        yield ("split", "kind"), reason
    if not config.teacher.moves and not student_moves(config):
        reason = "champion has no effect: neither the teacher nor the student can begin where another ended"
        yield ("daily", "start"), f"{reason} (an encoder as teacher, a student that is taught); set daily.start: full"
    for name, can in {"teacher": config.teacher.moves, "student": student_moves(config)}.items():
        if not can and getattr(config, name).warm is not None:
            yield (name, "warm"), f"has no effect: this {name} cannot begin where another ended; leave it out"


def student_moves(config: Config) -> bool:
    """Say whether the student could begin where yesterday's ended: it is all tables, and is taught."""
    return config.student.start == "random" and bool(config.distill)


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (nights_told_apart, champion_possible)
