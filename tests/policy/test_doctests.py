"""The examples in docstrings and on pages print what they say."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMPT = re.compile(r"^\s*>>> ", flags=re.MULTILINE)
FENCE = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
SOURCES = [*ROOT.glob("recdistill/**/*.py"), *ROOT.glob("pipelines/**/*.py")]
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in SOURCES if PROMPT.search(file.read_text())
)
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts and PROMPT.search(p.read_text()))


def test_metrics_losses_and_fingerprints_have_examples() -> None:
    wanted = {"recdistill.metrics", "recdistill.spec", "recdistill.distill.losses", "recdistill.distill.grouped"}
    assert wanted <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_say(name: str) -> None:
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted
    assert not done.failed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_print_what_they_say(page: Path) -> None:
    text = "\n".join(FENCE.findall(page.read_text()))
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert len(examples.examples) == len(PROMPT.findall(page.read_text())), "an example stands outside a python fence"
    assert not doctest.DocTestRunner().run(examples).failed
