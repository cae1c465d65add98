"""Every preset is whole, names its paper, and fits the configuration that methods are compared on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.methods import FAMILIES, load_method, method_schema, presets

ROOT = Path(__file__).parents[2]
METHODS = ROOT / "configs" / "methods"
PRESETS = sorted(path for family in FAMILIES for path in (METHODS / family).glob("*") if path.is_file())


def name(path: Path) -> str:
    return path.name


def test_there_are_presets() -> None:
    assert ROOT / "configs" / "methods" / "rrd.yaml" in PRESETS


@pytest.mark.parametrize("path", PRESETS, ids=name)
def test_a_preset_is_whole_and_its_name_can_be_typed(path: Path) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.yaml", path.name)
    method = load_method(path)
    assert method.paper
    up = "../" * len(path.relative_to(METHODS).parts)
    assert path.read_text().startswith(f"# yaml-language-server: $schema={up}method.schema.json\n")


@pytest.mark.parametrize("path", PRESETS, ids=name)
def test_a_preset_fits_the_configuration_that_methods_are_compared_on(path: Path) -> None:
    config = load_config(ROOT / "configs" / "citeulike.yaml", method=path)
    assert config.distill == load_method(path).set.distill


@pytest.mark.parametrize("path", PRESETS, ids=name)
def test_a_preset_asks_the_labels_for_what_it_needs(path: Path) -> None:
    config = load_config(ROOT / "configs" / "citeulike.yaml", method=path)
    wanted = load_method(path).set.needs
    assert ("vectors" in wanted) == config.labels.vectors
    assert ("item lists" in wanted) == bool(config.labels.item_depth)
    assert ("trajectory" in wanted) == bool(config.labels.trajectory)
    assert ("partner" in wanted) == (config.student.partner is not None)


def test_the_package_holds_every_preset() -> None:
    packaged = [presets((ROOT / "recdistill" / "presets",), family) for family in FAMILIES]
    assert sorted(path.resolve() for found in packaged for path in found.values()) == sorted(PRESETS)


def test_no_two_presets_have_one_name() -> None:
    assert len({path.stem for path in PRESETS}) == len(PRESETS)


def test_the_committed_schema_is_that_of_the_code() -> None:
    committed = json.loads((ROOT / "configs" / "method.schema.json").read_text())
    assert committed == method_schema(), "run python -m pipelines.schema"
