"""The commands, exit codes and artifacts as Markdown, from the code that answers to them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"(\d+) (.+?)(?=, \d+ |\.$)")  # of the sentence in which `--help` lists them


def commands() -> str:
    """Return every command with its arguments and options, as `--help` has them."""
    from pipelines.__main__ import app

    text = app.generate_docs("markdown")
    return text[text.index("\n**") :].strip()  # after the title, which the page has, and a list without groups


def exit_codes() -> str:
    """Return the table of exit codes: what `--help` calls each, and the errors that leave with it."""
    from pipelines.__main__ import HELP
    from recdistill.errors import RecdistillError

    errors = (RecdistillError, *RecdistillError.__subclasses__())
    lines = ["| code | means | errors |", "|--:|---|---|"]
    for code, word in CODE.findall(" ".join(HELP.partition("Exit codes: ")[2].split())):
        raised = [error for error in errors if error.exit_code == int(code)]
        told = [f"`{error.__name__}`: {(error.__doc__ or '').partition(chr(10) * 2)[0]}" for error in raised]
        lines.append(f"| {code} | {word} | {'<br>'.join(' '.join(one.split()) for one in told)} |")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of artifact: the call that names it, and what the function around that call says."""

    name: str
    version: int
    resumes: bool
    collective: bool
    says: str
    module: str


def artifacts() -> str:
    """Return the table of the kinds of artifacts that stages leave, and what the registered bundle holds."""
    lines = ["| kind | made by | version | a stopped one goes on | what |", "|---|---|--:|---|---|"]
    for kind in kinds():
        goes_on = "yes" if kind.resumes else "begins again"
        lines.append(f"| `{kind.name}` | `{kind.module}` | {kind.version} | {goes_on} | {kind.says} |")
    return "\n".join(lines)


def kinds() -> list[Kind]:
    """Return every kind of artifact once, by the first module that makes it: stages.py, then the others by name."""
    files = sorted([*ROOT.glob("recdistill/**/*.py"), *ROOT.glob("pipelines/**/*.py")])
    files.sort(key=lambda file: file.name != "stages.py" or file.parent.name != "recdistill")
    found: dict[str, Kind] = {}
    for file in files:
        if "Step(" in (text := file.read_text(encoding="utf-8")):
            for kind in _named(ast.parse(text), ".".join(file.relative_to(ROOT).with_suffix("").parts)):
                found.setdefault(kind.name, kind)
    return list(found.values())


def _named(tree: ast.Module, module: str) -> Iterator[Kind]:
    """Yield what each call `Step("name", version, ...)` of a module names."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for function in functions.values():
        calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Step"]
        for call in calls:
            if len(call.args) < 2 or not isinstance(call.args[0], ast.Constant):
                continue
            flags = {word.arg for word in call.keywords if ast.unparse(word.value) == "True"}
            name = str(call.args[0].value)
            told = ast.get_docstring(function) or ast.get_docstring(functions.get(name, function)) or ""
            yield Kind(
                name=name,
                version=int(ast.unparse(call.args[1])),
                resumes="resumes" in flags,
                collective="collective" in flags,
                says=" ".join(told.split("\n\n")[0].split()),
                module=module,
            )


def docstring(module: str) -> str:
    """Return the lines of a module's docstring that are drawn, not told: those that are indented."""
    text = ast.get_docstring(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))) or ""
    return "\n".join(["```text", *[line for line in text.splitlines() if line.startswith(("    ", "<"))], "```"])
