"""Every preset is whole, names its paper, and fits the configuration that methods are compared on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.methods import load_method, method_schema, presets

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "configs" / "methods").glob("*"))


def name(path: Path) -> str:
    return path.name


def test_there_are_presets() -> None:
    assert ROOT / "configs" / "methods" / "rrd.yaml" in PRESETS


@pytest.mark.parametrize("path", PRESETS, ids=name)
def test_a_preset_is_whole_and_its_name_can_be_typed(path: Path) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.yaml", path.name)
    method = load_method(path)
    assert method.paper
    assert path.read_text().startswith("# yaml-language-server: $schema=../method.schema.json\n")


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
    packaged = presets((ROOT / "recdistill" / "presets",))
    assert sorted(path.resolve() for path in packaged.values()) == PRESETS


def test_the_committed_schema_is_that_of_the_code() -> None:
    committed = json.loads((ROOT / "configs" / "method.schema.json").read_text())
    assert committed == method_schema(), "run python -m pipelines.schema"
