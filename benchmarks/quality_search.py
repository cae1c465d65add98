"""The settings that everyone is compared by in G0: chosen on a tenth of train, among as many tries for each.

What is tried is what the users of each turn first; the rest is as its authors, or ours, have it by default. The test
part is not looked at.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.setting import OURS, Setting

DIM = 64
HELD_OUT, SEED = 0.1, 7
CHOSEN = Path(__file__).parents[1] / "runs" / "bench" / "chosen.json"


@dataclass(frozen=True)
class Asked:
    """What one competitor is asked: the script and task of its worker, its environment, and its settings."""

    script: str
    task: str
    home: str | None
    told: Mapping[str, Any]

    @property
    def epochs(self) -> int | None:
        """Return how many measurements a training that plans its own end has."""
        return self.told["train"]["epochs"] if "train" in self.told else None


def _student(lr: float, temperature: float) -> Asked:
    model = {"kind": "two_tower", "history": 20, "id_dropout": 0.0, "temperature": temperature}
    return _ours(model, lr, epochs=12)


def _graph(lr: float, temperature: float) -> Asked:
    return _ours({"kind": "lightgcn", "layers": 2, "temperature": temperature, "popularity": 0.7}, lr, epochs=8)


def _ours(model: dict[str, Any], lr: float, epochs: int) -> Asked:
    train = {"batch": 8192, "negatives": 512, "lr": lr, "decay": "cosine", "epochs": epochs}
    return Asked(OURS, "train", None, {"steps": None, "model": model, "train": train})


OWN = {
    "ours, two-tower": [_student(*pair) for pair in product((0.2, 0.4), (0.07, 0.1))],
    "ours, LightGCN": [_graph(*pair) for pair in product((0.1, 0.2), (0.07, 0.1))],
}
PEERS = {
    "RecBole BPR": [
        Asked("with_recbole.py", "train", "recbole", {"steps": None, "batch": 2048, "lr": lr})
        for lr in (5e-4, 1e-3, 2e-3, 5e-3)
    ],
    "implicit BPR": [
        Asked("with_implicit.py", "bpr", "implicit", {"epochs": 10, "lr": lr, "regularization": decay})
        for lr, decay in product((0.02, 0.05), (0.002, 0.01))
    ],
    "implicit ALS": [
        Asked("with_implicit.py", "als", "implicit", {"epochs": 2, "alpha": alpha, "regularization": decay})
        for alpha, decay in product((10.0, 40.0), (1.0, 10.0))
    ],
}


def chosen(setting: Setting, quality: Callable[[str, Asked, str], float]) -> dict[str, Asked]:
    """Return the setting of each whose `quality` (name, setting, log) on the part held out is best.

    What was chosen is kept in runs/bench/chosen.json, and found there if log and tries are the same.
    """
    everyone, log = OWN | PEERS, held_out(setting)
    tries = {name: [asdict(one) for one in settings] for name, settings in everyone.items()}
    words = json.dumps([tries, str(setting.data), setting.quick], sort_keys=True)
    key = hashlib.sha256(words.encode()).hexdigest()
    kept = json.loads(CHOSEN.read_text(encoding="utf-8")) if CHOSEN.is_file() else {}
    found = kept["found"] if kept.get("key") == key else {}
    for name, settings in everyone.items():
        if name not in found:
            found[name] = [quality(name, one, log) for one in settings]
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
            CHOSEN.parent.mkdir(parents=True, exist_ok=True)
            CHOSEN.write_text(json.dumps({"key": key, "found": found, "tries": tries}, indent=1), encoding="utf-8")
    return {name: settings[int(np.argmax(found[name]))] for name, settings in everyone.items()}


def held_out(setting: Setting) -> str:
    """Return a log whose test part is a tenth of the train part of the setting's."""
    data = np.load(setting.log)
    out = np.random.default_rng(SEED).random(len(data["train"])) < HELD_OUT
    path = setting.folder / "held-out.npz"
    np.savez(path, train=data["train"][~out], test=data["train"][out], users=data["users"], items=data["items"])
    return str(path)
