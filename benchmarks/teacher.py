"""How good the teacher of a configuration is, and what its training takes: full ranking of the test part.

    python benchmarks/teacher.py configs/gowalla.yaml --set log.path.train=TRAIN --set log.path.test=TEST

The items of train and valid are never recommended; recall has |G_u| below the line, NDCG is binary with the ideal over
min(|G_u|, k); users without test items are left out. Trains through the same stages as `recdistill run`, in the store
that the configuration names, and finds there what is done. Seconds are those of this process's training: all of its
threads (CPU) and the clock.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    from benchmarks.timing import machine, write
    from recdistill import stages
    from recdistill.config import load_config
    from recdistill.data.sequences import Sequences
    from recdistill.evaluate import merge
    from recdistill.fit import load
    from recdistill.metrics import hits, ndcg, recall, relevant
    from recdistill.models.build import history_length
    from recdistill.scoring import recommend
    from recdistill.world import world

    config = load_config(args.config, args.sets)
    model, settings = config.teacher.model, config.teacher.train
    assert model.kind != "external", "an external teacher is not trained"
    assert settings is not None

    def log(what: str, done: int, total: int, values) -> None:
        if "valid" in values:
            print(f"{what} {done}/{total} valid NDCG@10 {values['valid']:.4f} after {wall():.0f} s", file=sys.stderr)

    with world(device=config.exec.device, threads=config.exec.threads) as joined:
        run = stages.Run(store=Path(config.exec.store), world=joined, log=log)
        data = stages.split(stages.ingest(config.log, config.features, run), config.split, run)
        started = time.perf_counter(), time.process_time()
        wall = lambda: time.perf_counter() - started[0]  # noqa: E731
        taught = stages.fit(data, model, settings, config.exec, run, name="teacher")
        seconds = {"wall_s": wall(), "cpu_s": time.process_time() - started[1], "found": taught.hit}
        dataset = data.read()
        seen = merge(dataset.train, dataset.valid)
        users = np.flatnonzero(np.diff(dataset.test.indptr))
        lists = recommend(
            load(model, dataset, taught.path),
            dataset,
            users,
            max(args.k),
            sequences=Sequences.of(seen),
            history=history_length(model),
            seen=seen,
        )
        found, wanted = hits(lists, dataset.test, users), relevant(dataset.test, users)
        rows = {
            f"{name}@{k}": float(metric(found, wanted, k).mean())
            for name, metric in (("recall", recall), ("ndcg", ndcg))
            for k in args.k
        }
        threads = config.exec.threads or 0
    print(f"{model.kind}, {len(users):,} users: " + ", ".join(f"{name} {value:.4f}" for name, value in rows.items()))
    told = "found done" if taught.hit else f"{seconds['wall_s']:.0f} s, {seconds['cpu_s']:.0f} CPU-seconds"
    print(f"training: {told}; {dict(taught.manifest.facts)}")
    if args.out:
        write(args.out, {"machine": machine(threads), "rows": rows, "training": seconds})


if __name__ == "__main__":
    main()
