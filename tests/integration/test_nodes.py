"""Several machines are one run: torchrun's agents on loopback, each of which thinks itself a machine of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOIN = """
import os, sys, time
from datetime import timedelta
from recdistill import world

world.ASK = timedelta(milliseconds=50)

def late():
    time.sleep(0.3)
    return 7

if sys.argv[1] == "given":
    import torch.distributed as dist
    dist.init_process_group("gloo")
with world.world(device="cpu") as joined:
    assert joined.share(late) == 7
    assert joined.gather({"rank": joined.rank}) == [{"rank": 0}, {"rank": 1}]
    said = f"{joined.rank} of {joined.size}, {joined.local} here"
if sys.argv[1] == "given":
    dist.barrier()  # which is still there: who joined the processes parts them
    dist.destroy_process_group()
assert "torch" in sys.modules and not __import__("torch").distributed.is_initialized()
print(said)
"""
# Kills its own process before the first checkpoint of that name gets it; only once, whoever restarts it.
ONCE = """
import os, pathlib, re, signal, sys
pattern, flag = re.compile(sys.argv.pop(1)), pathlib.Path(sys.argv.pop(1))
def hook(event, arguments):
    if event == "os.rename" and pattern.search(os.fspath(arguments[1])) and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from pipelines.__main__ import main
sys.exit(main())
"""


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **more}


@pytest.fixture
def finished():
    """Start commands together, each with its directory and environment; return what each of them said."""
    started = []

    def run(*commands):
        for command, home, env in commands:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
            started.append(subprocess.Popen(command, cwd=home, env=env, **pipes))
        said = [process.communicate(timeout=120) for process in started]
        return [(process.returncode, *both) for process, both in zip(started, said, strict=True)]

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def agents(homes, *words, rendezvous="static", program=("-m", "pipelines")):
    """Return the launches of two agents, each with its own directory and, after `words`, its own words."""
    at = port()
    how = ["--master-addr", "127.0.0.1", "--master-port", str(at)]
    if rendezvous == "c10d":
        how = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{at}", "--rdzv-id", str(at)]
        how += ["--max-restarts", "2"]
    for rank, (home, *own) in enumerate(homes):
        head = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank), *how]
        yield [*head, "--nproc-per-node", "1", *program, *words, *own], home, environment()


def curve(path):
    return json.loads((path / "curve.json").read_text())


def test_two_machines_of_which_one_loses_its_process_draw_the_curves_of_one_process(tiny, done, finished):
    """Rank 0 is killed within a training; the agents restart both ranks, which go on from the checkpoint."""
    config = tiny.config("nodes", registry=None)
    labels = tiny.at("labels", done.stages["labels"])  # scores in the seventh digit decide the order of near ties
    shutil.copytree(labels, tiny.home / "nodes" / "store" / "labels" / labels.name)
    (tiny.home / "once.py").write_text(ONCE)
    program = ("once.py", rf"{done.stages['scratch']['fingerprint']}\.partial/checkpoint-9$", "killed.flag")
    words = ("run", config, "--json", "--until", "student", "--set", "exec.store=nodes/store")
    words += ("--set", "exec.checkpoint_every=3")
    said = finished(*agents([(tiny.home,), (tiny.home,)], *words, rendezvous="c10d", program=program))
    assert [code for code, _, _ in said] == [0, 0], said
    assert (tiny.home / "killed.flag").exists()
    outcome = json.loads(next(out for _, out, _ in said if '"stages"' in out))  # only one rank speaks
    assert [r["fingerprint"] for r in outcome["stages"]] == [r["fingerprint"] for r in done.outcome["stages"][:6]]
    rows = {row["stage"]: row for row in outcome["stages"]}
    for row in (rows[name] for name in ("scratch", "teacher", "student")):
        assert not row["hit"]
        ours, theirs = curve(tiny.at("fit", row, "nodes/store")), curve(tiny.at("fit", row))
        assert len(ours) == len(theirs)
        for here, there in zip(ours, theirs, strict=True):
            losses = here.keys() - {"valid"}
            assert {k: here[k] for k in losses} == pytest.approx({k: there[k] for k in losses}, rel=2e-4)
            assert here["valid"] == pytest.approx(there["valid"], abs=0.005)
    assert not list((tiny.home / "nodes" / "store").glob(".seen-*"))


def test_a_machine_that_sees_another_store_ends_the_run_before_it_begins(tiny, finished, tmp_path):
    config = tiny.config("blind", registry=None)
    shutil.copy(tiny.home / config, tmp_path)
    words = ("run", config, "--json", "--until", "split", "--set", "exec.store=blind/store")
    said = finished(*agents([(tiny.home,), (tmp_path,)], *words))
    assert all(code for code, _, _ in said)
    refused = json.loads(said[0][1])
    assert (refused["kind"], refused["exit_code"]) == ("ArtifactError", 5)
    assert "rank 1 on " in refused["error"]
    assert f"does not see what rank 0 writes to {tiny.home / 'blind' / 'store'}" in refused["error"]
    assert "exec.store to a directory on a disk that all machines share" in refused["error"]
    assert list((tiny.home / "blind" / "store").iterdir()) == []


@pytest.mark.parametrize("who", ["given", "own"])
def test_processes_that_another_launcher_started_are_a_world_too(finished, tmp_path, who):
    """With a process group that an engine made, which stays, and without one, where rank 0 keeps the store."""
    more = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port())}
    command = [sys.executable, "-c", JOIN, who]
    said = finished(*((command, tmp_path, environment(**more, RANK=str(rank))) for rank in range(2)))
    assert [(code, out.strip()) for code, out, _ in said] == [(0, "0 of 2, 1 here"), (0, "1 of 2, 1 here")], said
