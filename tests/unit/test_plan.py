"""Where tables are laid: by TorchRec's planner, for any number of ranks and GPUs, none of which need be here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from recdistill.errors import StageError
from recdistill.models.placement import Placement
from recdistill.models.plan import plan_tables
from recdistill.models.sharding import fuse, sharding_plan
from recdistill.models.tables import Table, distribute
from recdistill.placing import PLAN, told
from recdistill.world import World

GB = 10**9
pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore::FutureWarning"),
    pytest.mark.filterwarnings(r"ignore::UserWarning"),
]


class Two(nn.Module):
    """The tables of a model, without memory."""

    def __init__(self, users: int, items: int, dim: int) -> None:
        super().__init__()
        self.user, self.item = Table("user", users, dim), Table("item", items, dim)


def plan(place=None, *, users=1000, items=1000, dim=128, size=1, local=None, device="cpu", optimizer="rowwise_adagrad"):
    model = Two(users, items, dim)
    tables = {"user.ebc": model.user.ebc, "item.ebc": model.item.ebc}
    fuse(tables, optimizer, 0.1)
    where = {"size": size, "local": local or size, "device": device}
    return plan_tables(model, tables, optimizer=optimizer, place=place or Placement(ddr=64 * GB), **where)


def chosen(found):
    return {row["table"]: (row["sharding"], row["kernel"]) for row in found["tables"]}


def gpus(count, hbm=24, ddr=128, **more):
    """The plan of 100 million items of 128 dimensions, 51 GB, on so many GPUs of one host."""
    place = Placement(hbm=hbm * GB, ddr=ddr * GB, **more.pop("place", {}))
    return plan(place, items=more.pop("items", 100_000_000), size=count, device="cuda", **more)


def test_a_table_that_a_gpu_cannot_hold_lies_in_the_hosts_memory_behind_a_cache() -> None:
    assert chosen(gpus(1)) == {"user": ("table_wise", "fused"), "item": ("table_wise", "fused_uvm_caching")}
    assert chosen(gpus(1, items=10_000_000))["item"] == ("table_wise", "fused")


def test_enough_gpus_share_its_rows_and_their_bytes_are_counted() -> None:
    found = gpus(4)
    assert chosen(found)["item"] == ("row_wise", "fused")
    [row] = [row for row in found["tables"] if row["table"] == "item"]
    assert [shard["rows"] for shard in row["shards"]] == [[n * 25_000_000, (n + 1) * 25_000_000] for n in range(4)]
    assert [shard["weight_bytes"] for shard in row["shards"]] == [25_000_000 * 128 * 4] * 4
    assert [shard["optimizer_bytes"] for shard in row["shards"]] == [25_000_000 * 4] * 4  # one sum a row
    of_ranks = sum(rank["weight_bytes"] for rank in found["ranks"])
    assert of_ranks == (100_000_000 + 1000) * 128 * 4
    assert all(rank["planned"]["hbm_bytes"] >= rank["weight_bytes"] for rank in found["ranks"])


def test_what_fits_nowhere_is_refused_with_its_size() -> None:
    with pytest.raises(StageError) as caught:
        gpus(1, ddr=16)
    assert "the tables do not fit in a world of 1, 1 to a host of 16 GB, 24 GB a GPU" in str(caught.value)
    assert "their weights alone are 51.2 GB" in str(caught.value)
    with pytest.raises(StageError, match="do not fit"):
        plan(Placement(ddr=GB), items=10_000_000, size=2)


def test_a_cache_is_as_large_as_is_said_and_0_is_none() -> None:
    found = gpus(1, place={"cache": 0.25})
    assert chosen(found)["item"] == ("table_wise", "fused_uvm_caching")
    [row] = [row for row in found["tables"] if row["table"] == "item"]
    assert row["cache"] == 0.25
    cached = row["shards"][0]["planned"]["hbm_bytes"]
    assert 0.25 * 51.2e9 < cached < 0.3 * 51.2e9
    sharding = sharding_plan(found).plan["item.ebc"]["item"]
    assert (sharding.compute_kernel, sharding.cache_params.load_factor) == ("fused_uvm_caching", 0.25)
    assert chosen(gpus(1, place={"cache": 0.0}))["item"] == ("table_wise", "fused_uvm")
    with pytest.raises(StageError, match=r"exec\.cache: a cache .* needs a GPU, and this run is on the CPU"):
        plan(Placement(cache=0.2, ddr=GB))


@pytest.mark.parametrize(
    ("layout", "optimizer", "shards"),
    [
        ("table_wise", "rowwise_adagrad", 1),
        ("row_wise", "rowwise_adagrad", 16),
        ("table_row_wise", "rowwise_adagrad", 8),
        ("column_wise", "adagrad", 16),
        ("grid", "sgd", 16),
        ("data_parallel", "adagrad", 16),
    ],
)
def test_a_layout_that_is_said_is_taken_on_two_hosts(layout, optimizer, shards) -> None:
    place = {"place": {"tables": layout}, "items": 1_000_000, "local": 8, "optimizer": optimizer}
    found = gpus(16, **place)
    named = {"grid": "grid_shard"}.get(layout, layout)
    assert {row["sharding"] for row in found["tables"]} == {named}
    assert [len(row["shards"]) for row in found["tables"]] == [shards] * 2
    held = sum(shard["weight_bytes"] for row in found["tables"] for shard in row["shards"])
    assert held == (1_000_000 + 1000) * 128 * 4 * (16 if layout == "data_parallel" else 1)


def test_a_grid_needs_hosts() -> None:
    with pytest.raises(StageError) as caught:
        plan(Placement("grid"), size=4, optimizer="sgd")
    assert "grid cuts a table's columns over hosts and its rows over each one's processes" in str(caught.value)
    assert "here is one host of 4" in str(caught.value)


def test_each_table_may_have_a_layout_of_its_own() -> None:
    found = plan(Placement({"user": "table_wise", "item": "row_wise"}, ddr=GB), size=2)
    assert {name: sharding for name, (sharding, _) in chosen(found).items()} == {
        "user": "table_wise",
        "item": "row_wise",
    }


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_plan_of_nothing_said_keeps_every_optimizers_meaning(size) -> None:
    for optimizer in ("rowwise_adagrad", "adagrad", "sgd", "adam"):
        shardings = {sharding for sharding, _ in chosen(plan(size=size, optimizer=optimizer)).values()}
        if optimizer == "adam":
            assert shardings == {"data_parallel"}
        elif size == 1:
            assert shardings == {"table_wise"}
        elif optimizer == "rowwise_adagrad":
            assert shardings <= {"table_wise", "row_wise"}


def test_where_tables_lie_is_said_in_a_line_and_kept_in_a_file(tmp_path: Path) -> None:
    settings = {"lr": 0.1, "dense_lr": 0.1, "weight_decay": 0.0, "init_std": 1.0, "seed": 3}
    model = distribute(Two(10, 20, 4), World(), optimizer="adagrad", **settings)
    said = []
    assert told(model, tmp_path, "teacher", World(), lambda *line: said.append(line)) is model
    words = "teacher tables item table_wise fused, user table_wise fused"
    assert said == [(words, 1, 1, {"megabytes on the fullest rank": 30 * 4 * (4 + 4) / 1e6})]
    assert json.loads((tmp_path / PLAN).read_text()) == model.plan
