"""How much one request may ask for: by rows and by answers, before any of it is looked at."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recdistill.serve_requests import PLACES, requests_of

IDS = 1, "a"


@pytest.mark.parametrize(
    ("rows", "k", "items", "most"),
    [
        (1_000_000, 10, 50_000, 104_857),
        (1_000_000, 1, 50_000, 104_857),
        (2000, 1000, 50_000, 1048),
        (3, 10**9, 10**9, 1),
    ],
)
def test_more_rows_than_one_answer_holds_are_refused(rows: int, k: int, items: int, most: int) -> None:
    frame = pd.DataFrame({"user_id": np.full(rows, None)})  # whose rows would each be refused, if they were looked at
    with pytest.raises(ValueError, match=f"has {rows} rows; send at most {most} in one request"):
        requests_of(frame, k, IDS, items)


def test_what_is_allowed_is_allowed_to_the_last_row() -> None:
    frame = pd.DataFrame({"user_id": np.arange(PLACES // 5000)})
    assert len(requests_of(frame, 10**9, IDS, 5000)) == PLACES // 5000  # no answer is longer than the catalogue
    assert len(requests_of(pd.DataFrame({"user_id": [1]}), 10**9, IDS, 10**9)) == 1
    with pytest.raises(ValueError, match="send at most"):
        requests_of(pd.DataFrame({"user_id": np.arange(PLACES // 5000 + 1)}), 10**9, IDS, 5000)


def test_without_a_catalogue_nothing_bounds_it() -> None:
    assert len(requests_of(pd.DataFrame({"user_id": np.arange(200_000)}), 10, IDS)) == 200_000


@pytest.mark.parametrize("value", ["x" * 10_000, ["x"] * 10_000])
def test_what_is_wrong_is_named_in_short(value: object) -> None:
    with pytest.raises(ValueError, match="row 0: user_id") as caught:
        requests_of(pd.DataFrame({"user_id": [value]}, dtype=object), 1, IDS)
    assert len(str(caught.value)) < 200


def test_the_null_among_numbers_is_named_not_the_number_beside_it() -> None:
    with pytest.raises(ValueError, match="row 1: user_id is null"):
        requests_of(pd.DataFrame({"user_id": [1000, None]}), 1, IDS)  # pandas has made 1000 a float
