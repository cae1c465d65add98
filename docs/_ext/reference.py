"""A Sphinx extension: where a page says `<!-- generated: NAME -->`, the text that the code gives of itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from _ext import commands, family, methods, settings

if TYPE_CHECKING:
    from sphinx.application import Sphinx

MARK = re.compile(r"^<!-- generated: ([a-z ]+) -->$", flags=re.MULTILINE)
DRAWN = ("    ", "|--", "`--", "<")
LITERAL = re.compile(r"(``[^`]+``|`[^`]+`)")


def _settings() -> str:
    from recdistill.config import config_schema

    return settings.settings(config_schema())


TEXTS: dict[str, Callable[[], str]] = {
    "settings": _settings,
    "commands": commands.commands,
    "exit codes": commands.exit_codes,
    "artifacts": commands.artifacts,
    "store": lambda: commands.docstring("recdistill.store"),
    "bundle": lambda: commands.docstring("recdistill.serve"),
    "methods": methods.methods,
    "family picture": family.picture,
    "family matrix": family.matrix,
    "family parts": family.parts,
}


def filled(text: str) -> str:
    """Return a page with what is generated in its places; raises KeyError for a name that is none."""
    return MARK.sub(lambda found: TEXTS[found[1]](), text)


def _fill(app: Sphinx, page: str, source: list[str]) -> None:  # noqa: ARG001
    source[0] = filled(source[0])


def _as_written(
    app: Sphinx,  # noqa: ARG001
    what: str,  # noqa: ARG001
    name: str,  # noqa: ARG001
    obj: Any,  # noqa: ARG001
    options: Any,  # noqa: ARG001
    lines: list[str],
) -> None:
    """Keep reStructuredText from reading signs in formulas of docstrings; what stands between backticks is code.

    Drawings, of files or of a tree, become literal blocks.
    """
    lines[:] = _drawn_apart(lines)
    inside = False
    for i, line in enumerate(lines):
        inside = inside or line.startswith(">>>")
        inside = inside and bool(line.strip())
        if not inside and not line.startswith("    "):
            parts = LITERAL.split(line)
            lines[i] = "".join(part if j % 2 else re.sub(r"([*|_])", r"\\\1", part) for j, part in enumerate(parts))


def _drawn_apart(lines: list[str]) -> list[str]:
    """Return a docstring's lines with each paragraph that is drawn, not told, as a literal block."""
    paragraphs = [paragraph.split("\n") for paragraph in "\n".join(lines).strip("\n").split("\n\n")]
    found: list[str] = []
    for paragraph in paragraphs:
        drawn = any(line.startswith(DRAWN) for line in paragraph) and not any(">>>" in line for line in paragraph)
        found += ["::", "", *(f"    {line}" for line in paragraph), ""] if drawn else [*paragraph, ""]
    return found


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect both to the build."""
    app.connect("source-read", _fill)
    app.connect("autodoc-process-docstring", _as_written)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
