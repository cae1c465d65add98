"""Ways into the package for what a user types: configurations, settings on top of them, presets, words of a command."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import mutate
from drive import ROOT, Broken, Target

from pipelines.__main__ import main
from recdistill.checks import checks
from recdistill.config import Config, load_config
from recdistill.errors import ConfigError
from recdistill.explain import validate
from recdistill.methods import read_method
from recdistill.yamlfile import Document, apply_sets, load_yaml

SMALL = """\
name: small
log: {path: a.parquet, user: u, item: i, time: t}
split: {kind: user_chronological}
teacher: {model: {kind: mf, dim: 8}, train: {epochs: 2}}
labels: {depth: 20}
student: {model: {kind: mf, dim: 4}, train: {epochs: 2}}
distill:
  - {kind: list, weight: 1.0, draw: [{kind: top, k: 10}], loss: {kind: softmax_kl}}
registry: {model: m, gates: {ndcg_at_10: {min: 0.1}}}
exec: {store: runs/store, mlflow: "sqlite:///a.db"}
"""
PAIRS = zip("abcdefgh", "bcdefghi", strict=True)
BOMB = "a: &a [x,x,x,x]\n" + "".join(f"{b}: &{b} [*{a},*{a},*{a},*{a}]\n" for a, b in PAIRS)
FILES = sorted(ROOT.glob("configs/*.yaml"))
PRESETS = sorted(ROOT.glob("recdistill/presets/**/*.yaml"))


@cache
def trees() -> list[dict[str, Any]]:
    return [load_yaml(file).data for file in FILES]


def config_text(home: Path) -> Target:
    file = home / "run.yaml"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        load_config(file)

    seeds = [SMALL.encode(), b"", b"a: 1\n", BOMB.encode(), *(f.read_bytes() for f in FILES if f.stat().st_size < 1600)]
    return Target("config, as YAML", seeds, run, mutate.of_bytes)


def config_tree(_: Path) -> Target:
    def run(data: bytes) -> None:
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):
            return
        if isinstance(tree, dict):
            config = validate(Config, Document(name="f", data=tree, places={}))
            for at, reason in checks(config):
                if not reason:
                    raise Broken(f"nothing said of {at}")

    return Target(
        "config, as values", [mutate.as_json(t) for t in trees()], run, mutate.of_trees(unfit=False, broken=0)
    )


def settings(home: Path) -> Target:
    (home / "base.yaml").write_text(SMALL)
    base = load_yaml(home / "base.yaml")
    keys = [".".join(map(str, path)) for path in base.places]

    def run(data: bytes) -> None:
        texts = [text.decode("utf-8", "surrogateescape") for text in data.split(b"\0") if text]
        config = validate(Config, apply_sets(base, texts))
        list(checks(config))

    def make(rng: random.Random, pool: Sequence[bytes]) -> bytes:
        if rng.random() < 0.4:
            return mutate.raw(rng, rng.choice(pool), pool[:8])
        value = json.dumps(mutate.odd(rng, False)) if rng.random() < 0.7 else rng.choice(mutate.WORDS)
        key = rng.choice(keys) if rng.random() < 0.8 else rng.choice(mutate.WORDS)[:50]
        return f"{key}={value}".encode("utf-8", "replace").replace(b"\0", b"")

    seeds = [f"{key}=1".encode() for key in keys] + [b"distill.0.draw.0.k=3", b"x", b"=", b"a..b=1", b"exec={store: a}"]
    return Target("--set", seeds, run, make)


def preset(home: Path) -> Target:
    file = home / "method.yaml"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        read_method(file)

    seeds = sorted((f.read_bytes() for f in PRESETS), key=len)[:8]
    return Target("method, as YAML", seeds, run, mutate.of_bytes)


COMMANDS = ("check", "plan", "show", "verify", "report", "nothing", "--help", "--version", "")


def words(home: Path) -> Target:
    """Only commands that read: what writes or trains is reached with wrong words alone."""
    (home / "cli.yaml").write_text(SMALL)
    (home / "artifact").mkdir(exist_ok=True)
    good = [str(home / "cli.yaml"), str(home / "artifact"), str(home), "/dev/null", str(home / "none.yaml")]
    more = [
        "--set",
        "--json",
        "--method",
        "--debug",
        "--",
        "-x",
        *good,
    ]

    def run(data: bytes) -> None:
        given = [w.decode("utf-8", "surrogateescape") for w in data.split(b"\0")]
        if not given or given[0] not in COMMANDS or any("--out" in w or "--mlflow" in w for w in given):
            return  # another registry would be looked for, or made
        said, told = io.StringIO(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(told):
            try:
                code = main(given)
            except SystemExit as error:
                code = error.code
        if code not in (0, 1, 2, 3, 4, 5, 6, None):
            raise Broken(f"exit code {code}")
        if "unexpected " in told.getvalue() or ("Traceback" in told.getvalue() and b"--debug" not in data):
            raise Broken(told.getvalue())

    def make(rng: random.Random, pool: Sequence[bytes]) -> bytes:
        chosen = [rng.choice(COMMANDS[:5] * 3 + COMMANDS)]
        for _ in range(rng.randrange(5)):
            pick = rng.random()
            chosen.append(rng.choice(more) if pick < 0.7 else rng.choice(mutate.WORDS)[:200])
        made = b"\0".join(w.encode("utf-8", "surrogateescape") for w in chosen)
        return made if rng.random() < 0.7 else mutate.raw(rng, made, pool[:8])

    seeds = [b"\0".join([b"check", good[0].encode(), b"--set", s]) for s in (b"labels.depth=3", b"a=", b"name=\xff")]
    seeds += [b"check", b"show\0m", b"verify\0/dev/null", b"plan\0" + good[4].encode(), b"report\0" + good[0].encode()]
    return Target("command line", seeds, run, make, allowed=(ConfigError,))


MAKERS = (config_text, config_tree, settings, preset, words)
