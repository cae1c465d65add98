"""One model in every layout and on any number of ranks, and a training that moves between them on its way.

Four processes play two hosts of two. What they do in one world after another is all that they were started for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
TIMEOUT = 200
# Sums in another order: what training carries on of it in nine steps is far below this.
ROUNDING = 2e-5
LAYOUTS = {
    "row_wise": "rowwise_adagrad",
    "table_wise": "rowwise_adagrad",
    "auto": "rowwise_adagrad",
    "column_wise": "adagrad",
    "grid": "adagrad",
    "data_parallel": "adagrad",
}
MOVED = ("rowwise_adagrad", "adagrad", "adam")

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from torch import nn
from safetensors.torch import save_file
from recdistill.checkpoint import load_checkpoint, save_checkpoint
from recdistill.models.tables import Table, distribute
from recdistill.world import world

OUT, RANK = Path(sys.argv[1]), int(os.environ["RANK"])
LAYOUTS, MOVED = json.loads(sys.argv[2])
USERS, ITEMS, DIM, BATCH, STEPS = 37, 29, 16, 24, 9

class Model(nn.Module):
    def __init__(self, folded):
        super().__init__()
        ids = torch.arange(ITEMS, dtype=torch.int32).clamp(max=9) if folded else None  # ten rows, one for the last 20
        self.user, self.item = Table("user", USERS, DIM), Table("item", 10 if folded else ITEMS, DIM, ids=ids)
        torch.manual_seed(5)
        self.dense = nn.Linear(DIM, DIM)
    def forward(self, users, items, wanted):
        found = (self.dense(self.user(users)) * self.item(items)).sum(1)
        return ((found - wanted) ** 2).mean()

def batch(step, joined):
    generator, rows = torch.Generator().manual_seed(step), joined.slice(BATCH)
    users, items = (torch.randint(n, (BATCH,), generator=generator)[rows] for n in (USERS, ITEMS))
    return users, items, torch.randn(BATCH, generator=generator)[rows]

def learn(joined, name, layout, optimizer, until):
    rates = {"lr": 0.2, "dense_lr": 0.05, "weight_decay": 0.01, "init_std": 0.3, "seed": 7}
    module, out = Model("folded" in name), OUT / name
    model = distribute(module, joined, layout=layout, optimizer=optimizer, **rates)
    joined.share(lambda: out.mkdir(exist_ok=True))
    state = load_checkpoint(out, model, joined) or {"step": 0, "best_step": 0, "losses": []}
    for step in range(state["step"], until):
        model.optimizer.zero_grad()
        loss = model.module(*batch(step, joined))
        loss.backward()
        model.optimizer.step()
        model.shrink(1.0)
        mean = loss.detach().clone()
        if joined.size > 1:
            torch.distributed.all_reduce(mean)
        state["losses"].append(float(mean) / joined.size)
    save_checkpoint(out, model, until, state | {"step": until}, joined)
    weights = model.gather()
    def keep():
        save_file(weights, out / "weights.safetensors")
        (out / f"end-{until}.json").write_text(json.dumps({"losses": state["losses"], "plan": model.plan}))
    joined.share(keep)

turn = 0
def together(size, local, *work):
    # Each of `work` in a world of the first `size` ranks, `local` to a host; the others go on to the next world.
    global turn
    turn += 1
    if RANK < size:
        os.environ |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(local), "TORCHELASTIC_RESTART_COUNT": str(turn)}
        with world(device="cpu") as joined:
            for each in work:
                learn(joined, *each)

# One world of two hosts for all: TorchRec makes the groups of its hosts once, and they are gone with their world.
four = [(f"four-{layout}", layout, optimizer, STEPS) for layout, optimizer in LAYOUTS.items()]
together(4, 2, *four, ("folded-4", "auto", "rowwise_adagrad", STEPS))
one = [(f"one-{optimizer}", "auto", optimizer, STEPS) for optimizer in MOVED]
together(1, 1, *one, ("folded-1", "auto", "rowwise_adagrad", STEPS))
for size, layout, until in ((2, "table_wise", 3), (1, "auto", 6), (2, "row_wise", STEPS)):
    words = {"adam": "auto"}
    together(size, size, *((f"moved-{o}", words.get(o, layout), o, until) for o in MOVED))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return what each training left, by name: its weights, and at each of its ends the losses and the plan."""
    from torch.distributed import TCPStore

    out = tmp_path_factory.mktemp("many")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "OMP_NUM_THREADS": "1"}
    shared["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the store is there, as where torchrun keeps it
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(out), json.dumps([LAYOUTS, MOVED])]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=os.environ | shared | {"RANK": str(n), "LOCAL_RANK": str(n % 2)})
        for n in range(4)
    ]
    try:
        assert [process.wait(timeout=TIMEOUT) for process in started] == [0] * 4
    finally:
        for process in started:
            process.kill()
            process.wait()
    return {path.name: read(path) for path in out.iterdir()}


def read(path):
    ends = {int(p.stem.split("-")[1]): json.loads(p.read_text()) for p in path.glob("end-*.json")}
    return SimpleNamespace(weights=load_file(path / "weights.safetensors"), ends=ends)


def assert_same(ours, theirs):
    assert ours.weights.keys() == theirs.weights.keys()
    for name, weights in theirs.weights.items():
        np.testing.assert_allclose(ours.weights[name], weights, rtol=0, atol=ROUNDING, err_msg=name)
    assert ours.ends[9]["losses"] == pytest.approx(theirs.ends[9]["losses"], rel=ROUNDING)


def shardings(end):
    return {row["sharding"] for row in end["plan"]["tables"]}


@pytest.mark.parametrize(("layout", "optimizer"), LAYOUTS.items())
def test_four_ranks_on_two_hosts_learn_in_any_layout_what_one_learns(trained, layout, optimizer) -> None:
    four, one = trained[f"four-{layout}"], trained[f"one-{optimizer}"]
    taken = {"grid": {"grid_shard"}, "auto": {"table_row_wise"}}.get(layout, {layout})
    assert shardings(four.ends[9]) == taken
    assert_same(four, one)
    losses = one.ends[9]["losses"]
    assert losses[-1] < 0.8 * losses[0]  # it learns, and is not the same for having stood still


@pytest.mark.parametrize("optimizer", MOVED)
def test_a_training_that_moves_from_two_ranks_to_one_and_back_is_the_one_that_stayed(trained, optimizer) -> None:
    moved = trained[f"moved-{optimizer}"]
    assert [moved.ends[step]["plan"]["world"] for step in (3, 6, 9)] == [2, 1, 2]
    if optimizer != "adam":
        assert shardings(moved.ends[3]) == {"table_wise"}
        assert shardings(moved.ends[9]) == {"row_wise"}
    assert_same(moved, trained[f"one-{optimizer}"])


def test_ids_that_share_a_row_share_it_in_every_world_and_leave_as_a_row_each(trained) -> None:
    four, one = trained["folded-4"], trained["folded-1"]
    assert [row["rows"] for row in one.ends[9]["plan"]["tables"]] == [10, 37]
    assert_same(four, one)
    items = one.weights["item.weight"]
    assert len(items) == 29
    assert (items[9:] == items[9]).all()
    assert len(np.unique(items, axis=0)) == 10
