"""A window reads the files of its days alone, and what comes to other days changes nothing of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec, digest
from recdistill.data.window import LONGEST, Window, day_files, window_until
from recdistill.errors import DataError

NOW = datetime(2026, 12, 1, tzinfo=UTC)
FIRST = date(2026, 11, 1)
NAMES = {"user": "user", "item": "item", "time": "time"}


def rows(day: date, *hours: int, user: int = 1) -> pl.DataFrame:
    start = datetime(day.year, day.month, day.day)
    times = [start + timedelta(hours=hour) for hour in hours]
    items = [f"{time:%d-%H}" for time in times]
    return pl.DataFrame({"user": [user] * len(times), "item": items, "time": times})


def put(home: Path, frame: pl.DataFrame, day: date, name: str = "part", below: str = "") -> None:
    place = home / "log" / below / f"date={day}"
    place.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(place / f"{name}.parquet")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Six days of two rows each."""
    for n in range(6):
        put(tmp_path, rows(FIRST + timedelta(days=n), 0, 23), FIRST + timedelta(days=n))
    return tmp_path


def spec(home: Path, last: int = 5, days: int = 3, **more) -> LogSpec:
    return LogSpec(**NAMES | {"path": str(home / "log"), "window": window_until(date(2026, 11, last), days)} | more)


def read(given: LogSpec, home: Path, name: str = "out") -> tuple[dict, list[str]]:
    facts = ingest(given, None, home / name, now=NOW)
    return facts, pl.read_parquet(home / name / "items.parquet")["item_id"].to_list()


def test_a_window_is_whole_days_and_its_bounds_are_theirs() -> None:
    window = window_until(date(2026, 3, 1), 2)
    assert (window.first, window.last) == (date(2026, 2, 28), date(2026, 3, 1))
    start, stop = window.bounds
    assert datetime.fromtimestamp(start / 1e6, UTC) == datetime(2026, 2, 28, tzinfo=UTC)
    assert datetime.fromtimestamp(stop / 1e6, UTC) == datetime(2026, 3, 2, tzinfo=UTC)
    assert window.days == [date(2026, 2, 28), date(2026, 3, 1)]
    with pytest.raises(ValidationError, match="before it begins"):
        Window(first=date(2026, 3, 2), last=date(2026, 3, 1))


def test_a_window_is_no_longer_than_a_century() -> None:
    century = Window(first=date(1926, 11, 22), last=date(1926, 11, 22) + timedelta(days=LONGEST - 1))
    assert len(century.days) == LONGEST
    with pytest.raises(ValueError, match="is longer than 36525 days"):
        Window(first=date(1, 1, 1), last=date(9999, 12, 31))


def test_the_files_of_other_days_are_not_even_opened(home) -> None:
    for day in (1, 2, 6):
        (home / "log" / f"date=2026-11-0{day}" / "part.parquet").write_bytes(b"no parquet at all")
    facts, items = read(spec(home), home)
    assert items == ["03-00", "03-23", "04-00", "04-23", "05-00", "05-23"]
    assert facts["days"] == {"2026-11-03": 2, "2026-11-04": 2, "2026-11-05": 2}
    assert (facts["rows"], facts["outside"]) == (6, 0)


def test_rows_of_other_days_in_the_same_files_are_left_out_and_counted(home) -> None:
    put(home, rows(date(2026, 11, 6), 0), date(2026, 11, 5), "early")
    put(home, rows(date(2026, 11, 2), 23), date(2026, 11, 3), "late")
    facts, items = read(spec(home), home)
    assert items == ["03-00", "03-23", "04-00", "04-23", "05-00", "05-23"]
    assert (sum(facts["days"].values()), facts["outside"]) == (6, 2)


