from __future__ import annotations

import pytest

from pipelines import machine
from pipelines.doctor import Check, gpu, native, python, simd, triple, versions

GOOD = {"torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu": "1.8.0+cpushim", "fbgemm-gpu-cpu": "1.8.0"}
CUDA = {"torch": "2.13.0+cu130", "torchrec": "1.8.0", "fbgemm-gpu": "1.8.0"}


def states(checks: list[Check]) -> dict[str, str]:
    return {c.name: c.state for c in checks}


def test_ranges_are_checked_against_what_is_installed() -> None:
    requires = ["polars<3,>=2.1", "PyYAML>=6", "mlflow>=3.17", "pytest>=9; extra == 'dev'", "ruff>=1; extra == 'dev'"]
    checks = versions({"polars": "1.39.0", "pyyaml": "6.0.3", "ruff": "0.17.0"}, requires)
    assert states(checks) == {"polars": "fail", "PyYAML": "ok", "mlflow": "fail", "ruff": "warn"}
    assert checks[0].value == "1.39.0, outside <3,>=2.1"
    assert checks[0].todo == "pip install 'polars<3,>=2.1'"
    assert checks[2].value == "missing"


def test_a_source_tree_without_metadata_is_a_warning() -> None:
    assert states(versions({}, [])) == {"recdistill": "warn"}


@pytest.mark.parametrize(
    ("found", "driver", "expected"),
    [
        (GOOD, False, {"versions that fit": "ok", "fbgemm build": "ok"}),
        (CUDA, True, {"versions that fit": "ok", "fbgemm build": "ok"}),
        (GOOD, True, {"versions that fit": "ok", "fbgemm build": "warn"}),
        (CUDA, False, {"versions that fit": "ok", "fbgemm build": "fail"}),
        (GOOD | {"fbgemm-gpu": "1.8.0"}, False, {"versions that fit": "ok", "fbgemm build": "fail"}),
        (GOOD | {"fbgemm-gpu": "1.9.0"}, False, {"versions that fit": "fail", "fbgemm build": "fail"}),
        (GOOD | {"torch": "2.14.1"}, False, {"versions that fit": "fail", "fbgemm build": "ok"}),
        (GOOD | {"torch": "2.130.0"}, False, {"versions that fit": "fail", "fbgemm build": "ok"}),
        ({"torch": "2.13.0", "torchrec": "1.8.0"}, False, {"versions that fit": "fail"}),
        ({}, False, {"versions that fit": "fail"}),
    ],
)
def test_the_triple_and_its_build(found: dict[str, str], driver: bool, expected: dict[str, str]) -> None:
    checks = triple(found, driver=driver)
    assert states(checks) == expected
    assert all(c.todo for c in checks if c.state != "ok")


def test_the_advice_names_the_build_for_this_machine() -> None:
    assert "fbgemm-gpu-cpu==1.8.0" in triple({}, driver=False)[0].todo
    assert "fbgemm-gpu==1.8.0" in triple({}, driver=True)[0].todo


@pytest.mark.parametrize(
    ("error", "todo"),
    [
        ("OSError: libnvidia-ml.so.1: cannot open shared object file", "fbgemm-gpu-cpu"),
        ("ImportError: fbgemm.so: undefined symbol: _ZN3c10", "mixed"),
        ("OSError: Could not load this library: fbgemm_gpu_config.so", "mixed"),
        ("ModuleNotFoundError: No module named 'torchrec'", "reinstall"),
    ],
)
def test_an_import_that_fails_says_what_to_do(error: str, todo: str) -> None:
    check = native({"error": error})
    assert (check.state, check.value) == ("fail", error)
    assert todo in check.todo


@pytest.mark.parametrize(
    ("driver", "torch", "state"),
    [
        (None, {"cuda": None, "gpus": []}, "ok"),
        (None, {"cuda": "13.0", "gpus": []}, "ok"),
        ("580.1", {"cuda": "13.0", "gpus": ["H200"]}, "ok"),
        ("580.1", {"cuda": None, "gpus": []}, "warn"),
        ("450.1", {"cuda": "13.0", "gpus": []}, "fail"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_pointed_out(driver: str | None, torch: dict, state: str) -> None:
    assert gpu(driver, torch).state == state


def test_a_gpu_is_not_judged_where_torch_cannot_be_imported() -> None:
    check = gpu("580.1", {"error": "ImportError"})
    assert check.state == "warn"
    assert "driver 580.1" in check.value
    assert "CPU build" not in check.value


@pytest.mark.parametrize(
    ("faiss", "flags", "state"),
    [
        ({"simd": "AVX512"}, "AVX512", "ok"),
        ({"simd": "NONE"}, "AVX2", "warn"),
        ({"simd": "NONE"}, "none", "ok"),
        ({"error": "ImportError: x"}, "AVX2", "fail"),
    ],
)
def test_an_index_that_ignores_the_processor_is_pointed_out(faiss: dict, flags: str, state: str) -> None:
    assert simd(faiss, flags).state == state


def test_an_interpreter_out_of_range_fails() -> None:
    assert python(">=3.11").state == "ok"
    assert python(">=99").state == "fail"


@pytest.mark.parametrize(
    ("text", "level"),
    [("flags : fpu avx2 avx512f", "AVX512"), ("flags : fpu avx2", "AVX2"), ("Features : asimd", "NEON"), ("x", "none")],
)
def test_the_processor_flags(tmp_path, text: str, level: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert machine.cpu_flags(file) == level


def test_files_that_another_system_lacks(tmp_path) -> None:
    assert machine.cpu_flags(tmp_path / "none") == "unknown"
    assert machine.nvidia_driver(tmp_path / "none") is None
    assert machine.cpu_quota(tmp_path / "none") is None


def test_the_driver_and_the_quota(tmp_path) -> None:
    driver, quota = tmp_path / "version", tmp_path / "cpu.max"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\n")
    quota.write_text("150000 100000\n")
    assert machine.nvidia_driver(driver) == "580.65.06"
    assert machine.cpu_quota(quota) == 1.5
    quota.write_text("max 100000\n")
    assert machine.cpu_quota(quota) is None


def test_a_probe_returns_its_last_line_or_the_reason() -> None:
    assert machine.probe("print('noise'); print('{\"a\": 1}')") == {"a": 1}
    assert machine.probe("raise ValueError('no\\nlibrary')") == {"error": "library"}
    assert machine.probe("import os; os._exit(7)") == {"error": "exit 7"}
