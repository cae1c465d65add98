"""A run on a Ray cluster of two nodes on this machine makes what one process makes; skipped where Ray is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recdistill.store import open_artifact

ROOT = Path(__file__).parents[2]
NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make test-ray")
MF = {"model": {"kind": "mf", "dim": 8}, "train": {"epochs": 2, "batch": 512, "negatives": 64}}
SECTIONS = {
    "features": None,
    "registry": None,
    "teacher": MF,
    "student": {"model": {"kind": "mf", "dim": 4}, "train": {"epochs": 2, "batch": 512, "negatives": 64}},
    "labels": {"depth": 10, "shard_users": 50},  # 200 users: four shards, two for each of two shares
    "distill": [{"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}],
    "report": {"k": [10], "metrics": ["ndcg"], "bootstrap": 50},
}
# A command, with what Ray would call the head and another node on this machine; one CPU each, so that two workers are
# on both. Then a run of a log that is not there.
CLUSTER = """
import json, os, sys
from pathlib import Path
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = cluster.address

from pipelines.on_ray import Asked, connected, parts
from recdistill.config import load_config
from recdistill.errors import DataError

def asked(*sets):
    return Asked(config=load_config(Path(sys.argv[1]), sets), home=os.getcwd(), workers=2, shards=2)

with connected(quiet=True):
    import ray
    nodes = sum(node["Alive"] for node in ray.nodes())
    made = list(parts(asked("exec.store=ray/store")))
    try:
        next(parts(asked("exec.store=ray/none", "log.path=d/nowhere.parquet")))
    except DataError as error:
        said = str(error)
cluster.shutdown()
print(json.dumps({"nodes": nodes, "made": made, "said": said}))
"""
WITHOUT = """
import sys
sys.modules["ray"] = None
from pipelines.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def python(home, code, *words):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=250, check=False)


@NEEDS_RAY
def test_two_nodes_of_a_ray_cluster_make_what_one_process_makes(tiny):
    config = tiny.config("ray", **SECTIONS)
    alone = tiny("run", config, "--json", "--until", "student", "--set", "exec.store=ray/alone")
    assert alone.returncode == 0, alone.stderr
    rows = {row["stage"]: row for row in json.loads(alone.stdout)["stages"]}

    process = python(tiny.home, CLUSTER, config)
    assert process.returncode == 0, process.stdout + process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["nodes"] == 2
    ingest, teacher, labels, student = found["made"]
    assert [Path(path).name for path in ingest] == [rows[name]["fingerprint"] for name in ("ingest", "split")]
    assert [Path(path).parent.name for path in student] == ["ingest", "split", "fit", "fit", "labels", "fit"]
    assert [Path(path).name for path in student] == [row["fingerprint"] for row in rows.values()]
    assert len(teacher) == 4
    assert {Path(path).name for path in labels if "labels" in path} == {f"{rows['labels']['fingerprint']}.partial"}

    for name, path in zip(("scratch", "teacher", "student"), (student[2], student[3], student[5]), strict=True):
        made = open_artifact(Path(path))
        assert made.manifest.env["processes"] == "2"
        ours = [point["task"] for point in json.loads((made.path / "curve.json").read_text())]
        curve = tiny.at("fit", rows[name], "ray/alone") / "curve.json"
        assert ours == pytest.approx([point["task"] for point in json.loads(curve.read_text())], rel=2e-4)
    # The lists were there when the student's ranks came to finish them, each share by a task of its own.
    assert len(list(Path(student[4]).glob("labels-*.arrow"))) == 4
    assert "nowhere.parquet" in found["said"]


def test_without_ray_it_is_said_how_to_install_it(tiny):
    process = python(tiny.home, WITHOUT, "ray", tiny.config("rayless", registry=None), "--json")
    refused = json.loads(process.stdout)
    assert (process.returncode, refused["kind"]) == (1, "StageError"), process.stdout + process.stderr
    assert "Ray is not installed" in refused["error"]
    assert "pip install 'recdistill[ray]'" in refused["error"]


def test_no_shares_are_refused(tiny):
    process = tiny("ray", tiny.config("rayless", registry=None), "--json", "--shards", "0")
    assert process.returncode == 2, process.stdout + process.stderr
    assert "at least 1" in json.loads(process.stdout)["error"]
