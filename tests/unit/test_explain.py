from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, model_validator

from recdistill.errors import ConfigError
from recdistill.explain import validate
from recdistill.spec import Spec
from recdistill.yamlfile import apply_sets, load_yaml


class Small(Spec):
    kind: Literal["small"] = "small"
    dim: PositiveInt


class Wide(Spec):
    kind: Literal["wide"] = "wide"
    dim: PositiveInt
    small: int = 0  # a field with the name of the other kind


class Train(Spec):
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    epochs: int
    optimizer: Literal["adam", "sgd"] = "adam"

    @model_validator(mode="after")
    def _possible(self) -> Train:
        if self.epochs == 13:
            raise ValueError("13 epochs bring bad luck")
        return self


class Whole(Spec):
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "x"
    model: Annotated[Small | Wide, Field(discriminator="kind")]
    train: Train
    more: tuple[Annotated[Small | Wide, Field(discriminator="kind")], ...] = ()
    depth: int | Literal["auto"] = "auto"
    paths: str | list[str] | dict[Literal["train", "test"], str] = "x"
    sizes: dict[str, PositiveInt] = Field(default={})
    flag: bool = False
    some: Annotated[tuple[Literal["a", "b"], ...], Field(min_length=1)] = ("a",)
    maybe: Train | None = None


GOOD = ["model: {kind: small, dim: 4}", "train: {epochs: 2}"]


def complaints(tmp_path, lines: list[str], sets: tuple[str, ...] = ()) -> list[str]:
    file = tmp_path / "c.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        validate(Whole, apply_sets(load_yaml(file), sets))
    return [str(p).replace(str(tmp_path) + "/", "") for p in caught.value.problems]


def test_a_good_file_is_its_value(tmp_path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("\n".join([*GOOD, "more: [{kind: wide, dim: 1, small: 3}]", "paths: {train: a}", "maybe: null"]))
    found = validate(Whole, load_yaml(file))
    assert (found.model, found.more) == (Small(dim=4), (Wide(dim=1, small=3),))
    assert (found.paths, found.maybe, found.depth) == ({"train": "a"}, None, "auto")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nam: x", "c.yaml:3:1: nam: unknown key, did you mean 'name'?"),
        (
            "q: x",
            "c.yaml:3:1: q: unknown key; known here: name, model, train, more, depth, paths, sizes, flag, some, maybe",
        ),
        ("epochs: 3", "c.yaml:3:1: epochs: unknown key, did you mean 'train.epochs'?"),
        ("name: 3", "c.yaml:3:1: name: expected text, not 3"),
        ("name: A-b", "c.yaml:3:1: name: must match ^[a-z]+$, which the text 'A-b' does not"),
        ("flag: no", "c.yaml:3:1: flag: expected true or false, not the text 'no'"),
        ("flag: 1", "c.yaml:3:1: flag: expected true or false, not 1"),
        (
            "depth: atuo",
            "depth: expected a whole number or 'auto', not the text 'atuo', did you mean 'auto'?",
        ),
        ("depth: 1.5", "c.yaml:3:1: depth: expected a whole number or 'auto', not 1.5"),
        ("depth: {a: 1}", "c.yaml:3:1: depth: expected a whole number or 'auto', not a section"),
        ("maybe: 3", "c.yaml:3:1: maybe: expected a section (`key: value` lines), not 3"),
        ("maybe: {}", "c.yaml:3:1: maybe.epochs: required, but not given"),
        ("maybe: {epochs: 13}", "c.yaml:3:1: maybe: 13 epochs bring bad luck"),
        (
            "paths: {trian: a}",
            "paths.trian: expected 'train' or 'test', not the text 'trian', did you mean 'train'?",
        ),
        ("paths: {train: 3}", "c.yaml:3:9: paths.train: expected text, not 3"),
        ("paths: [a, 3]", "c.yaml:3:12: paths.1: expected text, not 3"),
        ("paths: 3", "c.yaml:3:1: paths: expected text or a list or a section (`key: value` lines), not 3"),
        ("sizes: {a: 0}", "c.yaml:3:9: sizes.a: must be more than 0, not 0"),
        ("some: []", "c.yaml:3:1: some: needs 1 or more entries, not 0"),
        ("some: [c]", "c.yaml:3:8: some.0: expected 'a' or 'b', not the text 'c'"),
        ("more: 3", "c.yaml:3:1: more: expected a list, not 3"),
        ("more: [4]", "c.yaml:3:8: more.0: expected a section (`key: value` lines), not 4"),
        ("more: [{dim: 4}]", "c.yaml:3:8: more.0: needs a `kind`: small, wide"),
        (
            "more: [{kind: smal, dim: 4}]",
            "more.0: unknown kind 'smal', did you mean 'small'? kinds: small, wide",
        ),
        ("more: [{kind: tiny, dim: 4}]", "c.yaml:3:9: more.0: unknown kind 'tiny'; kinds: small, wide"),
        ("more: [{kind: wide, dim: x}]", "c.yaml:3:21: more.0.dim: expected a whole number, not the text 'x'"),
        (
            "more: [{kind: wide, dim: 1, small: x}]",
            "more.0.small: expected a whole number, not the text 'x'",
        ),
        ("more: [{kind: small, dim: 1, small: 2}]", "c.yaml:3:30: more.0.small: unknown key; known here: kind, dim"),
    ],
)
def test_one_problem_in_plain_words(tmp_path, line: str, message: str) -> None:
    (found,) = complaints(tmp_path, [*GOOD, line])
    assert found.endswith(message)
    assert found.startswith("c.yaml:3:")


def test_everything_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path) -> None:
    lines = [
        "train:",
        "  learning_rte: 1e-2",
        "  epochs: 8k",
        "  optimizer: adm",
        "model: {kind: small, dim: 0, dim: 1}",
        "name: 7",
    ]
    assert complaints(tmp_path, lines, ("flag=3", "depth", "train.learning_rate=2")) == [
        "c.yaml:5:30: model.dim: given twice; the first is on line 5",
        "--set depth: expected a.b.c=value (null clears a setting)",
        "c.yaml:2:3: train.learning_rte: unknown key, did you mean 'learning_rate'?",
        "c.yaml:3:3: train.epochs: expected a whole number, not the text '8k'",
        "c.yaml:4:3: train.optimizer: expected 'adam' or 'sgd', not the text 'adm', did you mean 'adam'?",
        "c.yaml:5:22: model.dim: must be more than 0, not 0",
        "c.yaml:6:1: name: expected text, not 7",
        "--set flag: flag: expected true or false, not 3",
        "--set train.learning_rate: train.learning_rate: must be at most 1.0, not 2",
    ]


def test_missing_sections_are_named_at_the_top(tmp_path) -> None:
    assert complaints(tmp_path, ["name: x"]) == [
        "c.yaml:1:1: model: required, but not given",
        "c.yaml:1:1: train: required, but not given",
    ]


def test_a_number_in_quotes_is_not_a_number(tmp_path) -> None:
    assert complaints(tmp_path, [*GOOD[:1], 'train: {epochs: "2"}']) == [
        "c.yaml:2:9: train.epochs: expected a whole number, not the text '2'"
    ]
