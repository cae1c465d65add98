"""How long the teacher takes for the same answer: one user, the best k, one thread, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.errors import StageError

WARMUP = 5
SECONDS = 20.0  # after which no further query is begun: a ranker over a large catalogue takes seconds for each
LIMIT = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the child process measures; paths as text, specifications as plain values."""

    ingested: str
    divided: str
    model: str
    spec: Mapping[str, Any]
    candidates: Mapping[str, Any] | None
    scratch: str | None  # the encoder that finds a ranker's candidates
    scratch_spec: Mapping[str, Any] | None
    k: int
    queries: int


def measure_teacher(request: Request) -> dict[str, Any]:
    """Return the fields of a `LatencyRow` for the teacher; raises StageError if the child process fails."""
    from dataclasses import asdict

    with tempfile.TemporaryDirectory(prefix="recdistill-teacher-") as folder:
        file = Path(folder) / "request.json"
        file.write_text(json.dumps(asdict(request)), encoding="utf-8")
        command = [sys.executable, "-m", "recdistill.teacher_latency", str(file)]
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=LIMIT, check=False)
        if done.returncode:
            raise StageError(f"the teacher's latency process failed: {done.stderr.strip()[-2000:]}", where="latency")
        return json.loads(file.with_name("answer.json").read_text(encoding="utf-8"))


def main(path: Path) -> int:
    """Answer the request at `path` into answer.json beside it."""
    import numpy as np
    import torch
    from pydantic import TypeAdapter

    from recdistill.data.dataset import read_dataset
    from recdistill.data.sequences import Sequences
    from recdistill.distill.spec import CandidatesSpec
    from recdistill.fit import load
    from recdistill.latency import summarise
    from recdistill.models.build import Model, history_length
    from recdistill.models.ranker import Ranker
    from recdistill.models.spec import ModelSpec
    from recdistill.scoring import vectors
    from recdistill.teachers import chooser, encoder_lister, ranker_lister

    torch.set_num_threads(1)
    asked = Request(**json.loads(path.read_text(encoding="utf-8")))
    dataset = read_dataset(Path(asked.ingested), Path(asked.divided))
    sequences = Sequences.of(dataset.train)

    def restore(spec: Mapping[str, Any], at: str) -> tuple[ModelSpec, Model]:
        made: ModelSpec = TypeAdapter(ModelSpec).validate_python(spec)
        return made, load(made, dataset, Path(at))

    spec, model = restore(asked.spec, asked.model)
    history = history_length(spec)
    if isinstance(model, Ranker):
        near = None
        if asked.scratch is not None and asked.scratch_spec is not None:
            scratch_spec, scratch = restore(asked.scratch_spec, asked.scratch)
            found = vectors(scratch, dataset, sequences, history_length(scratch_spec))
            near = (found.users, found.items)
        candidates = None if asked.candidates is None else CandidatesSpec(**asked.candidates)
        choose = chooser(candidates, dataset, near, dataset.train)
        lister = ranker_lister(
            model, dataset, asked.k, sequences=sequences, history=history, seen=dataset.train, choose=choose
        )
        size = sum(p.numel() * p.element_size() for p in model.parameters())
    else:
        found = vectors(model, dataset, sequences, history)
        lister = encoder_lister(found.users, found.items, asked.k, dataset.train)
        size = found.users.nbytes + found.items.nbytes
    rng = np.random.Generator(np.random.Philox(3))
    times: list[float] = []
    stop = time.perf_counter() + SECONDS
    for i, user in enumerate(rng.integers(0, dataset.num_users, asked.queries + WARMUP)):
        started = time.perf_counter()
        lister(np.array([user], np.int64))
        times += [time.perf_counter() - started] if i >= WARMUP else []
        if times and time.perf_counter() > stop:
            break
    row = summarise(np.array(times)) | {"model": "teacher", "part": "total", "size_bytes": size}
    path.with_name("answer.json").write_text(json.dumps(row), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
