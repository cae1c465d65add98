"""Ways into the package for what other processes wrote: manifests, bundles, label stores, reports, checkpoints."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import mutate
import numpy as np
import polars as pl
from drive import ROOT, Broken, Target

from recdistill import serve
from recdistill.bundle import gated_bundle, manifest_sha256, open_bundle, write_bundle
from recdistill.labels import Layout, Lists, open_labels, write_shard
from recdistill.report import check, html, markdown, model_card
from recdistill.serve_gate import FEATURES
from recdistill.serve_requests import requests_of
from recdistill.signing import holds
from recdistill.store import Step, build, open_artifact, verify
from recdistill.surface_form import check_surface
from recdistill.world import World

sys.path.insert(0, str(ROOT / "tests"))
USERS, ITEMS, WIDTH = 5, 7, 3


def manifest(home: Path) -> Target:
    def work(out: Path) -> dict[str, int]:
        (out / "deep").mkdir()
        (out / "deep/b.bin").write_bytes(b"\0\1\2")
        (out / "a.txt").write_text("hello")
        return {"rows": 3}

    made = build(home / "store", World(), Step("split", 1, {"kind": "given"}, {"ingest": "0" * 32}), work)
    file = made.path / "manifest.json"
    seed = file.read_bytes()

    def run(data: bytes) -> None:
        file.write_bytes(data)
        verify(open_artifact(made.path))

    return Target("manifest of an artifact", [seed], run, mutate.of_trees(unfit=True))


def written_bundle(out: Path, *, gated: bool = False) -> Path:
    """Write a two-tower bundle with a gate whose index is no index: nothing here reads that."""
    rng, plain = np.random.default_rng(0), out.with_name(f"{out.name}-plain") if gated else out
    index = out.with_name("index")
    index.mkdir(exist_ok=True)
    (index / "index.faiss").write_bytes(b"none")
    (index / "index.json").write_text('{"params":"nprobe=2"}\n')
    shape = {"user": (USERS, WIDTH), "history": (ITEMS, WIDTH), "layers.0.weight": (WIDTH, 2 * WIDTH)}
    query = {name: rng.normal(size=size).astype(np.float32) for name, size in shape.items()}
    query["layers.0.bias"] = np.zeros(WIDTH, np.float32)
    write_bundle(
        plain,
        query=query,
        query_meta={"kind": "two_tower", "space": "dot", "dim": WIDTH, "num_users": USERS, "num_items": ITEMS},
        user_ids=pl.Series(range(100, 100 + USERS)),
        item_ids=pl.Series([f"i{n}" for n in range(ITEMS)]),
        histories=[[n % ITEMS, (n + 3) % ITEMS] for n in range(USERS)],
        popular=np.arange(ITEMS),
        index_dir=index,
        facts={"fingerprint": "f", "data_end": "2026-01-01"},
        tables="int8",
    )
    if gated:
        numbers = {name: [0.1] * 4 for name in ("mean", "spread", "weights")}
        gate = numbers | {"features": list(FEATURES), "shift": 0.0, "threshold": 0.1, "scale": 1.0, "depth": 3}
        offsets, items = np.arange(USERS + 1) * 2, np.arange(2 * USERS) % ITEMS
        gated_bundle(
            plain, out, gate=gate, popularity=np.ones(ITEMS, np.float32), offsets=offsets, items=items, fingerprint="g"
        )
    return out


def bundle_manifest(home: Path) -> Target:
    path = written_bundle(home / "bundle")
    seed = (path / "manifest.json").read_bytes()
    known = manifest_sha256(path)

    def run(data: bytes) -> None:
        (path / "manifest.json").write_bytes(data)
        open_bundle(path)
        if hashlib.sha256(data).hexdigest() == known:
            open_bundle(path, manifest=known)

    return Target("manifest of a bundle", [seed], run, mutate.of_trees(unfit=True))


def _signed(path: Path, file: Path) -> None:
    """Let the manifest of a bundle name what `file` holds now."""
    said = json.loads((path / "manifest.json").read_text())
    said["files"][file.name] = serve.file_digest(file)
    (path / "manifest.json").write_text(json.dumps(said))


def _rewritten(home: Path, title: str, name: str, make: mutate.Maker) -> Target:
    path = written_bundle(home / f"of-{name}", gated=True)
    file = path / name
    seed = file.read_bytes()
    asked = [(100, ["i1", "i2"]), (101, None), (5, ["i3"]), (6, None)]

    def run(data: bytes) -> None:
        file.write_bytes(data)
        _signed(path, file)
        opened = open_bundle(path)
        users, histories, known = serve.known(opened, asked)  # what opened must answer, too
        with np.errstate(all="ignore"):  # numbers that are too large are no shape
            vectors = serve.encode(opened, [users[n] for n in known], [histories[n] for n in known])
        if known and vectors.ndim != 2:
            raise Broken("no vectors")
        serve._popular(opened, 3, [0])

    return Target(f"{title} of a bundle, digests made right", [seed], run, make)


def bundle_query(home: Path) -> Target:
    return _rewritten(home, "query.json", "query.json", mutate.of_trees(unfit=True))


def bundle_index(home: Path) -> Target:
    return _rewritten(home, "index.json", "index.json", mutate.of_trees(unfit=True))


def bundle_gate(home: Path) -> Target:
    return _rewritten(home, "gate.json", "gate.json", mutate.of_trees(unfit=True))


def bundle_arrays(home: Path) -> Target:
    return _rewritten(home, "query.safetensors", "query.safetensors", mutate.of_bytes)


def bundle_popular(home: Path) -> Target:
    return _rewritten(home, "popular.npy", "popular.npy", mutate.of_bytes)


def bundle_ids(home: Path) -> Target:
    return _rewritten(home, "item_ids.parquet", "item_ids.parquet", mutate.of_bytes)


LAYOUT = Layout(num_users=4, num_items=9, depth=3, shard_users=2, stamp={"step": "aa", "teacher": "bb"})
FACTS = {"num_users": 4, "num_items": 9, "depth": 3, "per_shard": 2, "rest": 0, "along": [0, 0, 0], "precision": "f32"}


def _labels(home: Path, title: str, name: str, make: mutate.Maker) -> Target:
    path = home / f"labels-{name}"
    path.mkdir()
    for shard in range(2):
        lists = Lists(np.zeros((2, 3), np.int64), np.zeros((2, 3), np.float32), np.zeros(2, np.float32))
        write_shard(path, LAYOUT, shard, lists)
    (path / "labels.json").write_text(json.dumps(FACTS | {"stamp": dict(LAYOUT.stamp)}))
    seed = (path / name).read_bytes()

    def run(data: bytes) -> None:
        (path / name).write_bytes(data)
        open_labels(path, num_users=4, num_items=9, teacher="bb")

    return Target(title, [seed], run, make)


def label_facts(home: Path) -> Target:
    return _labels(home, "labels.json", "labels.json", mutate.of_trees(unfit=True))


def label_shard(home: Path) -> Target:
    return _labels(home, "shard of labels", "labels-00001.arrow", mutate.of_bytes)


def report(_: Path) -> Target:
    seed = json.loads((Path(__file__).parent / "seeds/report.json").read_text())

    def run(data: bytes) -> None:
        found = json.loads(data)
        if not isinstance(found, dict):  # which `read_report` sees to
            return
        checked = check(found)
        if hashlib.sha256(data).digest()[0] < 16:  # to draw one takes a hundred times as long as to check one
            for text in (markdown(checked), model_card(checked), html(checked)):
                if "<script" in text.lower():
                    raise Broken("markup from data")

    broken = (ValueError, RecursionError)  # of json.loads: `read_report` has its own target in the tests
    return Target("report.json", [mutate.as_json(seed)], run, mutate.of_trees(unfit=False, broken=0), allowed=broken)


def surface(_: Path) -> Target:
    from surfaces import surface as made

    def run(data: bytes) -> None:
        check_surface(json.loads(data))

    small = made()
    small["points"] = small["points"][:3]
    return Target("surface.json", [mutate.as_json(small)], run, mutate.of_trees(unfit=False, broken=0))


def requests(_: Path) -> Target:
    import pandas as pd

    def run(data: bytes) -> None:
        asked = json.loads(data)
        if not isinstance(asked, dict):
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frame = pd.DataFrame(asked.get("rows"), columns=asked.get("columns"))
        except Exception:
            return  # no frame that anybody could send
        requests_of(frame, asked.get("k"), (1, "a"))

    seeds = [{"rows": [[1, ["a", "b"]], [2, None]], "columns": ["user_id", "history"], "k": 10}]
    seeds += [{"rows": [[1], [2]], "columns": ["user_id"], "k": 1}, {"rows": [], "columns": ["user_id"], "k": 1}]
    make = mutate.of_trees(unfit=True, broken=0)
    return Target("requests", [mutate.as_json(s) for s in seeds], run, make, allowed=(ValueError,))


def checkpoint(home: Path) -> Target:
    import torch
    import torch.distributed.checkpoint as dcp

    from recdistill.checkpoint_reader import LIST, check_checkpoint

    path = home / "checkpoint"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"w": torch.ones(3), "step": 3, "words": ["a", None]}, checkpoint_id=path)

    def run(data: bytes) -> None:
        (path / LIST).write_bytes(data)
        check_checkpoint(path)

    others = [pickle.dumps({"a": [1, None]}), pickle.dumps(print)]
    return Target("list of a checkpoint", [(path / LIST).read_bytes(), *others], run, mutate.of_bytes)


def signature(home: Path) -> Target:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    half = Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key()
    (home / "k.pub").write_bytes(half.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    text = "ed25519:" + "A" * 86 + "=="

    def run(data: bytes) -> None:
        if holds(data.decode("utf-8", "replace"), "m", "ab" * 32, [home / "k.pub"]):
            raise Broken("a signature that nobody made")

    return Target("signature", [text.encode(), b""], run, mutate.of_bytes)


def cleared(home: Path, make: Callable[[Path], Target]) -> Target:
    """Return a target in a folder of its own, emptied of what an earlier run left."""
    folder = home / make.__name__
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return make(folder)


MAKERS = (
    *(manifest, bundle_manifest, bundle_query, bundle_index, bundle_gate, bundle_arrays, bundle_popular, bundle_ids),
    *(label_facts, label_shard, report, surface, requests, checkpoint, signature),
)
