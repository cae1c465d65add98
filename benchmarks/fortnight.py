"""Fourteen nights with nobody watching: drift, a corrupt day, a kill, a worse candidate, a race, and a way back.

    python benchmarks/fortnight.py /tmp/fortnight

A planted shop (fortnight_world.py) delivers its log day by day, and a scheduler of twenty lines starts the nights as
cron would, by exit codes alone. What the registry holds at the end is compared with what it has to, and printed.
Beside it stand the model of the first night, kept for ever, and a shop that trains in full every night and of which
nothing goes wrong. Every day all three are asked, as they serve, for what the users of that day then took; where the
champion is surely worse than what served before it, the scheduler rolls back.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from fortnight_morning import Morning, measured, plot, truth
from fortnight_shop import CONFIG, MODEL, NIGHTS, Shop
from fortnight_world import day_of, world

KILLED, CORRUPT, CHANGE, WORSE, OUTAGE, RACE, LOOSE = 3, 4, 6, 8, 9, 10, 12
# A faster student, somebody thought; and of its learning rate two digits were lost.
POOR: dict[str, Any] = {"student": {"model": {"dim": 4}, "train": {"epochs": 1, "lr": 0.002}}}
NO_GATES: dict[str, Any] = {"registry": {"gates": {"ndcg_at_10": {"min": 0.0}}}}  # and of a quicker release
FULL: dict[str, Any] = {"daily": {"start": "full", "full_on_drift": None}, **NO_GATES}
FULL |= {model: {"warm": None} for model in ("teacher", "student")}
EVENTS = {
    KILLED: "killed",
    CORRUPT: "corrupt log",
    CHANGE: "new fashion",
    WORSE: "worse candidate",
    OUTAGE: "rows missing",
    RACE: "two promote",
    LOOSE: "gates taken out",
}
# What the registry has to hold: the nights in the order of their versions, and what became of each.
EXPECTED = [
    *((night, "passed") for night in (1, 2, KILLED, CORRUPT, 5, CHANGE, 7)),
    (WORSE, "failed"),
    *((night, "passed") for night in (OUTAGE, RACE, RACE, 11)),
    (LOOSE, "withdrawn"),
    (13, "passed"),
    (14, "passed"),
]


def nightly(shop: Shop, days: Mapping[int, pl.DataFrame]) -> Iterator[tuple[int, str]]:
    """Live through the fortnight, and yield each night once it is over, with what was seen of it."""
    late = list[int]()  # nights that wait for their data
    for night in range(1, NIGHTS + 1):
        seen = list[str]()
        if night == CORRUPT + 1:  # the file of the day before comes once more, and is whole
            shop.deliver(CORRUPT, days[CORRUPT])
        shop.deliver(night, days[night].sample(fraction=0.2, seed=0) if night == OUTAGE else days[night])
        if night == CORRUPT:
            shop.spoil(night)
        shop.write({WORSE: POOR, LOOSE: {**POOR, **NO_GATES}}.get(night, {}))
        if night == KILLED:
            shop.kill(night)
            seen.append("killed")
        if night == RACE:
            seen.append(f"race: exit codes {shop.race(night, {'student': {'train': {'seed': 7}}})}")
        waiting, late = [*late, night], []
        for one in waiting:
            code, summary = shop.night(one)
            if code == 3:
                late.append(one)
            made_up = "" if one == night else f"{day_of(one)}: "
            seen.append(f"{made_up}{summary['status']}, exit code {code}" + _why(summary))
        yield night, "; ".join(seen)


def _why(summary: Mapping[str, Any]) -> str:
    told = [alarm["text"] for alarm in summary["alarms"]]
    if summary["start"] == "full" and summary["why"]:
        told.append(f"full: {summary['why']}")
    return f" ({'; '.join(told)})" if told else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a directory that does not exist yet")
    parser.add_argument("--users", type=int, default=1500)
    parser.add_argument("--items", type=int, default=800, help="that are sold at a time")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    window = CONFIG["daily"]["window_days"]
    days = dict(world(2 - window, NIGHTS + 1, users=args.users, items=args.items, change=CHANGE, seed=args.seed))
    watched, full = Shop(args.out / "nightly"), Shop(args.out / "full", FULL)
    for shop in (watched, full):
        for day in range(2 - window, 1):
            shop.deliver(day, days[day])
    mornings = list[Morning]()
    for night, seen in nightly(watched, days):
        full.deliver(night, days[night])
        full.write({})
        code, _ = full.night(night)
        assert code in (0, 4), f"a night of which nothing goes wrong ended with exit code {code}"
        serving = watched.version("champion")
        bundles = {"nightly": watched.bundle(serving), "never": watched.bundle(1), "full": full.bundle(night)}
        before = watched.version("previous")
        bundles["before"] = watched.bundle(before) if before else None
        found = measured(truth(days, night, window), bundles)
        morning = Morning(night=night, event=EVENTS.get(night, ""), seen=seen, serving=serving, **found)
        if morning.worse:
            watched("rollback", MODEL)
            morning = morning._replace(seen=f"{seen}; surely worse than version {before}: rolled back")
        print(morning.line(), flush=True)
        mornings.append(morning)
    print("", watched("show", MODEL).stdout, sep="\n")
    right = [(str(day_of(night)), gate) for night, gate in EXPECTED] == watched.history()
    right = right and watched.version("champion") == len(EXPECTED) and watched.version("previous") == len(EXPECTED) - 1
    result = {"right": right, "cost": {shop.home.name: shop.cost for shop in (watched, full)}}
    result |= {"mornings": [morning._asdict() for morning in mornings]}
    (args.out / "fortnight.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plot(mornings, args.out / "fortnight.svg")
    print(summary(mornings, result["cost"]), f"plot: {args.out / 'fortnight.svg'}", sep="\n")
    raise SystemExit(0 if right else "the registry's history is not the one that it has to be")


def summary(mornings: Sequence[Morning], cost: Mapping[str, Sequence[float]]) -> str:
    """Return what the fortnight was worth, in three lines."""
    mean = {name: sum(m.quality[name] for m in mornings) / len(mornings) for name in mornings[0].quality}
    spent = {name: sum(each) for name, each in cost.items()}
    return (
        f"NDCG@10, mean of {len(mornings)} days: " + ", ".join(f"{name} {value:.4f}" for name, value in mean.items())
    ) + f"\nCPU time of the nights, over that of full ones: {spent['nightly'] / spent['full']:.2f}"


if __name__ == "__main__":
    main()
