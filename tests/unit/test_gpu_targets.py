"""What wants a GPU says so in one line where there is none, and is no failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: make gpu-check, make gpu-bench")
@pytest.mark.parametrize("script", ["gpu_check.py", "gpu.py"])
def test_without_a_gpu_there_is_one_line(script, tmp_path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "no GPU here: skipped\n"), done.stderr
