from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from recdistill.config import load_config
from recdistill.distill.spec import TermSpec
from recdistill.errors import ConfigError
from recdistill.methods import find, load_method, needs, presets
from recdistill.yamlfile import Document, load_yaml, overlay

RUN = """\
name: tiny
log: {path: log.parquet, user: u, item: i}
split: {kind: user_random}
teacher: {model: {kind: mf, dim: 16}, train: {epochs: 3}}
labels: {depth: 50}
student:
  model: {kind: mf, dim: 8}
  train: {epochs: 3, lr: 0.2}
distill:
  - {kind: list, weight: 0.5, draw: [{kind: top, k: 10}], loss: {kind: softmax_kl}}
  - {kind: list, weight: 0.5, draw: [{kind: top, k: 20}], loss: {kind: softmax_kl}}
"""
PRESET = """\
title: A
paper: B
transfers: C
reference: D
cost: E
set:
  labels: {precision: f16}
  student: {train: {lr: 0.5}}
  distill:
    - {kind: list, weight: 2.0, draw: [{kind: ranked, k: 40}, {kind: unseen, n: 5}], loss: {kind: plackett_luce}}
"""


def documents(tmp_path: Path, base: str, other: str) -> tuple[Document, Document]:
    for name, text in (("base", base), ("other", other)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return load_yaml(tmp_path / "base.yaml"), load_yaml(tmp_path / "other.yaml")


def over(tmp_path: Path, base: str, other: str) -> Document:
    return overlay(*documents(tmp_path, base, other))


def place(document: Document, *path: str | int) -> str:
    return document.where(path).rpartition("/")[2]


# overlay


def test_sections_are_merged_and_everything_else_takes_the_old_ones_place(tmp_path: Path) -> None:
    found = over(tmp_path, "{a: {x: 1, y: {z: 2}}, b: [1, 2], c: 5, d: 7}", "{a: {y: {w: 3}}, b: [9], c: {u: 1}}")
    assert found.data == {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "b": [9], "c": {"u": 1}, "d": 7}


def test_a_section_of_another_kind_takes_the_old_ones_place(tmp_path: Path) -> None:
    base = "{m: {kind: mf, dim: 8}, n: {kind: mf, dim: 8}}"
    found = over(tmp_path, base, "{m: {kind: two_tower, history: 5}, n: {kind: mf, history: 5}}")
    assert found.data == {"m": {"kind": "two_tower", "history": 5}, "n": {"kind": "mf", "dim": 8, "history": 5}}


def test_an_empty_section_is_filled(tmp_path: Path) -> None:
    assert over(tmp_path, "a:\n", "a: {x: 1}").data == {"a": {"x": 1}}


def test_every_key_is_where_it_was_written(tmp_path: Path) -> None:
    found = over(tmp_path, "a:\n  x: 1\n  y: 2\nb: [1, 2]\n", "\n\na:\n  y: 3\n  z: 4\nb: [7]\n")
    assert place(found, "a") == "base.yaml:1:1"
    assert place(found, "a", "x") == "base.yaml:2:3"
    assert place(found, "a", "y") == "other.yaml:4:3"
    assert place(found, "a", "z") == "other.yaml:5:3"
    assert place(found, "b", 0) == "other.yaml:6:5"
    assert ("b", 1) not in found.places


def test_only_what_stands_below_the_given_place_is_laid_over(tmp_path: Path) -> None:
    base, other = documents(tmp_path, "a: 1\n", "t: 5\nset:\n  a: 2\n  b: {c: 3}\n")
    found = overlay(base, other, ("set",))
    assert found.data == {"a": 2, "b": {"c": 3}}
    assert place(found, "a") == "other.yaml:3:3"
    assert place(found, "b", "c") == "other.yaml:4:7"


def test_neither_document_is_changed(tmp_path: Path) -> None:
    base, other = documents(tmp_path, "a: {x: 1}\nb: [1]\n", "a: {y: {z: 2}}\nb: [3]\n")
    overlay(base, other).data["a"]["y"]["z"] = 9
    assert (base.data, other.data) == ({"a": {"x": 1}, "b": [1]}, {"a": {"y": {"z": 2}}, "b": [3]})


def test_the_problems_of_both_are_kept(tmp_path: Path) -> None:
    found = over(tmp_path, "a: 1\na: 2\n", "b: 1\nb: 2\n")
    assert [p.path for p in found.problems] == ["a", "b"]


# load_config with a method


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "preset.yaml").write_text(PRESET)
    return tmp_path / "run.yaml", tmp_path / "preset.yaml"


