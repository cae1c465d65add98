from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.yamledit import with_section
from recdistill.yamlfile import read_yaml

WANTED = {"factory": "IVF512,SQ8", "params": "nprobe=8", "k": [10, 100]}
NEW = 'factory: "IVF512,SQ8"', 'params: "nprobe=8"'


def test_a_section_that_is_not_there_is_added_at_the_end() -> None:
    text = "# about\nname: x  # so\n"
    found = with_section(text, "index", {"factory": "IVF512,SQ8", "width": 16})
    assert found == text + 'index:\n  factory: "IVF512,SQ8"\n  width: 16\n'


def test_keys_of_a_block_keep_their_place_and_their_comments() -> None:
    text = "index:\n    # how\n    factory: auto  # by size\n    k:\n      - 10\n      - 100\n# then\nlog: {}\n"
    assert with_section(text, "index", WANTED) == text.replace("factory: auto", f"{NEW[1]}\n    {NEW[0]}")


def test_a_key_that_goes_gives_its_place_to_a_new_one() -> None:
    text = "index: {factory: auto, min_recall: 0.98, k: [10, 100]}  # all of it\nname: x\n"
    found = with_section(text, "index", WANTED)
    assert found == f"index: {{{NEW[0]}, {NEW[1]}, k: [10, 100]}}  # all of it\nname: x\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("index: {k: [10], a: 1}\n", "index: {k: [10]}\n"),
        ("index: {a: 1, k: [10]}\n", "index: {k: [10]}\n"),
        ("index:\n  k: [10]\n  a: 1 # gone\nname: x\n", "index:\n  k: [10]\nname: x\n"),
        ("index:\n  a: 1\n  k: [10]\n", "index:\n  k: [10]\n"),
        ("index:\n  k: [10]\n  a: 1", "index:\n  k: [10]\n"),
        ("index:  # none\nname: x\n", "index: {k: [10]}  # none\nname: x\n"),
        ("index: null\n", "index: {k: [10]}\n"),
        ("index: {}\n", "index: {k: [10]}\n"),
    ],
)
def test_what_is_left_out_leaves_no_trace(before: str, after: str) -> None:
    assert with_section(before, "index", {"k": [10]}) == after


def test_a_section_that_says_so_already_is_left_as_it_is() -> None:
    text = "index: {k: [10]} # as it is\n"
    assert with_section(text, "index", {"k": [10]}) is text


def test_what_is_an_alias_is_written_anew() -> None:
    text = "name: &same {a: 1}\nindex: *same  # as above\n"
    found = with_section(text, "index", {"k": [10]})
    assert read_yaml(found, "f").data == {"name": {"a": 1}, "index": {"k": [10]}}


scalars = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["a", "no", "x,y", "1e3", "# {", ""]))
sections = st.dictionaries(st.sampled_from("abcde"), st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=5)


@given(sections, sections.filter(bool), st.booleans(), st.booleans())
def test_the_file_then_says_what_was_wanted(before: Any, wanted: Any, flow: bool, after: bool) -> None:
    import yaml

    def dumped(name: str, value: Any) -> str:
        return yaml.safe_dump({name: value}, default_flow_style=None if flow else False)

    text = "# top\nname: x # n\n" + dumped("index", before) + ("# last\nlog: {a: 1}\n" if after else "")
    data = read_yaml(text, "f").data
    found = with_section(text, "index", wanted)
    assert read_yaml(found, "f").data == data | {"index": wanted}
    assert found.startswith("# top\nname: x # n\n")
    assert not after or found.endswith("# last\nlog: {a: 1}\n")
