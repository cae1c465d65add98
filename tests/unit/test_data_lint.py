"""Each finding of the split linter on a split planted to have it, and on one that has not."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.data.lint import Rows, lint, order_correlation, refused


def rows(*triples: tuple[int, int, int]) -> Rows:
    user, item, time = (np.array(c, np.int64) for c in zip(*triples, strict=True))
    return Rows(user, item, time)


def finding(findings, name, part=None):
    (one,) = [f for f in findings if f["name"] == name and part in (None, f["part"])]
    return one


def check(train: Rows, valid: Rows, test: Rows, items: int = 100, kind: str = "user_random"):
    return lint(train, valid, test, item_order=np.arange(items), kind=kind)


def test_cold_users_are_counted_by_head_and_cold_items_by_row():
    train = rows((0, 0, 0), (1, 1, 0))
    valid = rows((0, 1, 1))
    test = rows((0, 1, 2), (2, 1, 2), (3, 5, 2), (3, 0, 2), (3, 6, 2))
    found = check(train, valid, test)
    assert finding(found, "cold_users", "test")["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert finding(found, "cold_items", "test")["value"] == pytest.approx(2 / 5)
    assert finding(found, "cold_items", "test")["severity"] == "info"
    cold = finding(found, "cold_users", "test")
    assert cold["severity"] == "refuse"
    assert "66.7% of the test users (2 of 3) have no row in train" in cold["text"]
    assert "user_chronological" in cold["text"]
    assert "split.allow: [cold_users]" in cold["text"]
    assert finding(found, "cold_users", "valid")["value"] == 0


def positional(sort: bool, times: bool) -> list[Rows]:
    """Give 50 users 10 random items each, cut 8/1/1 in order of id or of chance."""
    rng = np.random.default_rng(0)
    cut: list[list[tuple[int, int, int]]] = [[], [], []]
    for user in range(50):
        items = rng.choice(1000, 10, replace=False)
        items = np.sort(items) if sort else items
        for place, item in enumerate(items):
            cut[0 if place < 8 else place - 7].append((user, int(item), place if times else 0))
    return [rows(*c) for c in cut]


@pytest.mark.parametrize("times", [True, False])
def test_a_positional_split_of_a_log_sorted_by_id_is_refused(times):
    found = finding(check(*positional(True, times), items=1000), "id_order")
    assert found["value"] == pytest.approx(1.0)
    assert found["severity"] == "refuse"
    chance = finding(check(*positional(False, times), items=1000), "id_order")
    assert abs(chance["value"]) < 0.15
    assert chance["severity"] == "info"


def test_the_order_is_that_of_the_callers_ids_not_of_rows():
    train, valid, test = positional(True, False)
    backwards = lint(train, valid, test, item_order=np.arange(1000)[::-1].copy(), kind="given")
    assert finding(backwards, "id_order")["value"] == pytest.approx(-1.0)


def test_order_correlation_is_spearmans_where_nothing_ties():
    rng = np.random.default_rng(1)
    expected = []
    users, parts, times, orders = [], [], [], []
    for user in range(5):
        n = 6 + user
        time, order = rng.permutation(n), rng.permutation(100)[:n]
        rank = np.argsort(np.argsort(order))
        expected.append(1 - 6 * np.sum((time - rank) ** 2) / (n * (n**2 - 1)))
        users += [user] * n
        times += time.tolist()
        parts += (time >= n - 2).astype(int).tolist()
        orders += order.tolist()
    found = order_correlation(*(np.array(a, np.int64) for a in (users, parts, times, orders)))
    assert found == pytest.approx(np.mean(expected))


def test_a_pair_in_two_parts_is_refused():
    train, valid, test = rows((0, 1, 0), (0, 2, 1)), rows((0, 3, 2), (0, 1, 2)), rows((0, 3, 3), (0, 2, 3), (0, 4, 3))
    found = check(train, valid, test)
    assert (finding(found, "overlap", "valid")["value"], finding(found, "overlap", "test")["value"]) == (1, 2)
    assert finding(found, "overlap", "test")["severity"] == "refuse"
    clean = check(train, rows((0, 5, 2)), rows((0, 6, 3)))
    assert finding(clean, "overlap", "test")["severity"] == "info"


def test_train_rows_later_than_test_are_measured_and_refused_only_where_the_split_promises_none():
    train, valid, test = rows((0, 1, 0), (1, 1, 5), (1, 2, 9), (1, 3, 2)), rows((0, 2, 3)), rows((0, 3, 4), (1, 4, 10))
    assert finding(check(train, valid, test), "time_leakage")["value"] == 0.5
    assert finding(check(train, valid, test), "time_leakage")["severity"] == "info"
    assert finding(check(train, valid, test, kind="global_time"), "time_leakage")["severity"] == "refuse"


def test_what_is_allowed_is_not_refused():
    found = check(rows((0, 0, 0), (1, 1, 0)), rows((2, 1, 1)), rows((3, 0, 2), (0, 0, 2)))
    assert {f["name"] for f in refused(found, [])} == {"cold_users", "overlap"}
    assert {f["name"] for f in refused(found, ["cold_users"])} == {"overlap"}


def cut(lists: list[list[int]]) -> list[Rows]:
    """Cut lists of ten ids by position, 8/1/1, as KDs cuts CiteULike's."""
    parts: list[list[tuple[int, int, int]]] = [[], [], []]
    for user, items in enumerate(lists):
        for place, item in enumerate(items):
            parts[max(place - 7, 0)].append((user, item, 0))
    return [rows(*part) for part in parts]


