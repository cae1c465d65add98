"""Arrows point one way: import levels, walls round the heavy libraries, and the size of files and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("recdistill/**/*.py"), *ROOT.glob("pipelines/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))

# A module imports from its own level and those before it; a package stands for all of its modules.
LEVELS = (
    {"causes", "errors", "masking", "threads", "types", "results", "spec"},
    {"agree", "finite", "manifest", "pulse", "store", "whole", "world", "topk", "topk_kernels", "yamledit", "yamlfile"}
    | {"yamlwords"},
    {"data", "models", "distill", "labels", "label_facts", "metrics"},
    {
        "train",
        "fit",
        "labelling",
        "export",
        "checkpoint",
        "teachers",
        "transfer",
        "scoring",
        "evaluate",
        "diagnose",
        "serve",
        "serve_gate",
        "serve_requests",
        "serve_search",
        "serve_tables",
        "bundle",
        "ann",
        "ann_auto",
        "ann_tune",
    }
    | {"external", "latency", "teacher_latency", "gates", "tracking", "registry", "explain"}
    | {"registry_verdict", "guarded", "registry_served", "scoring_app"}
    | {"registry_signed", "signing", "checkpoint_reader", "serve_whole"}
    | {
        "held",
        "latency_child",
        "latency_machine",
        "latency_stats",
        "turns",
        "throughput",
        "http_latency",
        "latency_spec",
        "pyfunc",
    }
    | {"candidates", "coverage", "shards", "beside", "gated", "contest", "gates_measured", "gates_spec"}
    | {
        "begin",
        "guide",
        "keeper",
        "ladder",
        "lessons",
        "settle",
        "parts",
        "placing",
        "placing_spec",
        "start",
        "subclasses",
        "taught",
        "teaching",
        "trust",
    }
    | {"spoil", "folds", "heldout", "mixture", "calibrate", "reliability", "members", "ensemble", "recipes", "gains"}
    | {"axes", "delta", "refresh", "subclasses", "yesterday", "yesterday_spec"}
    | {"daily_drift", "daily_spec", "moved", "registry_across", "registry_versions", "tracking_store"},
    {"diagnosis", "plots", "report", "report_form", "report_markdown", "report_page", "report_view", "report_words"}
    | {"report_defer", "checks_yesterday", "plot_names", "report_refresh", "yesterday_run", "yesterday_stages"}
    | {"checks_daily", "report_daily"}
    | {
        "plots_surface",
        "report_champion",
        "report_serving",
        "report_surface",
        "serving_limits",
        "serving_plan",
        "serving_words",
        "surface_form",
    }
    | {
        "config",
        "checks",
        "checks_defer",
        "checks_gates",
        "checks_nested",
        "checks_subclass",
        "checks_surface",
        "checks_tables",
        "checks_taught",
        "checks_teacher",
        "checks_terms",
        "checks_transfer",
        "stages",
        "surface",
        "measure",
        "timed",
        "deferral",
        "deferral_crowd",
        "methods",
    },
)
WALLS = {
    "torchrec": {
        "recdistill/world.py",
        "recdistill/models/plan.py",
        "recdistill/models/sharding.py",
        "recdistill/models/tables.py",
    },
    "mlflow": {
        "recdistill/pyfunc.py",
        "recdistill/registry.py",
        "recdistill/registry_versions.py",
        "recdistill/scoring_app.py",
        "recdistill/tracking.py",
        "recdistill/tracking_store.py",
        "recdistill/serve.py",
    },
    "faiss": {
        f"recdistill/{each}.py"
        for each in ("ann", "ann_tune", "latency_child", "latency_machine", "serve", "serve_search", "throughput")
    },
}
FILE, FUNCTION = 300, 60


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            module = node.module or ""
            split = module in {"recdistill", "pipelines"}
            yield from ((node.lineno, f"{module}.{a.name}" if split else module) for a in node.names)


def level(module: str) -> int | None:
    """Return the level of `recdistill.x.y`, None for the package itself and for what is not in it."""
    parts = module.split(".")
    if parts[0] != "recdistill" or len(parts) == 1:
        return None
    return next((n for n, names in enumerate(LEVELS) if parts[1] in names), None)


def test_every_module_has_a_level() -> None:
    modules = {p.relative_to(ROOT / "recdistill").parts[0].removesuffix(".py") for p in ROOT.glob("recdistill/**/*.py")}
    assert modules - {"__init__"} - set.union(*LEVELS) == set()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    here = level(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for line, module in imports(ast.parse(path.read_text())):
        if name(path).startswith("recdistill/"):
            assert not module.startswith("pipelines"), f"line {line}: the library does not know its command line"
        there = level(module) if module.startswith("recdistill.") else None
        if here is not None and there is not None:
            assert there <= here, f"line {line}: {module} stands above"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_walls_stand_round_the_heavy_libraries(path: Path) -> None:
    for line, module in imports(ast.parse(path.read_text())):
        allowed = WALLS.get(module.split(".")[0])
        assert allowed is None or name(path) in allowed, f"line {line}: {module} belongs behind {allowed}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_only_the_world_and_the_command_line_read_the_environment(path: Path) -> None:
    if name(path) == "recdistill/world.py" or name(path).startswith("pipelines/"):
        return
    found = [n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute) and _reads(n)]
    assert not found, f"os.environ on lines {found}"


def _reads(node: ast.Attribute) -> bool:
    return node.attr in {"environ", "getenv"} and isinstance(node.value, ast.Name) and node.value.id == "os"


@pytest.mark.parametrize("path", [p for p in SOURCES if name(p).startswith("recdistill/")], ids=name)
def test_the_library_does_not_print(path: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    found = [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id in {"print", "breakpoint"}]
    assert not found, f"print on lines {found}"


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name)
def test_files_and_functions_are_short(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= FILE
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = lines[node.lineno - 1 : node.end_lineno]
            long = len(body) > FUNCTION and not any("# long:" in line for line in body)
            assert not long, f"{node.name}: {len(body)} lines; cut it, or say why with `# long: reason`"


def test_files_are_short_as_a_rule() -> None:
    sizes = sorted(len(p.read_text().splitlines()) for p in SOURCES)
    assert sizes[len(sizes) // 2] < 150


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name)
def test_code_is_ascii(path: Path) -> None:
    odd = [n for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if not line.isascii()]
    assert not odd, f"lines {odd}"


def test_the_levels_see_what_they_should() -> None:
    tree = ast.parse("from recdistill import report\nfrom recdistill.data.log import scan\nimport torchrec.modules")
    found = [module for _, module in imports(tree)]
    assert found == ["recdistill.report", "recdistill.data.log", "torchrec.modules"]
    assert [level(m) for m in found[:2]] == [4, 2]