def test_late_rows_change_the_digest_of_the_windows_they_fall_into_alone(home) -> None:
    before = digest(spec(home)), digest(spec(home, last=6))
    put(home, rows(date(2026, 11, 6), 12), date(2026, 11, 6), "late")
    assert digest(spec(home)) == before[0]
    assert digest(spec(home, last=6)) != before[1]
    put(home, rows(date(2026, 11, 4), 12), date(2026, 11, 4), "late")
    assert digest(spec(home)) != before[0]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_log_in_one_file_may_grow_behind_a_window(tmp_path, suffix) -> None:
    days = pl.concat([rows(FIRST + timedelta(days=n), 0, 23) for n in range(5)])
    more = pl.concat([days, rows(date(2026, 11, 6), 1, 2)])
    path = tmp_path / f"log.{suffix}"
    given = spec(tmp_path, path=str(path))
    found = []
    for frame in (days, more, pl.concat([more, rows(date(2026, 11, 4), 5)])):
        getattr(frame, f"write_{suffix}")(path)
        found.append((digest(given), read(given, tmp_path, f"out-{len(found)}")[1]))
    assert found[0] == found[1]
    assert found[2][0] != found[0][0]
    assert found[2][1] == ["03-00", "03-23", "04-00", "04-05", "04-23", "05-00", "05-23"]


def test_a_missing_day_and_an_empty_one_are_named_with_the_days_that_are_there(home) -> None:
    with pytest.raises(
        DataError, match="nothing of 2026-11-09 is there; the log has 6 days since 2026-11-01"
    ) as caught:
        digest(spec(home, last=9))
    assert "2026-11-05, 2026-11-06" in str(caught.value)
    put(home, rows(date(2026, 11, 7)), date(2026, 11, 7))
    with pytest.raises(DataError, match="nothing of 2026-11-07 is there; the log has 2026-11-05, 2026-11-06"):
        read(spec(home, last=7), home)
    frame = pl.concat([rows(FIRST, 1), rows(date(2026, 11, 2), 1)])
    frame.write_parquet(home / "one.parquet")
    with pytest.raises(DataError, match="nothing of 2026-11-03 is there; the log has 2026-11-01, 2026-11-02"):
        read(spec(home, last=3, path=str(home / "one.parquet")), home)


def test_a_hole_in_the_window_is_counted_and_no_error(home) -> None:
    (home / "log" / "date=2026-11-04" / "part.parquet").unlink()
    assert read(spec(home), home)[0]["days"] == {"2026-11-03": 2, "2026-11-04": 0, "2026-11-05": 2}


def test_the_day_itself_may_be_the_time(home) -> None:
    facts, items = read(spec(home, time="date"), home)
    assert len(items) == 6
    assert facts["first"] == "2026-11-03T00:00:00+00:00"


def test_days_may_lie_below_other_directories_and_a_stray_file_makes_a_log_one_of_times(home) -> None:
    put(home, rows(date(2026, 11, 5), 7), date(2026, 11, 5), below="region=eu")
    window = window_until(date(2026, 11, 5), 1)
    files = day_files(str(home / "log"), "auto", window)
    assert files is not None
    assert [file.parent.name for file in files] == ["date=2026-11-05"] * 2
    rows(date(2026, 11, 5), 9).write_parquet(home / "log" / "stray.parquet")
    assert day_files(str(home / "log"), "auto", window) is None


def test_bad_rows_of_the_window_keep_the_numbers_that_they_have_in_the_file(tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n1,a,2026-11-01\n,b,2026-11-01\n2,c,2026-11-02\n,d,2026-11-02\n")
    with pytest.raises(DataError, match=r"1 of 2 rows break the contract[\s\S]*first: row 4"):
        read(spec(tmp_path, last=2, days=1, path=str(path)), tmp_path)


def test_a_window_needs_times_and_one_log() -> None:
    window = window_until(FIRST, 1)
    with pytest.raises(ValidationError, match="window needs times"):
        LogSpec(path="log", user="u", item="i", window=window)
    with pytest.raises(ValidationError, match="window has no effect where path names the parts"):
        LogSpec(path={"train": "a", "test": "b"}, user="u", item="i", time="t", window=window)
