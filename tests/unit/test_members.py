"""Models that speak as one, against float64 by hand."""

from __future__ import annotations

import numpy as np
import torch

from recdistill.members import Voice, averaged, lined, lined_vectors, together
from recdistill.scoring import encoder_scorer
from recdistill.types import Interactions

USERS, ITEMS, WIDTH = 6, 9, 4
EVERYONE = np.arange(USERS)
SEEN = Interactions(indptr=np.array([0, 2, 2, 3, 3, 3, 5]), items=np.array([1, 4, 0, 2, 8]))
ONE_FOR_ALL = np.zeros(USERS, np.int64)


def vectors(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(USERS, WIDTH)).astype(np.float32), rng.normal(size=(ITEMS, WIDTH)).astype(np.float32)


def voice(seed: int, temperature: float = 1.0, seen: Interactions | None = SEEN) -> Voice:
    return Voice(score=encoder_scorer(*vectors(seed)), temperature=temperature, seen=seen)


def by_hand(seed: int, temperature: float = 1.0, asked: np.ndarray | None = None) -> np.ndarray:
    """Return the chances [U,I] that a voice gives, over all it may recommend, or of those over what is `asked`."""
    users, items = (side.astype(np.float64) for side in vectors(seed))
    weight = np.exp(users @ items.T / temperature)
    weight[SEEN.users(), SEEN.items] = 0
    if asked is not None:
        inside = np.zeros_like(weight)
        for user, row in enumerate(asked):
            inside[user, row[row >= 0]] = 1
        weight *= inside
    return weight / weight.sum(1, keepdims=True)


def test_a_mixture_averages_chances_over_what_is_unseen() -> None:
    score = together([voice(1, 0.5), voice(2, 2.0)], np.array([[0.25, 0.75]]), ONE_FOR_ALL, whole=True)
    wanted = 0.25 * by_hand(1, 0.5) + 0.75 * by_hand(2, 2.0)
    found = score(EVERYONE, None)
    np.testing.assert_allclose(found.exp().numpy(), wanted, atol=1e-6)
    assert torch.isneginf(found[SEEN.users(), SEEN.items]).all()
    some = np.array([4, 0])
    np.testing.assert_allclose(score(some, None).exp().numpy(), wanted[some], atol=1e-6)


def test_of_equal_members_it_is_the_mean_of_chances_whatever_is_added_to_a_members_scores() -> None:
    """logmeanexp of log-softmaxes (Stanton et al., NeurIPS 2021), which the mean of raw scores is not."""
    even = np.full((1, 3), 1 / 3)
    plain = [encoder_scorer(*vectors(seed)) for seed in (1, 2, 3)]
    louder = [*plain[:2], lined(plain[2], 1.0, 50.0)]
    found, same = (
        together([Voice(score=one, temperature=1.0, seen=None) for one in voices], even, ONE_FOR_ALL, whole=True)(
            EVERYONE, None
        )
        for voices in (plain, louder)
    )
    raw = torch.stack([one(EVERYONE, None) for one in plain]).double()
    mean = raw.softmax(2).mean(0)
    torch.testing.assert_close(found.double().exp(), mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(same, found, atol=1e-4, rtol=0)
    assert (raw.mean(0).softmax(1) - mean).abs().max() > 0.05


def test_items_that_are_asked_for_keep_the_chance_they_have_among_all() -> None:
    score = together([voice(1), voice(2)], np.array([[0.5, 0.5]]), ONE_FOR_ALL, whole=True)
    asked = torch.tensor([[3, 7], [5, -1], [8, 2], [0, 1], [2, 6], [6, 3]])
    picked = score(EVERYONE, None).gather(1, asked.clamp(min=0))
    known = asked >= 0
    assert torch.equal(score(EVERYONE, asked)[known], picked[known])


def test_candidates_are_all_that_there_is() -> None:
    asked = np.array([[3, 7, 1], [5, -1, 2], [8, 2, 0], [0, 1, 4], [2, 6, 7], [6, 3, -1]])
    score = together([voice(1), voice(2)], np.array([[0.5, 0.5]]), ONE_FOR_ALL, whole=False)
    found = score(EVERYONE, torch.from_numpy(asked)).exp().numpy()
    wanted = (by_hand(1, asked=asked) + by_hand(2, asked=asked)) / 2
    np.testing.assert_allclose(found, np.where(asked >= 0, wanted[EVERYONE[:, None], asked], 0), atol=1e-6)


def test_a_segment_hears_its_own_member_alone() -> None:
    """A member without a share in a segment is not even asked for its users."""
    heard: list[int] = []

    def listening(users: np.ndarray, items: torch.Tensor | None) -> torch.Tensor:
        heard.extend(users.tolist())
        return encoder_scorer(*vectors(1))(users, items)

    segment = np.array([0, 1, 0, 1, 1, 0])
    voices = [Voice(score=listening, temperature=1.0, seen=SEEN), voice(2)]
    score = together(voices, np.array([[1.0, 0.0], [0.0, 1.0]]), segment, whole=True)
    found = score(EVERYONE, None).exp().numpy()
    np.testing.assert_allclose(found, np.where(segment[:, None] == 0, by_hand(1), by_hand(2)), atol=1e-6)
    assert heard == [0, 2, 5]


def test_an_item_is_left_to_those_who_did_not_learn_it() -> None:
    """Two fold teachers: item 1 of user 0 is known to the first alone, everything else to none of them."""
    known = Interactions(indptr=np.array([0, 1, 1, 1, 1, 1, 1]), items=np.array([1]))
    none = Interactions(indptr=np.zeros(USERS + 1, np.int64), items=np.zeros(0, np.int64))
    share = np.array([[1.0]])
    first, second = (
        together([voice(seed, seen=seen)], share, ONE_FOR_ALL, whole=True) for seed, seen in ((1, known), (2, none))
    )
    found = averaged([first, second])(EVERYONE, None).exp().numpy()
    one, two = first(EVERYONE, None).exp().numpy(), second(EVERYONE, None).exp().numpy()
    wanted = (one + two) / 2
    wanted[0, 1] = two[0, 1]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    silent = together([voice(1)], share, ONE_FOR_ALL, whole=True)
    assert torch.equal(averaged([silent, silent])(EVERYONE, None).isneginf(), silent(EVERYONE, None).isneginf())


def test_a_line_of_scores_is_a_line_of_vectors() -> None:
    users, items = vectors(3)
    for scale, shift in ((2.0, 0.0), (0.5, -7.25), (1.5, 3.0)):
        wanted = scale * (users.astype(np.float64) @ items.T) + shift
        np.testing.assert_allclose(lined(encoder_scorer(users, items), scale, shift)(EVERYONE, None), wanted, atol=1e-5)
        left, right = lined_vectors(users, items, scale, shift)
        np.testing.assert_allclose(left @ right.T, wanted, atol=1e-5)
        assert left.dtype == right.dtype == np.float32
