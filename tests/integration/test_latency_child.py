"""What the measuring process asks: shared files, runtime parameters of each target, answers without what was taken."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from recdistill.latency_child import open_targets, searcher, users_of
from recdistill.serve import BundleError, default_history, encode
from recdistill.spec import canonical
from recdistill.store import sha256


@pytest.fixture(scope="module")
def bundle(make_bundle, tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("child"))


@pytest.fixture(scope="module")
def cells(bundle: Path) -> Path:
    """Return an inverted file over the bundle's items, in 16 lists."""
    flat = faiss.read_index(str(bundle.parent / "index" / "flat.faiss"))
    index = faiss.index_factory(flat.d, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    vectors = flat.reconstruct_n(0, flat.ntotal)
    index.train(vectors)
    index.add(vectors)
    folder = bundle.parent / "cells"
    folder.mkdir()
    faiss.write_index(index, str(folder / "ivf.faiss"))
    (folder / "index.json").write_text(canonical({"params": "", "files": {"ivf.faiss": sha256(folder / "ivf.faiss")}}))
    return folder / "ivf.faiss"


def target(bundle: Path, index: Path | None = None, params: str | None = None, *, exclude: bool = False):
    return {"bundle": str(bundle), "index": index and str(index), "params": params, "exclude": exclude}


def work(opened, *, k: int = 10) -> int:
    """Return how many distances ten queries of a target compute."""
    faiss.cvar.indexIVF_stats.reset()
    search = searcher(opened)
    for user_id in users_of(opened.bundle, 10):
        user = opened.bundle.user_row[user_id]
        search(encode(opened.bundle, [user], [default_history(opened.bundle, user)]), k, np.empty(0, np.int64))
    return faiss.cvar.indexIVF_stats.ndis


def test_a_file_is_opened_once_however_many_targets_share_it(bundle, cells):
    opened = open_targets([target(bundle, cells, f"nprobe={n}") for n in (1, 4)] + [target(bundle)])
    assert opened[0].index is opened[1].index
    assert opened[0].bundle is opened[2].bundle
    assert opened[2].index is not opened[0].index


def test_each_target_searches_by_its_own_parameters_whoever_was_asked_before(bundle, cells):
    one, every, own = open_targets([target(bundle, cells, p) for p in ("nprobe=1", "nprobe=16", None)])
    items = len(one.bundle.item_ids)
    found = [work(t) for t in (one, every, own, every, one)]
    assert found[1] == found[3] == 10 * items
    assert found[0] == found[4] < 10 * items / 4
    assert found[2] == found[0]  # the file was written with one probe, and nothing that others set reaches it


def test_parameters_that_the_index_does_not_have_are_refused(bundle, cells):
    with pytest.raises(BundleError, match=r"ivf\.faiss: 'efSearch=8' cannot be set"):
        open_targets([target(bundle, cells, "efSearch=8")])


def test_a_file_that_no_index_json_names_is_refused(bundle, cells):
    (stray := cells.with_name("stray.faiss")).write_bytes(cells.read_bytes())
    with pytest.raises(BundleError, match=r"stray\.faiss: no index\.json beside it that names it"):
        open_targets([target(bundle, stray)])
