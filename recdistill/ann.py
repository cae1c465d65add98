"""The FAISS indexes of one catalogue: build on one thread, tune by counted work, search.

Inner product is the metric throughout; cosine catalogues arrive normalised. Every file is a pure function of its
inputs: the build uses one thread, and a runtime parameter is chosen by how many distances it computes, not by a clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Le, MinLen
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from recdistill.ann_auto import CELLS_PAY, factories
from recdistill.ann_tune import Tuned, code_bytes, least, operating_points, reached, search_padded
from recdistill.errors import ArtifactError, ConfigError, DataError
from recdistill.serve import BundleError, read_index
from recdistill.spec import Spec, canonical
from recdistill.store import aside, sha256, write_text
from recdistill.types import Float, Int

INDEX, FLAT, FACTS = "index.faiss", "flat.faiss", "index.json"
MAX_TUNING_QUERIES = 1000
EXHAUSTIVE = "Flat"
SETTINGS = (
    r"^\w+=[0-9.]*[1-9][0-9.]*(,\w+=[0-9.]*[1-9][0-9.]*)*$"  # of 0 lists FAISS finds nothing, and does not say so
)


class IndexSpec(Spec):
    """How the catalogue is searched when the student serves."""

    factory: Annotated[str, MinLen(1)] = "auto"
    """A FAISS index_factory string, or `auto`: by catalogue size, and by whether the vectors lie in clusters."""
    k: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (10, 100)
    """Depths at which recall against exact search is measured."""
    min_recall: Annotated[float, Gt(0), Le(1)] = 0.95
    """The cheapest runtime parameters (k_factor_rf, nprobe, efSearch) that reach this recall at every k are chosen."""
    params: str | None = Field(default=None, pattern=SETTINGS, exclude_if=lambda params: params is None)
    """Runtime parameters of `factory`, such as `nprobe=8`, instead of chosen ones; `plan-serving` finds them."""
    tables: Literal["fp32", "fp16", "int8"] = Field(default="fp32", exclude_if=lambda kind: kind == "fp32")
    """What the rows of users, and of the items of histories, are kept as where the student serves."""
    width: PositiveInt | None = Field(default=None, exclude_if=lambda width: width is None)
    """Serve the first so many numbers of the vectors alone, at one of the widths that the student learned to serve at;
    left out, all of them."""
    histories: Literal["read", "whole"] = Field(default="read", exclude_if=lambda kept: kept == "read")
    """What the bundle keeps of each user's past: what the encoder reads, or all, for answers without what was seen."""


def check_factory(factory: str, dim: int, params: str | None = None) -> None:
    """Check a factory string before anything is trained; raises ConfigError naming it if FAISS cannot build it.

    `params`, if any, must be runtime parameters that such an index has.
    """
    if factory != "auto":
        index = _empty(factory, dim)
        if params:
            _fixed(index, factory, params)


def build_index(items: Float, queries: Float, spec: IndexSpec, out: Path, *, seed: int = 0) -> dict[str, Any]:
    """Write index.faiss, flat.faiss and index.json for `items` [I,D] into `out`, tuned on `queries` [Q,D].

    Returns the facts of index.json and `build_s`, in seconds, which stays out of the files. Raises ConfigError for a
    factory that FAISS cannot build, DataError for vectors that are empty or not finite.
    """

    items, queries = _finite(items, "item"), _finite(queries, "query")
    named = factories(*items.shape) if spec.factory == "auto" else (spec.factory,)
    if len(queries) > MAX_TUNING_QUERIES:
        rows = np.random.default_rng(seed).choice(len(queries), MAX_TUNING_QUERIES, replace=False)
        queries = queries[np.sort(rows)]
    out.mkdir(parents=True, exist_ok=True)
    with one_thread():
        flat = filled(EXHAUSTIVE, items, seed)
        enough = {k: least(flat, queries, k) for k in spec.k}
        for factory in named:
            index, (params, recalls, work), build_s = _built(factory, items, queries, enough, spec, seed)
            if min(recalls.values()) >= spec.min_recall and work <= CELLS_PAY * code_bytes(index) * len(items):
                break
        set_params(index, params)  # so that a plain read_index has them too
        for name, built in ((INDEX, index), (FLAT, flat)):
            save_index(built, out / name)
    norms = np.linalg.norm(items, axis=1)
    facts = {
        "factory": factory,
        "metric": "inner_product",
        "params": params,
        "recall": {str(k): round(r, 6) for k, r in recalls.items()},
        "min_recall": None if spec.params else spec.min_recall,
        "reached": bool(spec.params) or min(recalls.values()) >= spec.min_recall,
        "queries": len(queries),
        "num_items": len(items),
        "dim": int(items.shape[1]),
        "norm_spread": round(float(norms.std() / max(float(norms.mean()), 1e-12)), 6),
        "bytes": (out / INDEX).stat().st_size,
        "flat_bytes": (out / FLAT).stat().st_size,
        "files": {name: sha256(out / name) for name in (INDEX, FLAT)},
    }
    write_text(out / FACTS, canonical(facts) + "\n")
    return facts | {"build_s": build_s}


