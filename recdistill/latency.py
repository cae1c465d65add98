"""Single-query service times of bundles, measured in a process of its own that never loads torch.

In one process torch and FAISS share thread counts, and the order of their imports decides whose. The child,
`recdistill.latency_child`, loads numpy and FAISS alone, and interleaves its targets, so that what disturbs the machine
disturbs them alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recdistill.errors import ArtifactError, StageError

LIMIT = 1800  # seconds after which the child is taken to hang


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One way to answer: the encoder and ids of a bundle, and its own index or another one over the same items."""

    label: str  # student@index, student@flat, champion@index
    bundle: Path
    index: Path | None = None  # a file that the index.json beside it names; None is the bundle's own
    params: str | None = None  # runtime parameters, such as `nprobe=8`; None are those of index.json
    exclude: bool = False  # the search leaves out what the user took before


def measure(
    targets: Sequence[Target],
    *,
    k: int,
    queries: int = 2000,
    repeats: int = 5,
    warmup: int = 200,
    threads: int = 1,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return rows with the fields of `LatencyRow`, one per target and part, and the environment they hold in.

    Each repeat asks every target the same `queries` known users, one at a time. An index file that several targets
    share is opened once. Raises ArtifactError if a bundle or index fails its digest, StageError if the child fails.
    """
    asked = [asdict(t) | {"bundle": str(t.bundle.absolute()), "index": _text(t.index)} for t in targets]
    request = {
        "targets": asked,
        "k": k,
        "queries": queries,
        "repeats": repeats,
        "warmup": warmup,
        "threads": threads,
    }
    with tempfile.TemporaryDirectory(prefix="recdistill-latency-") as folder:
        file = Path(folder) / "request.json"
        file.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "recdistill.latency_child", str(file)]
        root = Path(__file__).resolve().parents[1]  # so that the child finds this very package
        try:
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired as cause:
            what = f"the latency process ran past {LIMIT} s"
            raise StageError(what, where="latency", fix="ask fewer queries") from cause
        if done.returncode == ArtifactError.exit_code:
            raise ArtifactError(done.stderr.strip(), where="latency", fix="build the bundle and its index again")
        if done.returncode:
            raise StageError(f"the latency process failed: {done.stderr.strip()[-2000:]}", where="latency")
        answer = json.loads(file.with_name("answer.json").read_text(encoding="utf-8"))
    return answer["rows"], answer["environment"]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
