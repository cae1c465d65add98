"""What the package promises from outside: it says what its parts do, and importing it costs little."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(ROOT.glob("recdistill/**/*.py"))
HEAVY = ("torch", "torchrec", "mlflow", "faiss", "matplotlib")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_public_function_and_class_says_what_it_does(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    silent = [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_") and not _says(n)]
    assert silent == []


def _says(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    first = (ast.get_docstring(node) or "").split("\n\n")[0].strip()
    return bool(first) and first[-1] in ".:?" and (first[0].isupper() or first[0] in "`(")


@pytest.mark.parametrize("module", ["recdistill", "recdistill.config", "recdistill.report", "pipelines.__main__"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_the_public_names_are_sorted_and_there() -> None:
    import recdistill

    assert list(recdistill.__all__) == sorted(recdistill.__all__)
    for name in recdistill.__all__:
        assert getattr(recdistill, name) is not None


def test_the_package_is_typed() -> None:
    assert (ROOT / "recdistill" / "py.typed").is_file()
