"""The model that the registry holds and serves: a bundle, read and answered from.

MLflow runs it as one file with serve_*.py (recdistill.bundle.model_code), so it imports nothing else of recdistill;
the bundle writer and the latency harness import their reading and encoding from here: what is measured is what serves.

    query.safetensors     user [U,d]; a two-tower also has history [I,d] and layers.<n>.weight, layers.<n>.bias; the
                          tables of a bundle of format 2 are of fewer bits, see serve_tables.py
    query.json            kind, space, dim, num_users, num_items, and history: how many latest items are averaged
    user_ids.parquet      user_id, item_ids.parquet item_id: row number = dense row
    histories.parquet     optional: the items of each user, used when a request gives none
    popular.npy           item rows by popularity, the answer where there is nothing to go by
    index.faiss           the index, index.json what is in it
    gate.json, gate.npy   optional: whom to ask the teacher about, see serve_gate.py; histories are then whole
    manifest.json         the sha256 of every file above
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recdistill.serve_gate import Deferral, joined, read_deferral
from recdistill.serve_requests import requests_of
from recdistill.serve_search import search_index, search_without
from recdistill.serve_tables import Packed, read_tables, unpack
from recdistill.serve_whole import check_bundle, read_object

FORMAT = 2
REQUIRED = ("query.safetensors", "query.json", "user_ids.parquet", "item_ids.parquet", "popular.npy", "index.faiss")
READ_LIMIT = 1 << 40  # bytes of one vector inside an index file, and below it the loop counts FAISS may trust
LOOP_LIMIT = 1 << 28

Array = NDArray[Any]


class BundleError(Exception):
    """The bundle is missing, truncated, tampered with, or newer than this code."""


class Bundle(NamedTuple):
    """A bundle in memory, its tables and index mapped from their files; `U` users, `I` items."""

    path: Path
    kind: str  # mf, two_tower
    space: str  # dot, cosine
    length: int | None  # how many of the latest history items are averaged; None for all
    users: Array | Packed  # [U,d]
    history: Array | Packed | None  # [I,d]
    layers: tuple[tuple[Array, Array], ...]
    user_row: Mapping[Any, int]
    item_row: Mapping[Any, int]
    item_ids: list[Any]
    offsets: Array | None  # [U+1] into `past`
    past: Array | None
    popular: Array  # item rows
    params: str  # FAISS runtime parameters
    deferral: Deferral | None = None


class Answer(NamedTuple):
    """The best items of one request, by falling score; popularity has no scores, so its are zero."""

    item_ids: list[Any]
    scores: list[float]
    source: str  # model, history, popular


def open_bundle(path: Path) -> Bundle:
    """Check every file of the bundle at `path` against its manifest, then read all but the index.

    Raises BundleError if a file is missing or differs.
    """
    check_files(path)
    from pyarrow import parquet

    try:
        meta = read_object(path / "query.json")
        params = read_object(path / "index.json").get("params", "")
        arrays = read_tables(path / "query.safetensors")
        user_ids = parquet.read_table(path / "user_ids.parquet")["user_id"].to_pylist()
        item_ids = parquet.read_table(path / "item_ids.parquet")["item_id"].to_pylist()
        offsets = past = None
        if (path / "histories.parquet").is_file():
            lists = parquet.read_table(path / "histories.parquet")["history"].combine_chunks()
            offsets, past = lists.offsets.to_numpy(), lists.values.to_numpy()
        depth = sum(name.startswith("layers.") and name.endswith(".weight") for name in arrays)
        bundle = Bundle(
            path=path,
            kind=meta["kind"],
            space=meta["space"],
            length=meta.get("history"),
            users=unpack(arrays, "user"),
            history=unpack(arrays, "history") if "history" in arrays else None,
            layers=tuple((arrays[f"layers.{n}.weight"], arrays[f"layers.{n}.bias"]) for n in range(depth)),
            user_row={v: row for row, v in enumerate(user_ids)},
            item_row={v: row for row, v in enumerate(item_ids)},
            item_ids=item_ids,
            offsets=offsets,
            past=past,
            popular=np.load(path / "popular.npy", allow_pickle=False),
            params=params,
            deferral=read_deferral(path),
        )
        check_bundle(bundle)
        return bundle
    except Exception as cause:  # what readers of five formats raise at hostile bytes has no end
        raise BundleError(f"{path}: cannot be read: {type(cause).__name__}: {cause}") from cause


def check_files(path: Path) -> dict[str, Any]:
    """Return the manifest of the bundle at `path` after rehashing every file; raises BundleError at a difference."""
    try:
        manifest = read_object(path / "manifest.json")
        files = dict(manifest["files"].items())
        version = int(manifest["format"])
    except Exception as cause:
        raise BundleError(f"{path / 'manifest.json'}: cannot be read: {cause}") from cause
    if version > FORMAT:
        raise BundleError(f"{path}: written in format {version}; this code reads up to {FORMAT}")
    if absent := [name for name in (*REQUIRED, "index.json") if name not in files]:
        raise BundleError(f"{path / 'manifest.json'}: does not name {', '.join(absent)}")
    present = {f.name for f in path.iterdir()}
    if unnamed := present - set(files) - {"manifest.json"}:
        raise BundleError(f"{path}: holds {', '.join(sorted(unnamed))}, which its manifest does not name")
    for name, digest in files.items():
        if name not in present or (path / name).is_symlink() or not (path / name).is_file():
            raise BundleError(f"{path / name}: the file is missing")  # a link is none: where it leads can change
        if file_digest(path / name) != digest:
            raise BundleError(f"{path / name}: contents differ from the manifest")
    return manifest


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_index(path: Path, params: str = "") -> Any:
    """Return the FAISS index in a file whose digest was checked; raises BundleError if FAISS cannot read it.

    Its vectors stay in the file, which is mapped: processes that serve one file share one copy in memory. Who replaces
    the file by renaming, as a bundle is written, changes nothing for them; who writes into it does.
    """
    import faiss

    # They are of the whole process: who reads another file is not to meet limits that were meant for this one.
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(min(READ_LIMIT, 4 * path.stat().st_size if path.is_file() else 0))
    faiss.set_deserialization_loop_limit(LOOP_LIMIT)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        if params:
            faiss.ParameterSpace().set_index_parameters(index, params)
    except RuntimeError as cause:
        raise BundleError(f"{path}: FAISS cannot read it: {str(cause).splitlines()[0][-200:]}") from cause
    finally:
        faiss.set_deserialization_vector_byte_limit(before[0])
        faiss.set_deserialization_loop_limit(before[1])
    return index


def default_history(bundle: Bundle, user: int) -> Array:
    """Return the item rows that a known user took, the latest last; empty where the bundle keeps none."""
    if user < 0 or bundle.offsets is None or bundle.past is None:
        return np.empty(0, np.int64)
    return bundle.past[bundle.offsets[user] : bundle.offsets[user + 1]]


def encode(bundle: Bundle, users: Sequence[int], histories: Sequence[Array]) -> NDArray[np.float32]:
    """Return query vectors [n,D] of user rows [n] (-1 unknown) and their item rows, the latest last."""
    rows = np.asarray(users, dtype=np.int64)
    x = np.where(rows[:, None] >= 0, bundle.users[np.maximum(rows, 0)], np.float32(0))
    if bundle.kind == "two_tower" and bundle.history is not None:
        past = np.zeros((len(rows), bundle.history.shape[1]), np.float32)
        for n, items in enumerate(histories):
            latest = items[-bundle.length :] if bundle.length else items
            if len(latest):
                past[n] = bundle.history[latest].mean(axis=0)
        x = np.concatenate([x, past], axis=1) if bundle.layers else x + past
        for n, (weight, bias) in enumerate(bundle.layers):
            x = x @ weight.T + bias
            if n + 1 < len(bundle.layers):
                x = np.maximum(x, 0)
    if bundle.space == "cosine":
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(x, dtype=np.float32)


def known(
    bundle: Bundle, requests: Sequence[tuple[Any, Sequence[Any] | None]]
) -> tuple[list[int], list[Array], list[int]]:
    """Return of requests the user rows (-1 unknown), the item rows each took, and which the model can answer."""
    users = [bundle.user_row.get(user_id, -1) for user_id, _ in requests]
    histories = []
    for user, (_, given) in zip(users, requests, strict=True):
        items = [bundle.item_row[i] for i in given or () if i in bundle.item_row]
        histories.append(np.asarray(items, np.int64) if items else default_history(bundle, user))
    uses_history = bundle.kind == "two_tower"
    return users, histories, [n for n, u in enumerate(users) if u >= 0 or (uses_history and len(histories[n]))]


def recommend(
    bundle: Bundle,
    index: Any,
    requests: Sequence[tuple[Any, Sequence[Any] | None]],
    k: int,
    *,
    exclude_seen: bool = False,
) -> list[Answer]:
    """Answer (user_id, history item_ids or None) requests with the `k` best items, fewer in a smaller catalogue.

    Items of a history that the catalogue does not know are passed over. `exclude_seen` leaves out of each answer what
    its history holds, the given one or the one that the bundle keeps. Raises ValueError if there is neither.
    """
    if exclude_seen and bundle.offsets is None and any(u in bundle.user_row and h is None for u, h in requests):
        raise ValueError("exclude_seen: this bundle keeps no histories, so each request of a known user must give one")
    k = min(k, len(bundle.item_ids))
    users, histories, asked = known(bundle, requests)
    answers = [_popular(bundle, k, histories[n] if exclude_seen else ()) for n in range(len(requests))]
    if asked:
        queries = encode(bundle, [users[n] for n in asked], [histories[n] for n in asked])
        if exclude_seen:
            scores, rows = search_without(index, queries, k, [histories[n] for n in asked])
        else:
            scores, rows = search_index(index, queries, k)
        for n, s, r in zip(asked, scores, rows, strict=True):
            s, r = s[r >= 0], r[r >= 0]  # an approximate index may find fewer than k
            ids = [bundle.item_ids[i] for i in r]
            answers[n] = Answer(ids, s.astype(float).tolist(), "model" if users[n] >= 0 else "history")
    return answers


def _popular(bundle: Bundle, k: int, seen: Sequence[int] | Array) -> Answer:
    """Return the `k` most popular items that are not among the rows `seen`."""
    first = bundle.popular[: k + len(seen)]
    rows = first[~np.isin(first, seen)][:k] if len(seen) else first
    return Answer([bundle.item_ids[i] for i in rows], [0.0] * len(rows), "popular")


def deferred(bundle: Bundle, index: Any, requests: Sequence[tuple[Any, Sequence[Any] | None]]) -> list[bool]:
    """Return for which requests the gate of `bundle` asks the teacher; for none that the model cannot answer."""
    users, histories, asked = known(bundle, requests)
    answer = np.zeros(len(users), np.bool_)
    if asked and (gate := bundle.deferral) is not None:
        taken = [histories[n] for n in asked]
        queries = encode(bundle, [users[n] for n in asked], taken)
        answer[asked] = gate.predicted(partial(search_index, index), queries, *joined(taken)) > gate.threshold
    return answer.tolist()


if not __name__.startswith("recdistill."):  # MLflow runs a copy of this file under a name of its own
    import mlflow
    import pandas as pd

    class Recommender(mlflow.pyfunc.PythonModel):
        """Answers one row of `item_ids`, `scores` and `source` per input row, and `defer` where there is a gate."""

        def load_context(self, context: Any) -> None:
            self.bundle = open_bundle(Path(context.artifacts["bundle"]))
            self.index = read_index(self.bundle.path / "index.faiss", self.bundle.params)

        # pyrefly: ignore[bad-override] MLflow passes no context to a predict that does not ask for one
        def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
            """Answer `model_input`, a DataFrame; `params` may give `k` and `exclude_seen`.

            Raises MlflowException at a bad value.
            """
            k, exclude_seen = (params or {}).get("k", 10), bool((params or {}).get("exclude_seen", False))
            ids = (next(iter(self.bundle.user_row)), self.bundle.item_ids[0])
            try:
                requests = requests_of(model_input, k, ids, len(self.bundle.item_ids))
                answers = recommend(self.bundle, self.index, requests, int(k), exclude_seen=exclude_seen)
            except ValueError as cause:
                raise mlflow.MlflowException.invalid_parameter_value(str(cause)) from None
            frame = pd.DataFrame(answers, columns=pd.Index(Answer._fields))
            asks = self.bundle.deferral is not None
            return frame.assign(defer=deferred(self.bundle, self.index, requests)) if asks else frame

    mlflow.models.set_model(Recommender())
