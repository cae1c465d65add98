"""What an epoch costs with a method, beside one of the scratch student: CPU-seconds, interleaved in one process.

    python benchmarks/methods.py configs/citeulike.yaml --methods rrd,kd,de --rounds 5

Each training is a real one, through the same stage as `recdistill run`, without its validations and checkpoints: it
stands still after every epoch until its turn comes again. Every round has one epoch of each, so that what the machine
does meanwhile hits all alike, and ratios are taken within a round. `scratch again` is the same training once more: how
far it is from 1 is how far any ratio may be off. What is not done in every epoch (lists of the student that are ranked
anew every few) is in `all`, the ratio of all rounds together, where there are rounds enough. Phases are those of the
first epochs. Labels and teacher are made, or found, in the configuration's store first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.timing import Round, interleaved, machine, median, spread, write

NEVER = 10**9


class Enough(Exception):
    """Ends a training that has been measured."""


class Stepped:
    """A training in a thread of its own that goes on for `every` steps a call, and stands still in between."""

    def __init__(self, work: Callable[[Any], Any], every: int) -> None:
        self.every, self.over = every, False
        self.failed: BaseException | None = None
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self.thread.start()

    def __call__(self) -> None:
        self.go.release()
        self.back.acquire()
        if self.failed is not None:
            raise self.failed

    def end(self) -> None:
        self.over = True
        self.go.release()
        self.thread.join()

    def _run(self, work: Callable[[Any], Any]) -> None:
        self.go.acquire()
        try:
            if not self.over:
                work(self._log)
        except Enough:
            pass
        except BaseException as error:
            self.failed = error
        finally:
            self.back.release()

    def _log(self, _: str, step: int, total: int, values: Mapping[str, float]) -> None:  # noqa: ARG002
        if step and step % self.every == 0:
            self.back.release()
            self.go.acquire()
            if self.over:
                raise Enough


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--methods", default="", help="names or files, separated by commas; all of them if left out")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    from recdistill.methods import presets
    from recdistill.world import world

    methods = args.methods.split(",") if args.methods else list(presets())
    with world(device="auto", threads=args.threads) as joined, tempfile.TemporaryDirectory() as folder:
        peers = trainings(args.config, args.sets, methods, args.rounds, joined, Path(folder))
        try:
            found = interleaved(peers, args.rounds)
        finally:
            for peer in peers.values():
                peer.end()
    rows = costs(found)
    show(rows)
    if args.out:
        write(args.out, {"config": str(args.config), "machine": machine(args.threads), "rows": rows})


def trainings(
    file: Path, sets: list[str], methods: list[str], rounds: int, joined: Any, folder: Path
) -> dict[str, Stepped]:
    """Return the scratch student's training, that of each method, and the scratch one's again, none of them begun."""
    from pipelines.teach import teach
    from recdistill import stages
    from recdistill.config import load_config
    from recdistill.models.spec import Fitted

    base = load_config(file, sets)
    run = stages.Run(store=Path(base.exec.store), world=joined, log=_begins)
    data = stages.split(stages.ingest(base.log, base.features, run), base.split, run)
    train = base.student.train
    plain = Fitted(base.student.model, stages.fit(data, base.student.model, train, base.exec, run, name="scratch"))
    interactions = len(data.read().train)
    peers: dict[str, Stepped] = {}
    for name in ("scratch", *methods, "scratch again"):
        taught = name in methods
        config = load_config(file, sets, name) if taught else base
        student, labels = config.student, None
        if taught:
            teacher, _ = teach(config, data, plain, run)
            labels = stages.label(data, teacher, plain, config.labels, run)
        epochs = max(student.train.epochs, rounds + 2)
        settings = student.train.model_copy(update={"epochs": epochs, "evaluate_every": NEVER})
        how = config.exec.model_copy(update={"checkpoint_every": NEVER})
        own = folder / str(len(peers))
        more = {"labels": labels, "terms": config.distill, "student": student} if taught else {}

        def work(log: Any, settings=settings, how=how, own=own, more=more, student=student) -> None:
            there = replace(run, store=own, log=log)
            stages.fit(data, student.model, settings, how, there, name="timed", **more)

        peers[name] = Stepped(work, max(1, interactions // settings.batch))
    return peers


def costs(found: Mapping[str, list[Round]]) -> list[dict[str, Any]]:
    """Return a row a peer: CPU and wall seconds an epoch, and the ratio of its CPU-seconds to the scratch student's."""
    rows = []
    for name, rounds in found.items():
        cpu = [r.cpu for r in rounds]
        ratios = [ours.cpu / theirs.cpu for ours, theirs in zip(rounds, found["scratch"], strict=True)]
        row = {"name": name, "cpu_s": median(cpu), "wall_s": median([r.wall for r in rounds])}
        row |= {"ratio": median(ratios), "spread": spread(ratios)}
        rows.append(row | {"all": sum(cpu) / sum(r.cpu for r in found["scratch"])})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows of `costs` as one table."""
    from pipelines.console import table

    body = [
        (
            r["name"],
            f"{r['cpu_s']:.2f}",
            f"{r['wall_s']:.2f}",
            f"{r['ratio']:.2f}",
            f"{r['spread']:.0%}",
            f"{r['all']:.2f}",
        )
        for r in rows
    ]
    print(table(body, ("", "CPU-s an epoch", "wall s", "x scratch", "spread", "all")))


def _begins(what: str, done: int, total: int, values: Mapping[str, float]) -> None:  # noqa: ARG001
    if not done:
        print(f"{what} ...", file=sys.stderr)


if __name__ == "__main__":
    main()
