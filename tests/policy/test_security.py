"""What the package never does, read from its source: run what it reads, trust a shell, or listen to other machines."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("recdistill/**/*.py"), *ROOT.glob("pipelines/**/*.py")])
TEMPLATES = sorted(ROOT.glob("recdistill/templates/*.j2"))
TEXTS = [
    ROOT / "README.md",
    ROOT / "Dockerfile",
    ROOT / "Makefile",
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("configs/**/*"),
]
READS_PICKLES = "recdistill/checkpoint_reader.py"  # of a fixed list of types, see tests/unit/test_checkpoint_reader.py
READS_INDEXES = "recdistill/serve.py"
MODULES = {"pickle", "cPickle", "_pickle", "shelve", "marshal", "joblib", "dill", "cloudpickle", "xml", "telnetlib"}
CALLS = {"eval", "exec", "compile", "__import__"}
NAMES = {  # as they are written, whatever module they come from
    "yaml.load": "yaml.safe_load reads data alone",
    "yaml.load_all": "yaml.safe_load reads data alone",
    "yaml.safe_load": "recdistill.yamlfile has limits, and the words of YAML 1.2",
    "yaml.full_load": "builds objects",
    "yaml.unsafe_load": "builds objects",
    "yaml.FullLoader": "builds objects",
    "yaml.UnsafeLoader": "builds objects",
    "yaml.Loader": "builds objects",
    "os.system": "a shell",
    "os.popen": "a shell",
    "tempfile.mktemp": "a name that another process may take",
    "torch.hub": "code of other machines",
    "shutil.unpack_archive": "no filter",
    "pickle.load": "runs what it reads",
    "pickle.loads": "runs what it reads",
    "pd.read_pickle": "runs what it reads",
}
METHODS = {"extractall": "writes where the archive says", "extract": "writes where the archive says"}
ANYWHERE = re.compile(r"0\.0\.0\.0|--host[ =]+(?:::|\*)|INADDR_ANY")


@cache
def parsed() -> dict[str, ast.Module]:
    """Return every source by its name; a test for each would take longer than the reading does."""
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def word(call: ast.Call, name: str) -> object:
    """Return the constant that a call gives an argument by name; None where it gives none."""
    return next((getattr(k.value, "value", "unknown") for k in call.keywords if k.arg == name), None)


def dangers(tree: ast.AST, where: str) -> Iterator[str]:
    """Yield what in a source must not be there."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            bad = {name.split(".")[0] for name in named} & MODULES
            if bad - ({"pickle"} if where == READS_PICKLES else set()):
                yield f"line {line}: imports {bad}"
        name = dotted(node)
        if name in NAMES:
            yield f"line {line}: {name}: {NAMES[name]}"
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        if called in CALLS:
            yield f"line {line}: {called}"
        if called.endswith("torch.load") and word(node, "weights_only") is not True:
            yield f"line {line}: torch.load without weights_only=True"
        if called.endswith("np.load") and word(node, "allow_pickle") not in (None, False):
            yield f"line {line}: np.load that may unpickle"
        if word(node, "shell") not in (None, False):
            yield f"line {line}: a shell"
        if called.startswith(("zip", "tar", "archive")) and called.split(".")[-1] in METHODS:
            yield f"line {line}: {called}: {METHODS[called.split('.')[-1]]}"
        if called.endswith("faiss.read_index") and where != READS_INDEXES:
            yield f"line {line}: faiss.read_index without its limits: use recdistill.serve.read_index"
        if called.endswith("Environment") and "jinja" in ast.dump(tree) and word(node, "autoescape") is not True:
            yield f"line {line}: a page without escapes"


def test_nothing_that_is_read_is_run() -> None:
    found = {name: list(dangers(tree, name)) for name, tree in parsed().items()}
    assert {name: bad for name, bad in found.items() if bad} == {}
    assert len(found) > 200


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from shelve import open",
        "import torch\ntorch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=given)",
        "yaml.load(t, Loader=yaml.SafeLoader)",
        "yaml.compose(t, Loader=yaml.Loader)",
        "yaml.safe_load(t)",
        "eval(t)",
        "exec(t)",
        "subprocess.run(c, shell=True)",
        "os.system(c)",
        "zipped.extractall(p)",
        "tar.extract(n)",
        "faiss.read_index(p)",
        "import jinja2\njinja2.Environment(loader=x)",
    ],
)
def test_each_danger_would_be_seen(source: str) -> None:
    assert list(dangers(ast.parse(source), "recdistill/other.py"))


def test_numpy_reads_no_pickle_unless_told_to() -> None:
    assert inspect.signature(np.load).parameters["allow_pickle"].default is False


def test_an_index_is_read_within_limits_alone() -> None:
    tree = ast.parse((ROOT / READS_INDEXES).read_text())
    readers = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and "faiss.read_index" in ast.unparse(f)]
    assert [f.name for f in readers] == ["read_index"]
    body = ast.unparse(readers[0])
    for limit in ("set_deserialization_vector_byte_limit", "set_deserialization_loop_limit"):
        assert body.index(limit) < body.index("faiss.read_index(")


def test_no_template_takes_text_for_markup() -> None:
    for path in TEMPLATES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape\s+false|Markup", text), path.name
        drawn = re.findall(r"\{\{[^}]*\|\s*svg\s*\}\}", text)  # what recdistill.plots drew, of labels that it escapes
        assert all("f.svg" in one for one in drawn), path.name
    assert TEMPLATES


def test_no_server_listens_to_other_machines_unless_it_is_asked_to() -> None:
    found = []
    for path in [*SOURCES, *(text for text in TEXTS if text.is_file())]:
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        found += [f"{path.name}:{n}: {line.strip()}" for n, line in lines if ANYWHERE.search(line)]
    assert found == []
    assert ANYWHERE.search("mlflow server --host 0.0.0.0")


def test_a_host_is_loopback_where_none_is_named() -> None:
    for name, tree in parsed().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            every = node.args.posonlyargs + node.args.args
            pairs = [*zip(every[len(every) - len(node.args.defaults) :], node.args.defaults, strict=True)]
            pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
            for argument, default in pairs:
                if argument.arg in ("host", "bind", "address") and isinstance(default, ast.Constant):
                    assert default.value in ("127.0.0.1", "localhost", "::1", None), f"{name}: {node.name}"


def test_every_test_that_the_threat_model_names_is_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    defined = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 5
    assert {name for name in named if f"def {name}(" not in defined} == set()
    assert {path for path in re.findall(r"`(tests/[\w/.]+)`", text) if not (ROOT / path).exists()} == set()
