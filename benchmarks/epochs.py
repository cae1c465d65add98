"""G3: what an epoch costs with a distillation method, over one of the scratch student, by methods.py.

CiteULike's shape and configuration; the log is made up, and the teacher little trained: neither is in what is timed.
"""

from __future__ import annotations

import polars as pl

from benchmarks.goals import Row, judged
from benchmarks.handover import made_up
from benchmarks.labelling import run
from benchmarks.setting import Setting

USERS, ITEMS, MEAN = 5_219, 25_181, 26
LIMITS = {"rrd": (1.5, 1.2), "de": (2.5, 1.5), "htd": (3.0, 2.0), "freqd": (3.0, 2.0)}
TEACHER = "{epochs: 1, batch: 4096, negatives: 512, lr: 0.1, evaluate_every: 1, patience: 0}"


def rows(setting: Setting) -> list[Row]:
    setting.folder.mkdir(parents=True, exist_ok=True)
    log = setting.folder / "citeulike.parquet"
    train, test = made_up(USERS, ITEMS, MEAN)
    columns = {"user_id": [*train[:, 0], *test[:, 0]], "item_id": [*train[:, 1], *test[:, 1]]}
    pl.DataFrame(columns).write_parquet(log)
    sets = (
        f"log.path={log}",
        f"exec.store={setting.folder / 'store'}",
        f"teacher.train={TEACHER}",
        "student.train.epochs=1",
    )
    options = [part for one in sets for part in ("--set", one)]
    methods = list(LIMITS)[:2] if setting.quick else list(LIMITS)
    asked = ("configs/citeulike.yaml", "--methods", ",".join(methods), "--rounds", str(setting.rounds))
    told = {row["name"]: row for row in run(setting, "methods.py", *asked, *options)["rows"]}
    found = []
    for name in [*methods, "scratch again"]:
        must, aim = LIMITS.get(name, (None, None))
        mine, scratch = told[name], told["scratch"]
        row: Row = {
            "goal": "G3",
            "what": "cost of an epoch",
            "ours": name,
            "peer": "scratch",
            "unit": "x",
            "by": "cpu",
        }
        for side, one in (("ours", mine), ("peer", scratch)):
            row |= {f"{side}_per_cpu_s": 1 / one["cpu_s"], f"{side}_per_s": 1 / one["wall_s"]}
        row |= {"ratio": mine["ratio"], "spread": mine["spread"], "rounds": setting.rounds, "all": mine["all"]}
        found.append(judged(row, must, aim, below=True))
    return found
