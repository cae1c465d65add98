"""The machine that service times hold for: its processor, its threads, what is loaded, how busy it is."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.errors import ConfigError

FIXED = np.random.default_rng(0).random(20_000)
SAMPLES = 10


def calibration(samples: int = SAMPLES) -> list[float]:
    """Return the seconds that the same work took, again and again."""
    times = []
    for _ in range(samples):
        started = time.perf_counter()
        np.sort(FIXED)
        times.append(time.perf_counter() - started)
    return times


def set_threads(threads: int) -> dict[str, int]:
    """Let FAISS and linear algebra use as many threads; returns the threads of each pool that is loaded.

    Raises RuntimeError if a pool keeps another number, or torch is loaded, whose threads FAISS would share.
    """
    import faiss
    from threadpoolctl import threadpool_info, threadpool_limits

    faiss.omp_set_num_threads(threads)
    threadpool_limits(threads)
    loaded = sorted((str(p["prefix"]), int(p["num_threads"])) for p in threadpool_info())
    pools = {f"{n}:{prefix}": count for n, (prefix, count) in enumerate(loaded, 1)}
    if odd := {name: n for name, n in pools.items() if n != threads}:
        raise RuntimeError(f"asked for {threads} threads, and these pools have others: {odd}")
    if "torch" in sys.modules:
        raise RuntimeError("torch is loaded in the process that measures")
    return pools


def set_simd(level: str | None) -> str:
    """Compute by the SIMD instructions named `level`, by FAISS's own choice if None; returns which those are.

    FAISS chooses the best of the processor, or what the variable FAISS_SIMD_LEVEL says. Raises ConfigError if there
    are none of that name, or the processor lacks them.
    """
    import faiss

    library: Any = faiss  # its stubs leave this out
    if level is not None:
        known = {library.to_string(n): n for n in range(library.SIMDLevel_COUNT)}
        able = [name for name, n in known.items() if library.SIMDConfig.is_simd_level_available(n)]
        if level not in able:
            raise ConfigError(f"no SIMD level {level!r} here", where="simd", fix=f"take one of {', '.join(able)}")
        library.SIMDConfig.set_level(known[level])
    return str(library.SIMDConfig.get_level_name())


def facts(request: Mapping[str, Any], pools: Mapping[str, int]) -> dict[str, Any]:
    """Return what to know of the machine and the process beside service times."""
    import faiss

    library: Any = faiss
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "allowed_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "governor": _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "simd": str(library.SIMDConfig.get_level_name()),
        "faiss": faiss.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "faiss_threads": faiss.omp_get_max_threads(),
        "pools": dict(pools),
        "torch_loaded": "torch" in sys.modules,
        "k": request["k"],
        "batch": 1,
        "threads": request["threads"],
        "repeats": request["repeats"],
        "warmup": request["warmup"],
        "note": "closed loop, batch 1: service times, not what users wait for under load",
    }


def _cpu() -> str:
    lines = (_text(Path("/proc/cpuinfo")) or "").splitlines()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.processor())


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
