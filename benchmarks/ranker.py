"""How fast the ranker labels, against the forward pass that makes every (user, candidate) pair a row of its own.

    python benchmarks/ranker.py                     a ranker as large as that of configs/ml100k.yaml, one thread
    python benchmarks/ranker.py --dim 64 --hidden 512 256 --items 40981
    --threads 2 --rounds 7 --out runs/ranker.json

The features are made up: two categorical columns, one of several values, hashed words, a history of twenty with times.
All peers compute the same function of the same weights; how far they are apart is printed beside their speed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

USERS, HISTORY = 64, 20
ROWS = 8192  # of one naive forward pass: what a ranker is usually asked at once


def make(args: argparse.Namespace):
    """Return the ranker, its users and their past."""
    import torch

    from recdistill.models.clock import Clock
    from recdistill.models.ranker import Ranker
    from recdistill.models.tables import PlainTable
    from recdistill.types import Features, Past

    rng, items = np.random.default_rng(0), args.items
    item_features = Features(
        sizes={"year": 80, "genre": 20, "title": 4097},
        categorical={"year": rng.integers(0, 80, items)},
        multi={
            "genre": (np.arange(items + 1) * 2, rng.integers(0, 20, items * 2)),
            "title": (np.arange(items + 1) * 4, rng.integers(1, 4097, items * 4)),
        },
    )
    user_features = Features(
        sizes={"gender": 3, "job": 22},
        categorical={"gender": rng.integers(0, 3, USERS), "job": rng.integers(0, 22, USERS)},
        numeric={"age": rng.standard_normal(USERS).astype(np.float32)},
    )
    torch.manual_seed(0)
    model = Ranker(
        PlainTable,
        num_users=USERS,
        num_items=items,
        user_features=user_features,
        item_features=item_features,
        clock=Clock(0.0, 1e9),
        dim=args.dim,
        cross_layers=args.crosses,
        cross_rank=args.dim,
        hidden=args.hidden,
        heads=4,
        history=HISTORY,
    )
    for side in (model.user, model.item):
        torch.nn.init.normal_(side.table.weight, std=0.3)
    times = torch.from_numpy(np.sort(rng.integers(0, 10**9, (USERS, HISTORY)), axis=1)) * 1_000_000
    past = Past(items=torch.from_numpy(rng.integers(0, items, (USERS, HISTORY))), times=times)
    return model.eval(), torch.arange(USERS), past


def naive(model, users, past, items):
    """Return the score of each row's pair, [n]: everything looked up, concatenated and passed through for each row."""
    import torch

    dim, heads = model.dim, model.heads
    entity = model.item.assemble(model.item.table(*model.item.bags(items)), items)
    before = torch.nn.functional.embedding(past.items, model.item.table.weight)
    c, p = model.thing(entity), model.people(users, past)
    query = model.query(entity[:, :dim]).view(-1, heads, 1, dim // heads)
    key, value = (x.view(len(users), -1, heads, dim // heads).transpose(1, 2) for x in (model.key(before), before))
    weights = (query @ key.transpose(2, 3)) / (dim // heads) ** 0.5 + model.leaning(past).unsqueeze(2)
    a = (weights.softmax(-1) @ value).flatten(1)
    x0 = torch.cat([p, c, a, p * c, a * c], dim=1)
    x, deep = x0, x0
    for cross in model.crosses:
        x = cross(x0, x)
    for layer in model.deep:
        deep = torch.relu(layer(deep))
    return model.head(torch.cat([x, deep], dim=1))[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1682)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--crosses", type=int, default=2)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    import torch

    from benchmarks.timing import interleaved, machine, rates, show, write
    from recdistill.models.encoders import Group
    from recdistill.models.pairs import PairScorer
    from recdistill.types import Past

    torch.set_num_threads(args.threads)
    model, users, past = make(args)
    asked = max(1, min(USERS, 100_000 // args.items))  # users of one round
    users, past = users[:asked], Past(items=past.items[:asked], times=past.times[:asked])
    rows = users.repeat_interleave(args.items), torch.arange(args.items).repeat(asked)
    fast = {
        name: PairScorer(model, args.items, dtype)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }

    @torch.inference_mode()
    def by_rows():
        found = []
        for start in range(0, len(rows[0]), ROWS):
            who, what = (part[start : start + ROWS] for part in rows)
            found.append(naive(model, who, Past(items=past.items[who], times=past.times[who]), what))
        return torch.cat(found).view(asked, -1)

    @torch.inference_mode()
    def by_users():
        each = max(1, ROWS // args.items)
        parts = []
        for start in range(0, asked, each):
            some = slice(start, start + each)
            group = Group(torch.arange(args.items))
            mine = Past(items=past.items[some], times=past.times[some])
            parts.append(model.score(users[some], mine, [group])[0])
        return torch.cat(parts)

    peers = {
        "every pair a row, fp32": by_rows,
        "training's forward, fp32": by_users,
        "PairScorer fp32": lambda: fast["fp32"](users, past, None),
        "PairScorer bf16": lambda: fast["bf16"](users, past, None),
    }
    exact = by_rows()
    apart = {name: float((work() - exact).abs().max() / exact.std()) for name, work in peers.items()}
    pairs = asked * args.items
    found = rates(interleaved(peers, args.rounds), pairs, ["every pair a row, fp32"])
    print(
        f"{asked} users x {args.items:,} items, dim {args.dim}, {args.crosses} crosses, hidden {args.hidden}", end=", "
    )
    print(f"{args.threads} threads, {args.rounds} rounds")
    show(found, "Mpairs")
    for name, value in apart.items():
        print(f"{name}: largest difference from the first, over the spread of all scores: {value:.1e}")
    if args.out:
        write(args.out, {"machine": machine(args.threads), "pairs": pairs, "rows": found, "apart": apart})


if __name__ == "__main__":
    main()
