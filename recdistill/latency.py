"""Single-query service times of bundles, measured in a process of its own that never loads torch.

In one process torch and FAISS share thread counts, and the order of their imports decides whose. The child,
`recdistill.latency_child`, loads numpy and FAISS alone, and interleaves its targets, so that what disturbs the machine
disturbs them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recdistill.latency_child import blocks
from recdistill.turns import Worker, take_turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One way to answer: the encoder and ids of a bundle, and its own index or another one over the same items."""

    label: str  # student@index, student@flat, champion@index
    bundle: Path
    index: Path | None = None  # a file that the index.json beside it names; None is the bundle's own
    params: str | None = None  # runtime parameters, such as `nprobe=8`; None are those of index.json
    exclude: bool = False  # the search leaves out what the bundle says the user took


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How targets are asked: one query at a time, each repeat the same `queries` known users."""

    k: int
    queries: int = 2000
    repeats: int = 5
    warmup: int = 200
    threads: int = 1
    simd: str | None = None  # NONE, AVX2, AVX512, ...; None is FAISS's choice, or what FAISS_SIMD_LEVEL says


def measure(
    targets: Sequence[Target],
    *,
    k: int,
    queries: int = 2000,
    repeats: int = 5,
    warmup: int = 200,
    threads: int = 1,
    simd: str | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return rows with the fields of `LatencyRow`, one per target and part, and the environment they hold in.

    Each repeat asks every target the same `queries` known users, one at a time. An index file that several targets
    share is opened once. Raises ArtifactError if a bundle or index fails its digest, StageError if the child fails.
    """
    how = How(k=k, queries=queries, repeats=repeats, warmup=warmup, threads=threads, simd=simd)
    (answer,) = take_turns([worker(targets, how)], turns(how))
    return answer["rows"], answer["environment"]


def worker(targets: Sequence[Target], how: How) -> Worker:
    """Return the process that measures `targets`, for `take_turns` beside others."""
    return Worker("recdistill.latency_child", asdict(how) | {"targets": asked_of(targets)})


def asked_of(targets: Sequence[Target]) -> list[dict[str, Any]]:
    """Return `targets` as JSON values."""
    return [asdict(t) | {"bundle": str(t.bundle.absolute()), "index": _text(t.index)} for t in targets]


def turns(how: How) -> int:
    """Return how many turns a worker takes."""
    return how.repeats * blocks(how.queries)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
