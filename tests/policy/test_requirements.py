"""The pins are whole, are what was tested, and hold nothing that is true of one machine only."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
BUILDS = {"fbgemm-gpu", "fbgemm-gpu-cpu"}  # which of them is there is what tells the two files apart


def pins(variant: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{variant}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def needed() -> set[str]:
    """Return every installed distribution that `recdistill[dev]` needs, however far away."""
    found: set[str] = set()
    waiting = [("recdistill", frozenset({"dev"}))]
    while waiting:
        name, extras = waiting.pop()
        for text in metadata.requires(name) or []:
            wanted = Requirement(text)
            asked = [{"extra": e} for e in extras or {""}]
            if wanted.marker and not any(wanted.marker.evaluate(e) for e in asked):
                continue
            found_name = canonicalize_name(wanted.name)
            if found_name not in found:
                found.add(found_name)
                waiting.append((found_name, frozenset(wanted.extras)))
    return found


@pytest.mark.parametrize("variant", ["cpu", "cuda", "dagster"])
def test_every_requirement_is_pinned_and_nothing_else_is_said(variant: str) -> None:
    lines = (ROOT / "requirements" / f"{variant}.txt").read_text().splitlines()
    odd = [line for line in lines if not re.fullmatch(r"#.*|[a-z0-9-]+==[0-9][0-9A-Za-z.]*", line)]
    assert odd == []
    assert variant == "dagster" or needed() - BUILDS - set(pins(variant)) == set()


def test_the_two_files_differ_in_the_build_of_fbgemm_alone() -> None:
    cpu, cuda = pins("cpu"), pins("cuda")
    assert {k: v for k, v in cpu.items() if cuda.get(k) != v} == {"fbgemm-gpu-cpu": "1.8.0"}
    assert {k: v for k, v in cuda.items() if cpu.get(k) != v} == {"fbgemm-gpu": "1.8.0"}


def test_the_environment_of_dagster_has_what_the_stages_have_but_for_protobuf() -> None:
    found, stages = pins("dagster"), pins("cpu")
    assert {name for name, version in found.items() if stages.get(name, version) != version} == {"protobuf"}
    declared = [Requirement(text) for text in metadata.requires("recdistill") or [] if "dagster" in text]
    for wanted in declared:
        assert wanted.specifier.contains(Version(found[canonicalize_name(wanted.name)])), wanted
    assert "torch" not in found


def test_what_is_installed_is_what_is_pinned() -> None:
    expected = pins("cpu") | pins("cuda")
    wrong = {n: v for n in needed() if (v := metadata.version(n).split("+")[0]) != expected[n]}
    assert wrong == {}


def test_the_pins_keep_the_declared_ranges() -> None:
    found = pins("dagster") | pins("cpu")  # what only the scheduler needs is pinned in its own file
    for text in metadata.requires("recdistill") or []:
        wanted = Requirement(text)
        assert wanted.specifier.contains(Version(found[canonicalize_name(wanted.name)])), text
