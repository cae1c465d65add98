"""The bundle: the one directory that is registered and served. `recdistill.serve` lists its files and reads them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recdistill import serve, serve_gate, serve_requests, serve_search, serve_tables, serve_whole
from recdistill.errors import ArtifactError, DataError
from recdistill.serve import Bundle, encode
from recdistill.spec import canonical
from recdistill.store import sha256, write_text
from recdistill.types import Float, Int

__all__ = ["Bundle", "encode", "gated_bundle", "manifest_sha256", "model_code", "open_bundle", "write_bundle"]
FIX = "build the bundle again, or fetch it from the registry"
CODE = "serve.py"  # beside a model's artifacts
TABLES = ("user", "history")  # of query.safetensors


def write_bundle(
    out: Path,
    *,
    query: Mapping[str, Float],
    query_meta: Mapping[str, Any],
    user_ids: pl.Series,
    item_ids: pl.Series,
    histories: Sequence[Int] | None,
    popular: Int,
    index_dir: Path,
    facts: Mapping[str, Any],
    tables: str = "fp32",
) -> dict[str, Any]:
    """Write the bundle directory `out` and return its manifest; equal inputs give equal bytes.

    `query` holds the arrays of query.safetensors, `query_meta` what query.json says, `histories` the item rows of
    each user (the latest last), `facts` what the manifest adds to the digests: fingerprint, data_end and the like.
    `tables` is what the rows of users and items are kept as: fp32, fp16 or int8, which older versions cannot read.
    Raises DataError if the shapes contradict each other; then nothing is left at `out`.
    """
    from safetensors.numpy import save_file

    _check(query, query_meta, user_ids, item_ids, histories, popular)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        kinds = {name: tables if name in TABLES else "fp32" for name in query}
        arrays = [serve_tables.pack(name, array, kinds[name]) for name, array in query.items()]
        save_file({n: array for one in arrays for n, array in one.items()}, partial / "query.safetensors")
        write_text(partial / "query.json", canonical(dict(query_meta)) + "\n")
        user_ids.alias("user_id").to_frame().write_parquet(partial / "user_ids.parquet")
        item_ids.alias("item_id").to_frame().write_parquet(partial / "item_ids.parquet")
        if histories is not None:
            lists = [list(map(int, h)) for h in histories]
            rows = pl.Series("history", lists, dtype=pl.List(pl.Int64))
            rows.to_frame().write_parquet(partial / "histories.parquet")
        np.save(partial / "popular.npy", np.asarray(popular, np.int64))
        for name in ("index.faiss", "index.json"):
            shutil.copyfile(index_dir / name, partial / name)
        return _end(partial, out, {**facts, "format": 1 if tables == "fp32" else 2})
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def gated_bundle(
    bundle: Path,
    out: Path,
    *,
    gate: Mapping[str, Any],
    popularity: Float,
    offsets: Int,
    items: Int,
    fingerprint: str,
) -> dict[str, Any]:
    """Write what `bundle` holds and a gate to the directory `out`, and return its manifest.

    `gate` is what gate.json says, popularity [I] what it calls popular. User u took items[offsets[u]:offsets[u+1]], the
    latest last: all of them, of which an encoder reads the latest that it averages. Raises ArtifactError if `bundle` is
    not whole.
    """
    import pyarrow as pa
    from pyarrow import parquet

    open_bundle(bundle)
    facts = json.loads((bundle / "manifest.json").read_text(encoding="utf-8")) | {"fingerprint": fingerprint}
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(bundle, partial, ignore=shutil.ignore_patterns("manifest.json"))
        rows = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(items, pa.int64()))
        parquet.write_table(pa.table({"history": rows}), partial / "histories.parquet")
        write_text(partial / "gate.json", canonical(dict(gate)) + "\n")
        np.save(partial / "gate.npy", popularity)
        return _end(partial, out, facts)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _end(partial: Path, out: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of the files in `partial`, with `facts`, and put them in the place of `out`; return it."""
    files = {f.name: sha256(f) for f in sorted(partial.iterdir())}
    manifest = {**facts, "files": files}
    write_text(partial / "manifest.json", canonical(manifest) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return json.loads(canonical(manifest))


def open_bundle(path: Path, *, manifest: str | None = None) -> Bundle:
    """Return the bundle at `path`, every file rehashed first; `manifest` is the sha256 its manifest must have.

    Raises ArtifactError if it is missing, truncated, tampered with, or written by a newer version.
    """
    if manifest is not None and manifest_sha256(path) != manifest:
        raise ArtifactError("manifest.json is not the one that was registered", where=str(path), fix=FIX)
    try:
        return serve.open_bundle(path)
    except serve.BundleError as cause:
        raise ArtifactError(str(cause), fix=FIX) from cause


def model_code(out: Path) -> Path:
    """Write the code that serves a bundle to the directory `out`, as the one file that MLflow copies; return it."""
    write_text(out / CODE, _code())
    return out / CODE


def code_sha256() -> str:
    """Return the sha256 of the code that `model_code` writes."""
    return hashlib.sha256(_code().encode()).hexdigest()


def _code() -> str:
    own = re.compile(r"^from (?:recdistill|__future__)\b.*\n", re.MULTILINE)
    pieces = (serve_tables, serve_whole, serve_gate, serve_requests, serve_search, serve)
    parts = [own.sub("", Path(piece.__file__).read_text(encoding="utf-8")) for piece in pieces]
    return "\n".join(["from __future__ import annotations\n", *parts])


def manifest_sha256(path: Path) -> str:
    """Return the sha256 of the bundle's manifest, which names the whole bundle; raises ArtifactError if missing."""
    try:
        return sha256(path / "manifest.json")
    except OSError as cause:
        raise ArtifactError("no manifest.json: not a whole bundle", where=str(path), fix=FIX) from cause


def _check(
    query: Mapping[str, Float],
    meta: Mapping[str, Any],
    user_ids: pl.Series,
    item_ids: pl.Series,
    histories: Sequence[Int] | None,
    popular: Int,
) -> None:
    users, items, kind = len(user_ids), len(item_ids), meta.get("kind")
    depth = sum(name.startswith("layers.") and name.endswith(".weight") for name in query)
    width = query["user"].shape[1] if "user" in query else None
    if kind == "two_tower" and "history" in query and depth:
        width = query[f"layers.{depth - 1}.weight"].shape[0] if f"layers.{depth - 1}.weight" in query else None
    rules = {
        f"kind is {kind!r}, not mf or two_tower": kind in ("mf", "two_tower"),
        f"space is {meta.get('space')!r}, not dot or cosine": meta.get("space") in ("dot", "cosine"),
        "array `user` has not one row per user_id": "user" in query and len(query["user"]) == users,
        "array `history` has not one row per item_id": kind != "two_tower" or len(query.get("history", ())) == items,
        "query.json counts other users or items": (meta.get("num_users"), meta.get("num_items")) == (users, items),
        "query.json has another dim than the encoder gives": meta.get("dim") == width,
        "histories have not one list per user": histories is None or len(histories) == users,
        "popular is not every item row once": sorted(np.asarray(popular).tolist()) == list(range(items)),
        "user_ids are not unique and without null": user_ids.n_unique() == users and not user_ids.null_count(),
        "item_ids are not unique and without null": item_ids.n_unique() == items and not item_ids.null_count(),
        "there are no users or no items": users > 0 and items > 0,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise DataError("; ".join(broken), where="bundle", fix="export the student and its ids from one dataset")
