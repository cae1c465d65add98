"""The faults: what each does to one command, how what it broke is put right, and what is counted of it."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import points
from children import Ended
from scene import Scene, differences, made

REASONS = (1, 3, 4, 5)  # exit codes with which a command refuses, each with an error that says why
PATIENCE = 4  # times that one command is repeated, each with what it named put right
HUNG = 15.0  # seconds of silence that ranks of these runs bear


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One fault and what came of it: survived, refused (and then ended the same), or lost."""

    kind: str
    stage: str
    what: str
    came: str
    why: str = ""


Broken = Callable[[Ended], None]
"""Puts right what was broken, of which the command said so much."""


def no_matter(_: Ended) -> None:
    """Put nothing right: the fault has passed."""


def again(scene: Scene, stage: str, first: Ended | None, mend: Broken) -> tuple[str, str]:
    """Give the same command until it ends, mending what it refuses, and return what came and why.

    `first` is how it ended under the fault, if it was there already.
    """
    refused, ended = list[str](), first
    for _ in range(PATIENCE):
        if ended is None or ended.code < 0:
            ended = max(scene.run(stage), key=lambda one: abs(one.code))
        if ended.code == 0:
            here, wanted = made(scene.home), scene.whole[stage]
            if odd := differences(here, wanted):
                both = [str(here.get(odd[0])), str(wanted.get(odd[0]))]
                at = next((n for n, (a, b) in enumerate(zip(*both, strict=False)) if a != b), 0)
                told = " for ".join(one[max(0, at - 60) : at + 60] for one in both)
                return "lost", f"differs: {odd[:6]} ({told}) after {refused}"
            return "refused" if refused else "survived", "; ".join(refused)
        if ended.code not in REASONS or not reason(ended.said):
            return "lost", f"exit {ended.code}: {ended.said[-1500:]}"
        refused.append(reason(ended.said))
        mend(ended)
        ended = None
    return "lost", f"it never ended: {refused}"


def reason(said: str) -> str:
    """Return the error that a command ended with; nothing where it gave none, or nothing but its own surprise."""
    found = re.search(r"^(?:rank \d+: )?error: (.*)", said, re.MULTILINE | re.DOTALL)
    if found is None or "unexpected" in found[1][:12] or "Traceback" in said:
        return ""
    return " ".join(found[1].split())[:300]


def killed(scene: Scene, stage: str, random: Random) -> Tried:
    """kill -9 at a random change of a random rank, or a while after it."""
    scene.restore(stage)
    rank = random.randrange(scene.ranks)
    many = scene.points[stage][rank]
    number = random.randint(1, len(many)) if many else 0
    late = random.choice([0.0, 0.0, 0.001, 0.005, 0.02, 0.1]) * random.random()
    if not many:  # a rank that only waits for the others
        late = random.uniform(0, scene.seconds[stage])
    strike = points.kill_in(late) if late else points.kill

    def before(mine: int) -> None:
        patient()
        if mine == rank and many:
            points.at(scene.home, number, strike)
        elif mine == rank:
            strike()

    together = random.random() < 0.7
    ended = scene.run(stage, before=before, together=together)
    at = many[number - 1][-70:] if many else "it only waits"
    what = f"rank {rank} before change {number} of {len(many)} + {1000 * late:.1f} ms: {at}"
    kind = "kill -9" if scene.ranks == 1 else "kill -9 of a rank"
    first = min(ended, key=lambda one: one.code)
    if mute := [one for one in ended if one.code > 0 and not reason(one.said)]:
        return Tried(kind=kind, stage=stage, what=what, came="lost", why=f"no reason: {mute[0].said[-800:]}")
    return Tried(kind=kind, stage=stage, what=what, **_came(again(scene, stage, first, no_matter)))


