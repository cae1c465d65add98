"""How far a teacher is to be trusted: planted groups it is right about and groups it is not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.distill.blend import blend, trusted
from recdistill.trust import trust
from recdistill.types import Candidates, Dataset, Interactions

USERS, ITEMS = 80, 30


def csr(lists):
    items = np.array([i for one in lists for i in one], np.int64)
    return Interactions(indptr=np.cumsum([0, *map(len, lists)]).astype(np.int64), items=items)


@pytest.fixture
def dataset() -> Dataset:
    """The first half of the users did little, the second half much; one item of each is held out."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(ITEMS) for _ in range(USERS)]
    train = [order[: 3 if user < USERS // 2 else 9] for user, order in enumerate(orders)]
    valid = [order[10:11] for order in orders]
    parts = {"train": csr(train), "valid": csr(valid), "test": csr([[]] * USERS)}
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **parts)


def knows(dataset, users, strength):
    """Return a scorer that gives each of `users` its held-out item `strength` more than all else."""
    table = torch.zeros(USERS, ITEMS)
    for user in users:
        table[user, int(dataset.valid.items[dataset.valid.indptr[user]])] = strength
    return lambda rows, _: table[torch.from_numpy(rows)]


def test_who_is_explained_better_is_trusted_more(dataset):
    everybody, active = range(USERS), range(USERS // 2, USERS)
    found, facts = trust(dataset, knows(dataset, active, 3.0), knows(dataset, [], 0.0), 2)
    assert found.shape == (USERS,)
    assert set(found[: USERS // 2]) == {0.0}
    assert set(found[USERS // 2 :]) == {1.0}
    assert [(row["least"], row["most"], row["users"], row["trust"]) for row in facts] == [
        (3, 3, USERS // 2, 0.0),
        (9, 9, USERS // 2, 1.0),
    ]
    both, _ = trust(dataset, knows(dataset, everybody, 3.0), knows(dataset, active, 2.0), 2)
    assert both[0] == 1.0
    assert 0.0 <= both[-1] < 0.9


def test_between_nobody_and_wholly_trust_is_the_share_of_the_largest_gain(dataset):
    """Of n candidates a scratch student that knows nothing lacks log n nats, and a teacher that knows all none."""
    found, facts = trust(dataset, knows(dataset, range(USERS), 3.0), knows(dataset, [], 0.0), 2)
    nats = [np.log(ITEMS - 3), np.log(ITEMS - 9)]
    assert [row["nats"] for row in facts] == pytest.approx(nats, abs=1e-5)
    assert found[[0, -1]].tolist() == pytest.approx([1.0, nats[1] / nats[0]], abs=1e-5)


def test_a_teacher_that_knows_no_more_is_trusted_with_nobody(dataset):
    found, facts = trust(dataset, knows(dataset, [], 0.0), knows(dataset, range(USERS), 3.0), 2)
    assert not found.any()
    assert all(row["nats"] < 0 for row in facts)


def test_one_group_is_trusted_wholly_where_the_teacher_knows_more(dataset):
    found, facts = trust(dataset, knows(dataset, range(USERS), 3.0), knows(dataset, [], 0.0), 1)
    assert (found == 1).all()
    assert len(facts) == 1


def test_a_row_is_taught_as_much_of_the_teacher_as_it_is_trusted():
    teacher = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    taken = torch.zeros(3, 5, dtype=torch.bool)
    taken[:, 2] = True
    given = Candidates(
        items=torch.arange(5).expand(3, 5),
        teacher=teacher,
        ranked=5,
        taken=taken,
        trust=torch.tensor([0.0, 0.5, 1.0]),
    )
    found = torch.softmax(trusted(given).teacher, 1)
    torch.testing.assert_close(found[0], taken[0].double())
    torch.testing.assert_close(found[2], torch.softmax(teacher[2], 0))
    torch.testing.assert_close(found[1], torch.softmax(blend(given, teacher=0.5).teacher, 1)[1])
    with pytest.raises(ValueError, match="to be trusted"):
        trusted(Candidates(items=given.items, teacher=teacher, ranked=5, taken=taken))
