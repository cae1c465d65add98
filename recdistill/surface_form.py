"""The form of surface.json: what every way to serve the student costs and gives, as a pydantic model and its schema.

A number that could not be measured is null. A writer may add keys; one that changes the meaning of a key raises
`SURFACE_VERSION`, and older readers then refuse the file instead of misreading it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from recdistill.diagnosis.form import plain
from recdistill.errors import ArtifactError

SURFACE, SURFACE_VERSION = "surface.json", 1
AGAIN = "measure it again with `recdistill run CONFIG --until surface`"
Number = float | None
Milliseconds = NonNegativeFloat | None


class Part(BaseModel):
    """The base of every part of a surface."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Histogram(Part):
    """How many of the timed queries took how long: `counts[i]` between `edges_ms[i]` and `edges_ms[i + 1]`."""

    edges_ms: list[NonNegativeFloat]
    counts: list[NonNegativeInt]

    @model_validator(mode="after")
    def _fits(self) -> Histogram:
        if len(self.edges_ms) != len(self.counts) + 1 or self.edges_ms != sorted(set(self.edges_ms)):
            raise ValueError("the edges rise, and are one more than the counts")
        return self


class Times(Part):
    """Service times of one query at a time, in milliseconds."""

    p50_ms: Milliseconds
    p95_ms: Milliseconds
    p99_ms: Milliseconds = None
    max_ms: Milliseconds = None
    histogram: Histogram | None = None


class Parts(Part):
    """Of a whole answer, and of its two halves."""

    encode: Times | None = None
    search: Times | None = None
    total: Times


class Quality(Part):
    """The surface's metric over the held-out users, with its interval."""

    quality: Number
    low: Number = None
    high: Number = None


class Teacher(Quality):
    """The teacher, by the same measures."""

    p50_ms: Milliseconds = None
    p95_ms: Milliseconds = None
    p99_ms: Milliseconds = None
    max_ms: Milliseconds = None
    bytes: NonNegativeInt | None = None
    histogram: Histogram | None = None


class Norms(Part):
    """Lengths of the items' vectors at one width; `spread` is their deviation over their mean."""

    mean: Number
    spread: Number
    warning: str = ""


class Point(Quality):
    """One way to serve the student: so many numbers of its vectors, behind this index, searched with these parameters.

    `recall` is by depth, against the exact search of the same width; `bytes` is what a server holds for it.
    """

    id: str = Field(min_length=1)
    width: PositiveInt
    factory: str
    params: str = ""
    recall: dict[str, Number] = {}
    index_bytes: NonNegativeInt
    query_bytes: NonNegativeInt
    bytes: NonNegativeInt
    build_s: Number = None
    latency: Parts
    spread: Number = None
    qps: Number = None
    kept: bool = False
    file: str | None = None  # the index, from where the surface is
    sha256: str | None = None


class Surface(Part):
    """Quality, time and bytes of every measured way to serve one student."""

    schema_version: int
    metric: str
    k: PositiveInt
    users: NonNegativeInt
    num_items: NonNegativeInt
    fingerprint: str = ""
    teacher: Teacher | None = None
    exact: dict[str, Quality] = {}
    norms: dict[str, Norms] = {}
    environment: dict[str, Any] = {}
    points: list[Point] = []

    @model_validator(mode="after")
    def _told_apart(self) -> Surface:
        ids = [point.id for point in self.points]
        if twice := sorted({i for i in ids if ids.count(i) > 1}):
            raise ValueError(f"two points are called {twice[0]!r}")
        return self

    @property
    def exact_width(self) -> int | None:
        """Return the largest width that was searched exactly, None without any."""
        widths = [int(width) for width, found in self.exact.items() if width.isdecimal() and found.quality is not None]
        return max(widths, default=None)

    @property
    def exact_quality(self) -> float | None:
        """Return what the student gives at its largest width by exact search, None where it was not measured."""
        return None if self.exact_width is None else self.exact[str(self.exact_width)].quality


def read_surface(path: Path) -> Surface:
    """Return the surface in a surface.json, or in the directory that holds one.

    Raises ArtifactError if the file is missing, is no JSON, is malformed, or was written by a newer version.
    """
    file = path / SURFACE if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        what = f"the surface cannot be read ({cause.strerror})"
        raise ArtifactError(what, where=str(file), fix=AGAIN) from cause
    except ValueError as cause:
        raise ArtifactError(f"not JSON ({cause})", where=str(file), fix=AGAIN) from cause
    return check_surface(found, where=str(file))


def check_surface(found: Any, *, where: str = SURFACE) -> Surface:
    """Return `found` as a surface, non-finite numbers null.

    Raises ArtifactError if it is none, or if a newer version wrote it.
    """
    if not isinstance(found, Mapping):
        raise ArtifactError(f"a surface is an object; this is {type(found).__name__}", where=where, fix=AGAIN)
    version = found.get("schema_version")
    if isinstance(version, int) and version > SURFACE_VERSION:
        what = f"written in surface schema {version}; this version reads up to {SURFACE_VERSION}"
        raise ArtifactError(what, where=where, fix="upgrade recdistill, or measure the surface again")
    try:
        return Surface.model_validate(plain(found))
    except ValidationError as cause:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in cause.errors()]
        what = "not a surface: " + "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ArtifactError(what, where=where, fix=AGAIN) from cause


def surface_schema() -> dict[str, Any]:
    """Return the JSON schema of surface.json."""
    return Surface.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def noise(environment: Mapping[str, Any]) -> str:
    """Return why times measured in `environment` cannot be judged, empty where they can."""
    verdict, warned = environment.get("noise"), str(environment.get("warning") or "").strip()
    if not isinstance(verdict, Mapping):  # a figure alone, with a warning where it was large
        return warned
    if verdict.get("judge") is not False:
        return ""
    return str(verdict.get("why") or warned or "the machine was too noisy while it was measured").strip()
