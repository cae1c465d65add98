from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "configs" / "methods"  # parts of configurations, which test_methods.py looks at
CONFIGS = sorted(
    p for p in [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("configs/**/*.yml")] if PRESETS not in p.parents
)


def test_there_are_configurations_to_check() -> None:
    assert ROOT / "configs" / "quickstart.yaml" in CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_configuration_is_valid(path: Path) -> None:
    assert load_config(path).name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_launch_line_stands_on_top(path: Path) -> None:
    head = [line for line in path.read_text().splitlines()[:12] if line.startswith("#")]
    assert any(f"recdistill run {path.relative_to(ROOT).as_posix()}" in line for line in head)