def sorted_lists(fresh: int) -> list[list[int]]:
    """Give 320 users ten ids in order. The last id of `fresh` + 20 of them is nobody else's.

    Of those before the last that holds for 95. All others are among the train ids of 20 users of still larger ids.
    """
    rng = np.random.default_rng(0)
    lists = []
    for user in range(300):
        valid = 500 + user if user % 4 == 0 else 800 + user % 4
        test = 1000 + user if user < fresh else 900 + user % 4
        lists.append([*np.sort(rng.choice(400, 8, replace=False)).tolist(), valid, test])
    return lists + [[*range(800, 804), *range(900, 904), 2000 + user, 3000 + user] for user in range(20)]


@pytest.mark.parametrize(("fresh", "refuse"), [(140, False), (141, True), (220, True)])
def test_what_a_cut_by_position_leaves_untrained_in_lists_sorted_by_id_is_found_and_refused(fresh, refuse):
    found = check(*cut(sorted_lists(fresh)), items=4000, kind="given")
    cold = finding(found, "cold_items", "test")
    assert cold["value"] == pytest.approx((fresh + 20) / 320, abs=1e-6)
    assert cold["severity"] == ("refuse" if refuse else "info")
    assert f"{(fresh + 20) / 320:.1%} of the test rows are of items with no row in train" in cold["text"]
    assert finding(found, "cold_items", "valid")["value"] == pytest.approx(95 / 320, abs=1e-6)
    order = finding(found, "id_order")
    assert order["value"] == pytest.approx(1.0)
    assert order["severity"] == "refuse"
    assert {f["name"] for f in refused(found, [])} == ({"id_order", "cold_items"} if refuse else {"id_order"})


def test_the_same_lists_cut_by_chance_are_not_refused():
    rng = np.random.default_rng(1)
    found = check(*cut([rng.permutation(items).tolist() for items in sorted_lists(220)]), items=4000)
    assert refused(found, []) == []
    assert finding(found, "cold_items", "test")["value"] < 0.2  # few of the ids that only one has come to stand there


def tokens(wrong: int) -> list[Rows]:
    """Give 300 users' lists, the first `wrong` with their length as one more item; the two largest ids are held out.

    The largest id of 39 users and the second largest of 6 is nobody else's; all others are also in train, of those 6.
    """
    rng = np.random.default_rng(2)
    parts: list[list[tuple[int, int, int]]] = [[], [], []]
    for user in range(300):
        body = rng.choice(np.arange(100, 500), 3 + user % 11, replace=False).tolist()
        held = [600 + user % 10, 5000 + user if user % 9 == 0 else 700 + user % 10]
        if user >= 294:
            body, held = [*range(600, 610), *range(700, 710)], [8000 + user, 9000 + user]
        length = [len(body) + 2] if user < wrong else []
        parts[0] += [(user, item, 0) for item in length + body]
        parts[1].append((user, held[0], 0))
        parts[2].append((user, held[1], 0))
    return [rows(*part) for part in parts]


@pytest.mark.parametrize(("wrong", "refuse"), [(0, False), (270, False), (271, True), (300, True)])
def test_lengths_kept_as_items_and_the_largest_ids_held_out_are_found(wrong, refuse):
    numbers = np.arange(10_000)
    found = lint(*tokens(wrong), item_order=numbers, item_numbers=numbers, kind="given")
    count = finding(found, "count_token")
    assert count["value"] == pytest.approx(wrong / 300, abs=1e-6)
    assert count["severity"] == ("refuse" if refuse else "info")
    assert f"{wrong / 300:.1%} of the users have an item whose id is the number of their other items" in count["text"]
    assert finding(found, "id_order")["value"] == pytest.approx(1.0)
    assert {f["name"] for f in refused(found, [])} == ({"id_order", "count_token"} if refuse else {"id_order"})
    assert finding(found, "cold_items", "test")["value"] == pytest.approx(39 / 300)
    assert finding(found, "cold_items", "valid")["value"] == pytest.approx(6 / 300)
