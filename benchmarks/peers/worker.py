"""The child's side of a comparison: a process that is asked to prepare some work, then to do a round of it at a time.

Questions and answers are JSON, one a line: {"do": "round"} -> {"wall": seconds, "cpu": seconds of all threads of this
process, "work": units}; {"do": "prepare", "task": ..., ...}, {"do": "save", "path": ...} and {"do": "about"} ->
{"about": what the peer says of itself}. An error is an answer too: {"error": its last line}. What a library prints goes
to stderr. Needs nothing but Python.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[[], float]
"""One round; returns how many units of work it did."""


def serve(tasks: Mapping[str, Callable[[dict[str, Any]], "Job"]]) -> None:
    """Answer until the input ends; `tasks` make the work of a name from what was asked."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    work = Job(lambda: 0.0)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["do"] == "prepare":
                work = tasks[asked["task"]](asked)
            elif asked["do"] == "save":
                work.save(asked["path"])
            answer = timed(work) if asked["do"] == "round" else {"about": work.about}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[-1]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    sys.stderr.flush()
    os._exit(0)  # a training that stands still in a thread of its own would wait for ever


def timed(work: Work) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    units = work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "work": units}


class Job:
    """Work that says something `about` itself, and may `save(path)` its vectors as they are."""

    def __init__(self, work: Work, save: Callable[[str], None] | None = None, **about: Any) -> None:
        self.work, self.save, self.about = work, save, about

    def __call__(self) -> float:
        return self.work()
