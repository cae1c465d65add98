"""An environment for each peer, made from the pinned file in peers/ that has its name; or the reason why there is none.

The files name every package by its version. NAME.bare.txt, where there is one, is installed without what it asks for.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent / "peers"
LIMIT = 1800  # seconds of an installation


def environment(name: str, root: Path) -> Path | str:
    """Return the Python of the environment of peer `name`, made under `root` if it is not there; else what went wrong.

    A failure is remembered with the file it was of: delete the directory to try again.
    """
    pins, home = [PINS / f"{name}.txt", PINS / f"{name}.bare.txt"], (root / name).absolute()
    pins = [file for file in pins if file.is_file()]
    digest = hashlib.sha256("\n".join(line for file in pins for line in _lines(file)).encode()).hexdigest()
    python, stamp = home / "bin" / "python", home / "installed"
    if stamp.is_file() and stamp.read_text(encoding="utf-8").startswith(digest):
        reason = stamp.read_text(encoding="utf-8").partition("\n")[2].strip()
        return f"could not be installed: {reason}" if reason else python
    print(f"{name}: makes {home} ...", file=sys.stderr, flush=True)
    home.mkdir(parents=True, exist_ok=True)
    reason = ""
    installs = [[str(python), *PIP, "--requirement", str(file)] for file in pins]
    installs = [[*one, *(["--no-deps"] if ".bare." in one[-1] else [])] for one in installs]
    for command in (_bare(home), *installs):
        reason = _run(command, home / "install.log")
        if reason:
            break
    stamp.write_text(f"{digest}\n{reason}\n", encoding="utf-8")
    return f"could not be installed: {reason}" if reason else python


NAMED = re.compile(r"\w*(Error|Exception|ERROR)\b:")  # what a traceback, or pip, ends with
PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet")


def _lines(pins: Path) -> list[str]:
    return [line for line in pins.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def _bare(home: Path) -> list[str]:
    """Return the command that makes an empty environment; Debian's python3 may lack what venv needs."""
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        return [sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(home)]
    return [sys.executable, "-m", "venv", "--clear", str(home)]


def _run(command: list[str], log: Path) -> str:
    """Return nothing if the command succeeds, else its last line that says something."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return f"took more than {LIMIT} s"
    said = f"{done.stdout}\n{done.stderr}".strip()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(said, encoding="utf-8")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line for line in lines if NAMED.match(line)]
    return "" if done.returncode == 0 else (named or lines or ["no word of why"])[-1]