def complaints(files: tuple[Path, Path], *sets: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(files[0], sets, files[1])
    return [str(p).replace(f"{files[0].parent}/", "") for p in caught.value.problems]


def test_a_method_is_laid_over_the_file_and_set_over_the_method(files: tuple[Path, Path]) -> None:
    config = load_config(files[0], (), files[1])
    assert (config.labels.depth, config.labels.precision, config.student.train.lr) == (50, "f16", 0.5)
    assert (config.student.train.epochs, len(config.distill), config.distill[0].weight) == (3, 1, 2.0)
    again = load_config(files[0], ("student.train.lr=0.7", "distill.0.weight=3"), files[1])
    assert (again.student.train.lr, again.distill[0].weight) == (0.7, 3.0)


def test_what_does_not_fit_the_file_names_the_presets_line(files: tuple[Path, Path]) -> None:
    assert complaints(files, "labels.depth=30")[0].startswith("preset.yaml:10:55: distill.0.draw.0.k: 40 is beyond")


def test_what_is_unknown_to_the_configuration_names_the_presets_line(files: tuple[Path, Path]) -> None:
    files[1].write_text(PRESET.replace("{lr: 0.5}", "{epoch: 5}"))
    assert complaints(files) == ["preset.yaml:8:21: student.train.epoch: unknown key, did you mean 'epochs'?"]


def test_a_preset_that_is_wrong_itself_names_all_its_problems(files: tuple[Path, Path]) -> None:
    files[1].write_text(PRESET.replace("paper: B\n", "").replace("  labels", "  index").replace("plackett_luce", "pl"))
    found = complaints(files)
    assert any(line.startswith("preset.yaml") and "paper" in line and "required" in line for line in found)
    assert any(line.startswith("preset.yaml:6:3: set.index: unknown key") for line in found)
    assert any(line.startswith("preset.yaml:9:") and "set.distill.0.loss: unknown kind" in line for line in found)


def test_a_method_without_a_term_is_refused(files: tuple[Path, Path]) -> None:
    files[1].write_text(PRESET[: PRESET.index("    - {")].replace("distill:", "distill: []"))
    assert "needs 1 or more entries" in complaints(files)[0]


# find


def test_a_name_is_looked_for_in_each_folder_in_turn(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, ["kd"]), (second, ["kd", "rrd"])):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.yaml").write_text("")
    assert find("kd", (first, second)) == first / "kd.yaml"
    assert find("rrd", (first, second)) == second / "rrd.yaml"
    assert presets((first, second)) == {"kd": first / "kd.yaml", "rrd": second / "rrd.yaml"}
    with pytest.raises(ConfigError, match=r"no method 'rdr', did you mean 'rrd'\?") as caught:
        find("rdr", (first, second))
    assert caught.value.fix == "the methods are kd, rrd"


def test_a_path_is_a_path() -> None:
    assert find("some/where.yaml") == Path("some/where.yaml")
    assert find("where.yaml") == Path("where.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        load_method(find("some/where.yaml"))


def test_the_presets_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = list(presets())
    monkeypatch.chdir(tmp_path)
    assert list(presets()) == here
    assert "rrd" in here


def test_without_presets_it_says_where_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find("rrd", (tmp_path,))
    assert str(tmp_path) in str(caught.value.fix)


# needs


@pytest.mark.parametrize(
    ("term", "wanted"),
    [
        ({"draw": [{"kind": "ranked", "k": 5}, {"kind": "unseen", "n": 5}], "loss": "plackett_luce"}, ["lists"]),
        ({"draw": [{"kind": "top", "k": 5}], "loss": "softmax_kl"}, ["lists"]),
        ({"draw": [{"kind": "top", "k": 5}, {"kind": "unseen", "n": 5}], "loss": "margin_mse"}, ["lists", "vectors"]),
        ({"draw": [{"kind": "top", "k": 5}, {"kind": "unseen", "n": 5}], "loss": "sampled_pl"}, ["lists"]),
        ({"draw": [{"kind": "whole"}], "loss": "softmax_kl"}, ["vectors"]),
        ({"draw": [{"kind": "in_batch", "n": 5}], "loss": "soft_bce"}, ["vectors"]),
        ({"draw": [{"kind": "student_top", "k": 5}], "loss": "softmax_kl"}, ["vectors", "student lists"]),
        (
            {"draw": [{"kind": "rank_gap", "k": 5, "side": "under"}], "loss": "plackett_luce"},
            ["lists", "student lists"],
        ),
        (
            {"draw": [{"kind": "closure", "k": 5, "n": 5}], "loss": "gated_kl"},
            ["lists", "vectors", "student lists"],
        ),
        ({"draw": [{"kind": "trajectory", "k": 5}], "loss": "plackett_luce"}, ["trajectory", "student lists"]),
        ({"side": "items", "draw": [{"kind": "ranked", "k": 5}], "loss": "plackett_luce"}, ["item lists"]),
        ({"teacher": "partner", "draw": [{"kind": "in_batch", "n": 5}], "loss": "soft_bce"}, ["partner"]),
    ],
)
def test_what_a_list_term_needs(term: dict, wanted: list[str]) -> None:
    text = {"kind": "list", "weight": 1.0, **term, "loss": {"kind": term["loss"]}}
    assert needs([TypeAdapter(TermSpec).validate_python(text)]) == wanted


def test_what_an_align_term_needs() -> None:
    text = {"kind": "align", "weight": 1.0, "loss": {"kind": "gram"}}
    make = TypeAdapter(TermSpec).validate_python
    assert needs([make(text)]) == ["vectors"]
    assert needs([make({**text, "preserve": {"weight": 0.1}})]) == ["lists", "vectors"]
    assert needs([]) == []
