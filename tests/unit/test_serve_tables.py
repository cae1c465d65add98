"""Tables of fewer bits: what is lost, that what serves and what is measured lose the same, and who may read them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.ann import IndexSpec, build_index
from recdistill.bundle import encode, model_code, open_bundle, write_bundle
from recdistill.data.sequences import Sequences
from recdistill.export import as_served
from recdistill.models.encoders import TwoTower
from recdistill.models.tables import PlainTable
from recdistill.serve_tables import pack, rounded
from recdistill.types import Interactions, Past

USERS, ITEMS, DIM = 40, 30, 8


def table(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)


def test_int8_is_what_fbgemm_keeps() -> None:
    import fbgemm_gpu  # noqa: F401

    given = table(50)
    packed = pack("user", given, "int8")
    theirs = torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized(torch.from_numpy(given)).numpy()
    assert np.abs(packed["user"].astype(int) - theirs[:, :DIM].astype(int)).max() <= 1  # a tie may fall either way
    np.testing.assert_allclose(packed["user.scale"], theirs[:, DIM:].copy().view(np.float32), rtol=1e-6)


@pytest.mark.parametrize(("kind", "bits"), [("fp32", 32), ("fp16", 16), ("int8", 8)])
def test_what_is_lost_is_within_a_step_of_the_row(kind: str, bits: int) -> None:
    given = table(50)
    given[3] = 0  # nobody was seen there: nothing may come of it
    given[4] = 0.7
    found = rounded(given, kind)
    width = given.max(1) - given.min(1)
    most = {"fp32": 0.0 * width, "fp16": np.abs(given).max(1) / 2048, "int8": width / 255 / 2 * 1.001}[kind]
    assert (np.abs(found - given).max(1) <= most + 1e-7 * (bits < 32)).all()
    assert not found[3].any()
    assert found.dtype == np.float32
    assert pack("user", given, kind)["user"].nbytes == given.size * bits // 8


def write(out: Path, model: TwoTower, kind: str) -> Path:
    items = table(ITEMS, 5)
    build_index(items, table(USERS), IndexSpec(factory="Flat", k=(2,)), out / "index")
    write_bundle(
        out / "bundle",
        query={"user": model.user.weight.numpy(), "history": model.item.weight.numpy()},
        query_meta={"kind": "two_tower", "space": "dot", "dim": DIM, "num_users": USERS, "num_items": ITEMS},
        user_ids=pl.Series(range(USERS)),
        item_ids=pl.Series([f"i{n}" for n in range(ITEMS)]),
        histories=None,
        popular=np.arange(ITEMS),
        index_dir=out / "index",
        facts={"fingerprint": "f", "data_end": None},
        tables=kind,
    )
    return out / "bundle"


@pytest.fixture
def model() -> TwoTower:
    made = TwoTower(
        PlainTable, num_users=USERS, num_items=ITEMS, dim=DIM, hidden=(), id_dropout=0.0, space="dot", temperature=1.0
    )
    weights = {"user.weight": torch.from_numpy(table(USERS, 1)), "item.weight": torch.from_numpy(table(ITEMS, 2))}
    made.load_state_dict(weights)
    return made.eval()


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_what_is_measured_is_what_serves(tmp_path: Path, model: TwoTower, kind: str) -> None:
    plain = {name: weight.clone() for name, weight in model.state_dict().items()}
    bundle = open_bundle(write(tmp_path, model, kind))
    people, histories = [4, 0, 39], [[1, 2, 3], [7, 7, 8], [29, 0, 4]]
    served = encode(bundle, people, [np.array(h) for h in histories])
    taken = [histories[people.index(user)] if user in people else [] for user in range(USERS)]
    ends = np.concatenate([[0], np.cumsum([len(items) for items in taken])])
    sequences = Sequences.of(Interactions(indptr=ends, items=np.concatenate([[], *taken]).astype(np.int64)))
    np.testing.assert_allclose(as_served(bundle.path, sequences, np.array(people)), served, atol=1e-6)
    kept = {name: torch.from_numpy(rounded(weight.numpy(), kind)) for name, weight in plain.items()}
    model.load_state_dict(kept)
    measured, _ = model.vectors(torch.tensor(people), Past(items=torch.tensor(histories)), torch.zeros(0).long())
    np.testing.assert_allclose(served, measured.detach().numpy(), atol=1e-6)
    exact = plain["user.weight"][people] + plain["item.weight"][torch.tensor(histories)].mean(1)
    lost = np.abs(served - exact.numpy()).max()
    assert (lost < 1e-6) if kind == "fp32" else (1e-5 < lost < 0.03)


def test_only_who_can_read_fewer_bits_opens_them_and_plain_bundles_stay_as_they_were(tmp_path: Path, model) -> None:
    formats = {}
    for kind in ("fp32", "fp16", "int8"):
        bundle = write(tmp_path / kind, model, kind)
        formats[kind] = json.loads((bundle / "manifest.json").read_text())["format"]
    assert formats == {"fp32": 1, "fp16": 2, "int8": 2}
    assert "tables" not in IndexSpec().model_dump()
    assert IndexSpec(tables="int8").model_dump()["tables"] == "int8"


def test_the_one_file_that_mlflow_runs_reads_them(tmp_path: Path, model: TwoTower) -> None:
    bundle = write(tmp_path, model, "int8")
    code = model_code(tmp_path).read_text().split("if not __name__.startswith")[0]
    (tmp_path / "alone.py").write_text(code)
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import numpy, alone; from pathlib import Path\n"
    script += f"b = alone.open_bundle(Path({str(bundle)!r}))\n"
    script += "print(alone.encode(b, [4, -1], [numpy.array([1, 2])] * 2).tolist(), 'recdistill' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = encode(open_bundle(bundle), [4, -1], [np.array([1, 2])] * 2).tolist()
    assert done.stdout.strip() == f"{ours} False"
