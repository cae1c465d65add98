"""A bundle of the first numbers of the vectors: it answers, and is evaluated, as these do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import untrained
from untrained import DIM, MODELS, USERS, fitted, short

from recdistill.ann import IndexSpec
from recdistill.bundle import encode, open_bundle
from recdistill.data.sequences import Sequences
from recdistill.evaluate import merge
from recdistill.export import index_student
from recdistill.fit import load
from recdistill.measure import _index_lists
from recdistill.models.build import history_length
from recdistill.scoring import vectors
from recdistill.serve import default_history, read_index, recommend
from recdistill.types import Dataset


@pytest.fixture(scope="module")
def dataset():
    return untrained.dataset()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tables", ["fp32", "int8"])
def test_a_bundle_of_fewer_numbers_answers_as_the_first_numbers_do(
    dataset: Dataset, tmp_path: Path, name: str, tables: str
) -> None:
    student, known = fitted(dataset, MODELS[name], tmp_path / "fit"), merge(dataset.train, dataset.valid)
    model, length = load(student.spec, dataset, student.artifact.path), history_length(student.spec)
    spec = IndexSpec.model_validate({"factory": "Flat", "width": 4, "tables": tables, "histories": "whole"})
    facts = index_student(dataset, student, spec, tmp_path / "index", "f")
    assert facts["dim"] == 4
    bundle = open_bundle(tmp_path / "index" / "bundle")
    users, items = short(vectors(model, dataset, Sequences.of(known), length), 4)
    asked = encode(bundle, range(USERS), [default_history(bundle, user) for user in range(USERS)])
    scale = np.linalg.norm(users) / np.linalg.norm(asked)  # the temperature of dot space is in no bundle
    np.testing.assert_allclose(asked * scale, users, atol=1e-4 if tables == "fp32" else 0.15)
    if tables == "int8":
        return
    index = read_index(bundle.path / "index.faiss", bundle.params)
    answers = recommend(bundle, index, [(1000 + user, None) for user in range(USERS)], 5, exclude_seen=True)
    scores = users @ items.T
    for user, answer in enumerate(answers):
        scores[user, known.items[known.indptr[user] : known.indptr[user + 1]]] = -np.inf
        best = np.sort(scores[user])[::-1][:5]
        np.testing.assert_allclose(scores[user, [int(item[1:]) for item in answer.item_ids]], best, rtol=1e-3)
    served = SimpleNamespace(index=SimpleNamespace(path=tmp_path / "index"))
    lists = _index_lists(dataset, served, np.arange(USERS), 5, Sequences.of(known), known)  # type: ignore[arg-type]
    assert [[f"i{item}" for item in row] for row in lists] == [answer.item_ids for answer in answers]


def test_hidden_layers_read_whole_rows_and_others_keep_no_more_than_they_serve(
    dataset: Dataset, tmp_path: Path
) -> None:
    sizes = {}
    for name in ("two_tower", "two_tower hidden"):
        student = fitted(dataset, MODELS[name], tmp_path / name)
        index_student(dataset, student, IndexSpec(factory="Flat", width=4), tmp_path / name / "index", "f")
        bundle = open_bundle(tmp_path / name / "index" / "bundle")
        assert bundle.history is not None
        sizes[name] = bundle.users.shape[1], bundle.history.shape[1], [len(bias) for _, bias in bundle.layers]
        assert all(len(default_history(bundle, user)) <= 5 for user in range(USERS))
    assert sizes == {"two_tower": (4, 4, []), "two_tower hidden": (DIM, DIM, [10, 4])}