def _built(
    factory: str, items: Float, queries: NDArray[np.float32], enough: Mapping[int, Float], spec: IndexSpec, seed: int
) -> tuple[Any, Tuned, float]:
    """Return the index of `factory`, the setting it is to be searched with, and the seconds it took to build."""
    started = time.perf_counter()
    index = filled(factory, items, seed)
    seconds = time.perf_counter() - started
    with _refusal(factory, "and search it"):  # some kinds refuse an inner product only now
        if spec.params is None:
            return index, _chosen(operating_points(index, items, queries, enough), spec.min_recall), seconds
        params = _fixed(index, factory, spec.params)
        return (
            index,
            Tuned(params, {k: reached(index, items, queries, one, k) for k, one in enough.items()}, 0.0),
            seconds,
        )


def search(index_path: Path, queries: Float, k: int, params: str = "") -> tuple[Float, Int]:
    """Return the scores and item rows, [Q,k] each, that a saved index gives; missing answers are -inf and -1.

    `params` is what index.json records, such as `efSearch=64`. Raises ArtifactError if the file cannot be read.
    """

    try:
        index = read_index(index_path)
    except BundleError as cause:
        raise ArtifactError(str(cause), where=str(index_path), fix="build the index again") from cause
    if index.d != queries.shape[1]:
        what = f"the index holds {index.d}-dimensional vectors, the queries have {queries.shape[1]}"
        raise ArtifactError(what, where=str(index_path), fix="use the index and the query encoder of one bundle")
    set_params(index, params)
    return search_padded(index, _contiguous(queries), k)


def filled(factory: str, items: Float, seed: int) -> Any:
    """Return the index of `factory` that holds `items` [I,D]; raises ConfigError if FAISS cannot build it."""
    import faiss

    index = _empty(factory, items.shape[1])
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is not None:
        inverted.cp.seed = 1234 + seed
    with _refusal(factory, f"from {len(items)} items"):
        index.train(items)
        index.add(items)
    return index


def save_index(index: Any, file: Path) -> None:
    """Write `index` to `file`, whole or not at all."""
    import faiss

    with aside(file) as temporary:
        faiss.write_index(index, str(temporary))


def set_params(index: Any, params: str) -> None:
    """Search by the runtime parameters `params`, such as `nprobe=8`, from now on."""
    import faiss

    if params:
        faiss.ParameterSpace().set_index_parameters(index, params)


@contextmanager
def one_thread() -> Generator[None, None, None]:
    """Run the block with one FAISS thread, then restore the count: where torch loaded first, it shares that count."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _fixed(index: Any, factory: str, params: str) -> str:
    """Set `params` and return them; raises ConfigError if an index of `factory` has none of such names or values."""
    try:
        set_params(index, params)
    except RuntimeError as cause:
        reason = f"FAISS cannot set {params!r} of an index {factory!r}: {_first_line(cause)}"
        fix = "use `nprobe=8`, `efSearch=64`, ..., or leave it out"
        raise ConfigError(reason, where="index.params", fix=fix) from cause
    return params


def _chosen(points: list[Tuned], least: float) -> Tuned:
    """Return of `points`, by rising work, the first that reaches the recall `least` at every depth, or the last."""
    return next((point for point in points if min(point.recall.values()) >= least), points[-1])


def _empty(factory: str, dim: int) -> Any:
    import faiss

    with _refusal(factory, f"of {dim} dimensions"):
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)


@contextmanager
def _refusal(factory: str, what: str) -> Generator[None, None, None]:
    try:
        yield
    except RuntimeError as cause:
        reason = f"FAISS cannot make an inner-product index {factory!r} {what}: {_first_line(cause)}"
        raise ConfigError(reason, where="index.factory", fix="use `auto`, or `SQfp16`, `HNSW32`, ...") from cause


def _first_line(cause: Exception) -> str:
    """Return what FAISS says went wrong, without the C++ signature and source line it leads with."""
    return str(cause).split(".cpp:", 1)[-1].partition(": ")[2].strip() or str(cause)


def _finite(vectors: Float, side: str) -> NDArray[np.float32]:
    if vectors.ndim != 2 or not vectors.size:
        raise DataError(f"the {side} vectors have shape {vectors.shape}", where="index", fix="train the model first")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        what = f"{len(bad)} {side} vectors are not finite, first row {bad[0]}"
        raise DataError(what, where="index", fix="the model diverged: lower its learning rate")
    return _contiguous(vectors)


def _contiguous(vectors: Float) -> NDArray[np.float32]:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def read_facts(index_dir: Path) -> dict[str, Any]:
    """Return what index.json says of the index; raises ArtifactError if it is missing or not JSON."""
    try:
        return json.loads((index_dir / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise ArtifactError(f"{FACTS} cannot be read ({cause})", where=str(index_dir), fix="build it again") from cause
