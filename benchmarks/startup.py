"""G10: CPU seconds from the command to its answer, of what needs no training; and whether torch was loaded for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.goals import Row, single
from benchmarks.setting import Setting
from benchmarks.timing import median, spread
from benchmarks.workers import PeerError

ROOT = Path(__file__).parents[1]
MUST, AIM = 0.4, 0.25
MAIN = ("-m", "pipelines")
QUICKSTART = "data/quickstart"  # where configs/quickstart.yaml has its log


def rows(setting: Setting) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder) / "run.yaml", f"{folder}/log"
        text = (ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
        config.write_text(text.replace(QUICKSTART, log), encoding="utf-8")
        store = ("--set", f"exec.store={folder}/store")
        _cpu((*MAIN, "synth", log))
        _cpu((*MAIN, "run", str(config), *store, "--until", "split"))
        commands = {
            "--help": (*MAIN, "--help"),
            "check": (*MAIN, "check", str(config)),
            "plan": (*MAIN, "plan", str(config), *store),
            "run --until split, found done": (*MAIN, "run", str(config), *store, "--until", "split"),
        }
        return [*(_measured(name, command, setting.rounds) for name, command in commands.items())]


def _measured(name: str, command: tuple[str, ...], rounds: int) -> Row:
    """Return the row of a command; bare python, which is a part of it, stands beside it."""
    bare, ours = [], []
    for _ in range(rounds):
        bare.append(_cpu(("-c", "pass")))
        ours.append(_cpu(command))
    loaded = _loads_torch(command)
    what = f"recdistill {name}{', loads torch' if loaded else ''}"
    row = single("G10", what, median(ours), "CPU-s", must=MUST, aim=AIM)
    if loaded:
        row["met"] = "no"
    return row | {"spread": spread(ours), "about": {"loads_torch": loaded, "bare_python": median(bare)}}


def _cpu(command: tuple[str, ...]) -> float:
    """Return the CPU seconds, of user and system, of one Python process."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise PeerError(f"{' '.join(command)}: {said.decode().strip().splitlines()[-1]}")
    return used.ru_utime + used.ru_stime


def _loads_torch(command: tuple[str, ...]) -> bool:
    listed = [sys.executable, "-X", "importtime", *command]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    return any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())
