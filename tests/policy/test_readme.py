"""What the README tells people to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def typed(program: str) -> set[str]:
    """Return the words that follow `program` at the start of a command in the README's code fences."""
    code = "\n".join(FENCE.findall(README.read_text()))
    return set(re.findall(rf"(?:^|&&|;|\$)\s*(?:\.venv/bin/)?{program} +([a-z][\w-]*)", code, flags=re.MULTILINE))


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    found = typed("make")
    assert {"setup", "test"} <= found
    assert found <= targets


def test_every_command_exists() -> None:
    from pipelines.__main__ import app

    found = typed("recdistill")
    assert "run" in found
    assert found <= {name for name in app if not name.startswith("-")}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"configs/[\w/.-]+\.yaml", README.read_text()))))
def test_every_configuration_it_names_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", README.read_text()))), ids=str
)
def test_every_relative_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
