"""The pages are one site: all of them in it, their links lead somewhere, and what they tell people to type exists."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
GUIDES = [DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^(```|~~~)([^\n]*)\n(.*?)^\1$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
SHELL = ("", "sh", "console")  # languages of a fence of commands


def page_name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def prose(page: Path) -> str:
    """Return what is no fence."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the names that code hosts give to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> list[str]:
    """Return the lines of a page's fences that call `recdistill`, continued ones as one."""
    text = "\n".join(body for _, language, body in FENCE.findall(page.read_text()) if language in SHELL)
    text = text.replace("\\\n", " ")
    return re.findall(r"^(?:\$ )?(recdistill(?: [^|>\n]*)?)", text, flags=re.MULTILINE)


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that fills what is generated; it needs no Sphinx."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("_ext.reference")


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("_ext.family")


def test_every_page_stands_in_the_contents_once() -> None:
    found = []
    for page in PAGES:
        for body in TOCTREE.findall(page.read_text()):
            entries = [line for line in body.splitlines() if line and not line.startswith(":")]
            found += [page_name((page.parent / f"{entry}.md").resolve()) for entry in entries]
    assert sorted(found) == [page_name(page) for page in PAGES if page_name(page) != "index.md"]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        at = (page.parent / path).resolve() if path else page
        if not at.is_file() or (anchor and anchor not in anchors(at)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", GUIDES, ids=page_name)
def test_every_command_of_a_guide_can_be_typed(page: Path) -> None:
    from pipelines.__main__ import app

    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        app.parse_args([w for w in words if w != "--debug"], exit_on_error=False, print_error=False)


def test_the_configuration_of_the_tutorial_is_valid(tmp_path: Path) -> None:
    from recdistill.config import load_config

    (text,) = re.findall(r"^cat > films.yaml <<'EOF'\n(.*?)^EOF$", GUIDES[0].read_text(), re.MULTILINE | re.DOTALL)
    assert len(text.splitlines()) <= 30
    (tmp_path / "films.yaml").write_text(text)
    assert load_config(tmp_path / "films.yaml").registry is not None


def test_guides_have_commands() -> None:
    assert {page.stem for page in GUIDES if commands(page)} >= {"tutorial", "promote", "roll-back", "scale-out"}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    from pipelines.__main__ import app

    named = set(re.findall(r"`recdistill ([a-z][a-z-]*)", page.read_text()))
    assert named <= {name for name in app if not name.startswith("-")}


def test_whatever_is_generated_stands_on_one_page(generated: ModuleType) -> None:
    marks = [mark for page in PAGES for mark in generated.MARK.findall(page.read_text())]
    assert sorted(marks) == sorted(generated.TEXTS)


def test_the_reference_names_every_setting_command_preset_and_exit_code(generated: ModuleType) -> None:
    from pipelines.__main__ import app
    from pipelines.console import INTERRUPTED
    from recdistill.config import config_schema
    from recdistill.errors import RecdistillError
    from recdistill.methods import FAMILIES, presets

    texts = {name: write() for name, write in generated.TEXTS.items()}
    schema = config_schema()
    for name, section in schema["$defs"].items():
        assert f"(setting-{name})=" in texts["settings"]
        assert all(f"| `{key}` |" in texts["settings"] for key, one in section["properties"].items() if key != "kind")
    assert all(f"## recdistill {name}\n" in texts["commands"] for name in app if not name.startswith("-"))
    folder = ROOT / "configs" / "methods"
    names = [name for one in FAMILIES for name in presets((folder,), one)]
    for name in names:
        assert f"(method-{name})=" in texts["methods"]
        assert f"#method-{name})" in texts["family parts"]
    codes = {int(code) for code in re.findall(r"^\| (\d+) ", texts["exit codes"], flags=re.MULTILINE)}
    assert codes >= {0, INTERRUPTED, *(error.exit_code for error in RecdistillError.__subclasses__())}


def test_no_link_of_the_reference_leads_nowhere(generated: ModuleType) -> None:
    text = generated.TEXTS["settings"]()
    assert set(re.findall(r"\(#(setting-\w+)\)", text)) <= set(re.findall(r"^\((setting-\w+)\)=", text, re.MULTILINE))


def test_every_loss_and_draw_has_its_place_in_the_family(family: ModuleType) -> None:
    from recdistill.distill.spec_align import AlignLoss
    from recdistill.distill.spec_draws import Draw
    from recdistill.distill.spec_lists import ListLoss

    def kinds(union: object) -> list[str]:
        return [one.model_fields["kind"].default for one in get_args(get_args(union)[0])]

    placed = sorted(loss for losses in family.TEACHES.values() for loss in losses)
    assert placed == sorted([*kinds(ListLoss), *kinds(AlignLoss), "gates"])
    assert sorted(draw for draws in family.FROM.values() for draw in draws) == sorted(kinds(Draw))


def test_the_kinds_of_artifacts_are_those_that_stages_name(generated: ModuleType) -> None:
    found = {kind.name: kind for kind in generated.commands.kinds()}
    assert {"ingest", "split", "fit", "labels", "index", "evaluate", "latency"} <= found.keys()
    assert found["fit"].resumes
    assert found["fit"].says.startswith("Data -> a trained model")
    assert all(kind.says for kind in found.values())
