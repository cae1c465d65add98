from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.masking import masked, printable


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql://me:pw@db:5432/m", "postgresql://me:***@db:5432/m"),
        ("postgresql+psycopg://me:p@s/s:w@db/m?x=1", "postgresql+psycopg://me:***@db/m?x=1"),
        ("--set exec.mlflow=http://u:p@h:5000 --json", "--set exec.mlflow=http://u:***@h:5000 --json"),
        ("--set 'exec.mlflow=HTTPS://u:p@h'", "--set 'exec.mlflow=HTTPS://u:***@h'"),
        ('{"mlflow": "mysql://u:p%40w@h/d"}', '{"mlflow": "mysql://u:***@h/d"}'),
        ("https://h/?user=u&password=pw&x=1", "https://h/?user=u&password=***&x=1"),
        ("postgresql://h/m?sslmode=on&sslpassword=pw", "postgresql://h/m?sslmode=on&sslpassword=***"),
        ("http://:pw@h", "http://:***@h"),
        ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("http://h:5000/a b@c", "http://h:5000/a b@c"),
        ("postgresql://me@db/m", "postgresql://me@db/m"),
        ("a: user 'x' at 12:30, not y@z", "a: user 'x' at 12:30, not y@z"),
    ],
)
def test_an_address_is_shown_without_its_password(text: str, said: str) -> None:
    assert masked(text) == said
    assert masked(said) == said


SAFE = st.text("ab1%:/@.#?&;=+*~\u00e9\\", max_size=12)


@given(password=SAFE.filter(lambda p: len(p) > 3), before=st.sampled_from(["", "run --set exec.mlflow=", "{'a': '"]))
@settings(max_examples=60, derandomize=True, deadline=None, database=None)
def test_no_password_is_left_whatever_is_in_it(password: str, before: str) -> None:
    said = masked(f"{before}postgresql://user:{password}@host/db' and more")
    assert said == f"{before}postgresql://user:***@host/db' and more"


def test_a_terminal_is_not_steered() -> None:
    assert printable("plain \u00e9\u4e2d\n\ttext") == "plain \u00e9\u4e2d\n\ttext"
    assert printable("a\x1b]0;title\x07b\r\x00") == "a\\x1b]0;title\\x07b\\r\\x00"
    assert printable("abc\u202edef\ud800") == "abc\\u202edef\\ud800"
