"""Facts about this installation and machine, gathered without importing a native library into this process."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

TORCH = """
import json, torch, fbgemm_gpu, torchrec
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
ebc = EmbeddingBagCollection([EmbeddingBagConfig(name="t", embedding_dim=4, num_embeddings=2, feature_names=["f"])])
ebc(KeyedJaggedTensor.from_lengths_sync(["f"], torch.tensor([1]), torch.tensor([1])))
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice, EmbeddingLocation, SplitTableBatchedEmbeddingBagsCodegen as Tables)
tables = Tables([(2, 4, EmbeddingLocation.HOST, ComputeDevice.CPU)], device=torch.device("cpu"))
tables(torch.tensor([1]), torch.tensor([0, 1]))
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"cuda": torch.version.cuda, "gpus": gpus, "threads": torch.get_num_threads()}))
"""
FAISS = """
import json, faiss
print(json.dumps({"simd": faiss.SIMDConfig.get_level_name()}))
"""


def probe(code: str) -> dict[str, Any]:
    """Run `code` in a fresh interpreter and return the JSON of its last line, or {"error": why it could not}."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        return {"error": "no answer within 300 s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> str:
    """Return the widest vector instructions of this processor: AVX512, AVX2, NEON, none, or unknown."""
    if not path.is_file():
        return "unknown"
    words = set(path.read_text().split())
    known = {"avx512f": "AVX512", "avx2": "AVX2", "asimd": "NEON"}
    return next((level for flag, level in known.items() if flag in words), "none")


def nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of the loaded NVIDIA driver, or None."""
    if not path.is_file():
        return None
    words = path.read_text().split()
    return next((w for w in words if w[0].isdigit() and "." in w), "unknown")


def cpu_quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Return how many cores worth of time this container may use, or None where there is no limit."""
    words = path.read_text().split() if path.is_file() else ["max"]
    return None if words[0] == "max" else int(words[0]) / int(words[1])


def installed() -> dict[str, str]:
    """Return the version of every installed distribution, by its normalised name."""
    return {normal(d.metadata["Name"]): d.version for d in metadata.distributions() if d.metadata["Name"]}


def requires() -> list[str]:
    """Return what recdistill declares that it needs; nothing where it is not installed as a distribution."""
    try:
        return metadata.requires("recdistill") or []
    except metadata.PackageNotFoundError:
        return []


def requires_python() -> str:
    """Return the Python versions that recdistill declares."""
    try:
        return metadata.metadata("recdistill")["Requires-Python"] or ">=3.11"
    except (metadata.PackageNotFoundError, KeyError):
        return ">=3.11"


def normal(name: str) -> str:
    """Return the form of a distribution name in which all its spellings are equal."""
    return name.lower().replace("_", "-").replace(".", "-")
