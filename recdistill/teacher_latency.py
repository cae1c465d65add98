"""How long the teacher takes for the same answer: one user, the best k, one thread, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
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
    models: Sequence[Mapping[str, Any]]  # each with its path and its spec
    folds: int
    recipe: str | None
    labels: Mapping[str, Any]
    scratch: Mapping[str, Any]  # the encoder that finds a ranker's candidates
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
    from recdistill.distill.spec import LabelsSpec
    from recdistill.labelling import candidates, lister_of, ready_teacher
    from recdistill.latency_stats import summarise
    from recdistill.models.recipe import Teacher
    from recdistill.models.spec import Fitted, ModelSpec
    from recdistill.store import open_artifact

    torch.set_num_threads(1)
    asked = Request(**json.loads(path.read_text(encoding="utf-8")))
    dataset = read_dataset(Path(asked.ingested), Path(asked.divided))
    sequences = Sequences.of(dataset.train)

    def restore(model: Mapping[str, Any]) -> Fitted:
        return Fitted(TypeAdapter(ModelSpec).validate_python(model["spec"]), open_artifact(Path(model["path"])))

    recipe = None if asked.recipe is None else open_artifact(Path(asked.recipe))
    teacher = Teacher(models=tuple(map(restore, asked.models)), folds=asked.folds, recipe=recipe)
    spec = TypeAdapter(LabelsSpec).validate_python(asked.labels)
    choose = candidates(dataset, teacher, restore(asked.scratch), spec, sequences, dataset.train)
    made = ready_teacher(dataset, teacher, sequences, dataset.train, whole=choose is None, compute=spec.compute)
    lister = lister_of(made, dataset, teacher, asked.k, dataset.train, choose)
    rng = np.random.Generator(np.random.Philox(3))
    times: list[float] = []
    stop = time.perf_counter() + SECONDS
    for i, user in enumerate(rng.integers(0, dataset.num_users, asked.queries + WARMUP)):
        started = time.perf_counter()
        lister(np.array([user], np.int64))
        times += [time.perf_counter() - started] if i >= WARMUP else []
        if times and time.perf_counter() > stop:
            break
    row = summarise(np.array(times)) | {"model": "teacher", "part": "total", "size_bytes": made.size}
    path.with_name("answer.json").write_text(json.dumps(row), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