def stopped(scene: Scene, stage: str, random: Random) -> Tried:
    """SIGSTOP of a random rank at a random change: for a while, or for good, when the others must end by themselves."""
    scene.restore(stage)
    able = [rank for rank in range(scene.ranks) if scene.points[stage][rank]]
    rank, wakes = random.choice(able), random.choice([1.0, None])
    many = scene.points[stage][rank]
    number = random.randint(1, len(many))

    def before(mine: int) -> None:
        patient()
        if mine == rank:
            points.at(scene.home, number, points.stop)

    ended = scene.run(stage, before=before, wakes=wakes, together=False)
    kind = "a rank stops for a while" if wakes else "a rank stops for good"
    what = f"rank {rank} before change {number} of {len(many)}: {many[number - 1][-70:]}"
    others = [one for n, one in enumerate(ended) if n != rank]
    if wakes is None and not all(one.code in REASONS and reason(one.said) for one in others):
        codes = {one.code: one.said[-800:] for one in others}
        return Tried(kind=kind, stage=stage, what=what, came="lost", why=f"the others did not say why: {codes}")
    first = min(ended, key=lambda one: one.code)
    return Tried(kind=kind, stage=stage, what=what, **_came(again(scene, stage, first, no_matter)))


def _came(found: tuple[str, str]) -> dict[str, str]:
    return {"came": found[0], "why": found[1]}


def patient() -> None:
    """Have this process wait seconds for its peers where it would wait minutes."""
    from datetime import timedelta

    from recdistill import pulse, world

    world.HUNG, pulse.BEAT = timedelta(seconds=HUNG), timedelta(seconds=HUNG / 6)


def full(scene: Scene, stage: str, random: Random) -> Tried:
    """A file system that has room for a part of what the stage writes: the scene must lie on a tmpfs of its own."""
    scene.restore(stage)
    disk = scene.home.parents[1]
    used = shutil.disk_usage(disk).used
    room = int(max(1 << 12, 1.2 * scene.bytes[stage]) * random.random())
    subprocess.run(["mount", "-o", f"remount,size={used + room}", str(disk)], check=True)

    def mend(_: Ended) -> None:
        subprocess.run(["mount", "-o", "remount,size=4g", str(disk)], check=True)

    try:
        ended = worst(scene.run(stage, before=lambda _: patient()))
    finally:
        mend(Ended(0, "", 0))
    return Tried(kind="disk full", stage=stage, what=f"{room} bytes free", **_came(again(scene, stage, ended, mend)))


def limited(scene: Scene, stage: str, random: Random) -> Tried:
    """No file may become larger than so many bytes, in whatever language it is written."""
    scene.restore(stage)
    most = int(10 ** random.uniform(0, 5))

    def before(_: int) -> None:
        patient()
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    ended = worst(scene.run(stage, before=before))
    what = f"files of at most {most} bytes"
    return Tried(kind="write fails", stage=stage, what=what, **_came(again(scene, stage, ended, no_matter)))


def read_only(scene: Scene, stage: str, random: Random) -> Tried:
    """A directory under the runs that cannot be written to."""
    scene.restore(stage)
    runs = scene.home / "runs"
    folders = [runs, *(each for each in [*runs.glob("*"), *runs.glob("store/*")] if each.is_dir())]
    chosen = random.choice(folders)
    subprocess.run(["mount", "--bind", str(chosen), str(chosen)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(chosen)], check=True)
        ended = worst(scene.run(stage, before=lambda _: patient()))
    finally:
        subprocess.run(["umount", "--lazy", str(chosen)], check=True)
    what = f"{chosen.relative_to(scene.home)} read-only"
    return Tried(kind="read-only", stage=stage, what=what, **_came(again(scene, stage, ended, no_matter)))


def worst(ended: list[Ended]) -> Ended:
    """Return of several ranks that which says why they ended, if one does."""
    said = [one for one in ended if one.code in REASONS and reason(one.said)]
    return said[0] if said else max(ended, key=lambda one: abs(one.code))


def remove(path: Path) -> None:
    """Delete a file or a directory with what is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()
