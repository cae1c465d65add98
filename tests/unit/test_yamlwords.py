"""What is more than a configuration can be costs nothing before it is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from recdistill.errors import ConfigError
from recdistill.yamlfile import apply_sets, load_yaml, read_yaml


def why(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "f")
    return str(caught.value)


def test_one_long_word_behind_many_aliases_is_not_written_out():
    text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 2000)}]\n"  # of which 200 MB would come
    tracemalloc.start()
    try:
        assert "more than 4194304 characters, aliases written out" in why(text)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_aliases_of_aliases_are_counted_and_not_followed():
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 200)]  # 2 ** 200 of them
    assert "more than 100000 keys" in why("\n".join(lines))
    assert "nested too deeply" in why("a: " + "[" * 120 + "]" * 120)
    assert "nested too deeply, or an alias that contains itself" in why("a: &a {b: [*a]}")


def test_a_device_that_never_ends_is_read_to_the_limit_alone():
    with pytest.raises(ConfigError, match="more than 1048576 characters"):
        load_yaml(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (r'"a\0b"', r"the character U\+0000 is not allowed"),
        (r'"\ud800"', r"the character U\+D800 is not allowed"),
        ("0x" + "f" * 5000, "a whole number of more than 64 bits"),
        ("9" * 100_000, "a whole number of more than 64 bits"),
        ("9223372036854775808", "a whole number of more than 64 bits"),
        ("-9223372036854775808", "a whole number of more than 64 bits"),
    ],
)
def test_values_that_nothing_can_take_are_problems_with_their_place(value, reason):
    document = read_yaml(f"k: {value}\n", "f")
    assert [f"{p.where} {p.path} {p.reason}" for p in document.problems] == [f"f:1:4 k {reason}".replace("\\", "")]
    again = apply_sets(read_yaml("k: 1\n", "f"), [f"k={value}"])
    assert [p.reason for p in again.problems] == [reason.replace("\\", "")]


def test_a_key_that_nothing_can_print_is_a_problem():
    (problem,) = read_yaml('"a\\0": 1\n', "f").problems
    assert problem.reason == "the character U+0000 is not allowed"


def test_the_largest_numbers_are_read():
    assert read_yaml("a: 9223372036854775807\nb: -9223372036854775807\n", "f").data == {
        "a": 2**63 - 1,
        "b": 1 - 2**63,
    }
