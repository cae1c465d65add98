from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.errors import ConfigError
from recdistill.yamlfile import Document, apply_sets, load_yaml


def read(tmp_path: Path, text: str | bytes) -> Document:
    file = tmp_path / "a.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_yaml(file)


def refused(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert len(caught.value.problems) == 1
    return str(caught.value).replace(str(tmp_path) + "/", "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5E+2", 500.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("12", 12),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),
        ("1_000", "1_000"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("12:30:00", "12:30:00"),
        ("2026-11-21", "2026-11-21"),
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
        ("~", None),
        ("", None),
        ("null", None),
        ('"12"', "12"),
        ("'true'", "true"),
        ("=", "="),
        ("1e", "1e"),
        ("{a: [1, x]}", {"a": [1, "x"]}),
        ("!!str 12", "12"),
        ("!!float 3", 3.0),
    ],
)
def test_only_the_words_of_yaml_12_are_special(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"k: {text}\n").data["k"]
    assert (found, type(found)) == (value, type(value))


def test_a_number_that_is_none_is_read_as_such(tmp_path: Path) -> None:
    found = read(tmp_path, "k: .NaN").data["k"]
    assert isinstance(found, float)
    assert found != found


def test_every_key_and_entry_has_its_place(tmp_path: Path) -> None:
    document = read(tmp_path, "a:\n  b: {c: 1}\nd:\n  - e: 2\n  - 3\n")
    places = {path: where.rpartition("a.yaml:")[2] for path, where in document.places.items()}
    assert places == {
        ("a",): "1:1",
        ("a", "b"): "2:3",
        ("a", "b", "c"): "2:7",
        ("d",): "3:1",
        ("d", 0): "4:5",
        ("d", 0, "e"): "4:5",
        ("d", 1): "5:5",
    }
    assert document.where(("a", "b", "missing", 4)).endswith("a.yaml:2:3")
    assert document.where(("missing",)).endswith("a.yaml:1:1")


def test_an_alias_is_a_copy_with_places_of_its_own(tmp_path: Path) -> None:
    document = read(tmp_path, "a: &x {lr: 1}\nb: *x\n")
    assert document.data == {"a": {"lr": 1}, "b": {"lr": 1}}
    changed = apply_sets(document, ["b.lr=2"])
    assert changed.data == {"a": {"lr": 1}, "b": {"lr": 2}}


def test_all_repeated_keys_are_reported_with_both_lines(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert document.data == {"a": 1, "b": {"c": 1}}
    assert [str(p).replace(str(tmp_path) + "/", "") for p in document.problems] == [
        "a.yaml:4:3: b.c: given twice; the first is on line 3",
        "a.yaml:5:1: a: given twice; the first is on line 1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.yaml:1:1: the file is empty"),
        ("# only this\n", "a.yaml:1:1: the file is empty"),
        ("- 1\n", "a.yaml:1:1: expected `key: value` lines at the top, not a list"),
        ("hello\n", "a.yaml:1:1: expected `key: value` lines at the top, not the text 'hello'"),
        ("a:\n\tb: 1\n", "a.yaml:2:1: a tab cannot indent YAML; use spaces"),
        ("a: [1, 2\n", "a.yaml:2:1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2:1: not YAML: but found another document"),
        ("a: *x\n", "a.yaml:1:4: not YAML: found undefined alias 'x'"),
        (b"a: 1\nb: \xff\n", "a.yaml:2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: 1\nb: \x07\n", "a.yaml:2:4: the character 7 is not allowed in YAML"),
        ("a: &x [*x]\n", "a.yaml: nested too deeply, or an alias that contains itself"),
        ("[" * 5000, "a.yaml: nested too deeply, or an alias that contains itself"),
    ],
)
def test_what_is_not_a_configuration_says_where(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refused(tmp_path, text) == message


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than 100000 keys" in refused(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.getcwd []", "!!set {a}", "!mine x", "!!binary aGk="])
def test_tags_are_problems_and_never_run(tmp_path: Path, tag: str) -> None:
    document = read(tmp_path, f"k: {tag}\n")
    assert document.data == {"k": None}
    assert "is not used here" in document.problems[0].reason


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n").data == {"a": 1}


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"rum\.yaml: no such file; .* has run\.yaml"):
        load_yaml(tmp_path / "rum.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path)
