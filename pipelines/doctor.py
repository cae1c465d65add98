"""`recdistill doctor`: what is installed, whether it fits together, what the machine offers, and what to do if not.

The native libraries are imported in a process of their own, so that one that cannot be loaded is a row, not a crash.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines import machine

TORCH, FBGEMM = "2.13", "1.8"  # the only pair that TorchRec 1.8 was built against
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: its value, the verdict, and what to do unless it is ok."""

    name: str
    value: str
    state: Literal["ok", "warn", "fail"] = "ok"
    todo: str = ""


def examine(where: Path) -> list[Check]:
    """Look at this installation and machine; `where` is the directory whose disk will hold the artifacts."""
    found = machine.installed()
    torch, faiss = machine.probe(machine.TORCH), machine.probe(machine.FAISS)
    driver = machine.nvidia_driver()
    return [
        python(machine.requires_python()),
        *versions(found, machine.requires()),
        *triple(found, driver=driver is not None),
        native(torch),
        simd(faiss, machine.cpu_flags()),
        gpu(driver, torch),
        cores(),
        *room(where),
    ]


def python(wanted: str) -> Check:
    """Check the interpreter against `wanted`, such as ">=3.11"."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    if SpecifierSet(wanted).contains(version):
        return Check("python", version)
    return Check("python", version, "fail", f"make an environment with Python {wanted}")


def versions(found: Mapping[str, str], requires: Sequence[str]) -> list[Check]:
    """Check what is installed against the ranges that recdistill declares; extras count only where installed."""
    from packaging.requirements import Requirement

    if not requires:
        todo = "install it, so that its requirements can be checked: pip install -e ."
        return [Check("recdistill", "run from a source tree, not installed", "warn", todo)]
    checks = []
    for wanted in map(Requirement, requires):
        version = found.get(machine.normal(wanted.name))
        optional = wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})
        name, need = wanted.name, f"pip install '{wanted.name}{wanted.specifier}'"
        if version is None and not optional:
            checks.append(Check(name, "missing", "fail", need))
        elif version is not None and not wanted.specifier.contains(version, prereleases=True):
            checks.append(Check(name, f"{version}, outside {wanted.specifier}", "warn" if optional else "fail", need))
        elif version is not None and not optional:
            checks.append(Check(name, version))
    return checks


def triple(found: Mapping[str, str], *, driver: bool) -> list[Check]:
    """Check that torch, torchrec and fbgemm were built for each other, and that fbgemm's build suits the machine."""
    torch, torchrec = found.get("torch", "missing"), found.get("torchrec", "missing")
    cpu, cuda = found.get("fbgemm-gpu-cpu"), found.get("fbgemm-gpu")
    if cuda and cuda.endswith("+cpushim"):  # stands in for the CUDA build that torchrec's metadata asks for
        cuda = None
    values = f"torch {torch}, torchrec {torchrec}, fbgemm {cuda or cpu or 'missing'}"
    package = "fbgemm-gpu" if driver else "fbgemm-gpu-cpu"
    good = f"pip install torch=={TORCH}.0 torchrec=={FBGEMM}.0 {package}=={FBGEMM}.0"
    pair = [(torch, TORCH), (torchrec, FBGEMM), (cuda or cpu or "missing", FBGEMM)]
    fits = all(version.startswith(f"{wanted}.") for version, wanted in pair)
    checks = [Check("versions that fit", values, "ok" if fits else "fail", "" if fits else good)]
    if cpu and cuda:
        both = f"fbgemm-gpu {cuda} and fbgemm-gpu-cpu {cpu} own the same files"
        todo = f"pip uninstall fbgemm-gpu fbgemm-gpu-cpu, then {good}"
        checks.append(Check("fbgemm build", both, "fail", todo))
    elif cuda and not driver:
        value = "the CUDA build, which cannot be imported without the NVIDIA driver"
        todo = f"pip uninstall fbgemm-gpu, then pip install fbgemm-gpu-cpu=={FBGEMM}.0"
        checks.append(Check("fbgemm build", value, "fail", todo))
    elif cpu and driver:
        value = "the CPU build, though there is a GPU: embedding tables will not use it"
        todo = f"pip uninstall fbgemm-gpu-cpu, then {good}"
        checks.append(Check("fbgemm build", value, "warn", todo))
    elif cpu or cuda:
        checks.append(Check("fbgemm build", "CUDA" if cuda else "CPU"))
    return checks


def native(torch: Mapping[str, Any]) -> Check:
    """Check that torch, fbgemm and torchrec import and that a fused lookup runs; `torch` is what the probe said."""
    error = str(torch.get("error", ""))
    if not error:
        return Check("embedding kernels", f"work, {torch['threads']} threads")
    if "libnvidia-ml" in error or "libcuda" in error:
        todo = f"fbgemm-gpu needs the NVIDIA driver; without one: pip install fbgemm-gpu-cpu=={FBGEMM}.0"
    elif "undefined symbol" in error or "Could not load this library" in error:
        todo = "builds are mixed: reinstall the versions that fit, named above, with --force-reinstall --no-deps"
    else:
        todo = "reinstall the versions that fit, named above"
    return Check("embedding kernels", error, "fail", todo)


def simd(faiss: Mapping[str, Any], flags: str) -> Check:
    """Say which vector instructions the index will use; `flags` is what the processor has."""
    if "error" in faiss:
        return Check("SIMD", f"faiss cannot be imported: {faiss['error']}", "fail", "pip install 'faiss-cpu>=1.15,<2'")
    level = str(faiss["simd"])
    slow = level.upper() in ("NONE", "GENERIC") and flags != "none"
    todo = f"this processor has {flags}: unset FAISS_SIMD_LEVEL, or reinstall faiss-cpu"
    return Check("SIMD", f"faiss {level}, processor {flags}", "warn" if slow else "ok", todo if slow else "")


def gpu(driver: str | None, torch: Mapping[str, Any]) -> Check:
    """Say whether there is a GPU that torch can use."""
    if driver is not None and "error" in torch:
        return Check("GPU", f"driver {driver}; torch could not be asked", "warn", "repair the embedding kernels first")
    names, build = torch.get("gpus", []), torch.get("cuda")
    if driver is None:
        return Check("GPU", "none: everything runs on the CPU")
    if names:
        return Check("GPU", f"{', '.join(names)}; driver {driver}, CUDA {build}")
    if build is None:
        todo = f"to use it, install the CUDA build: pip install torch=={TORCH}.0 fbgemm-gpu=={FBGEMM}.0"
        return Check("GPU", f"driver {driver}, but this torch is a CPU build", "warn", todo)
    todo = f"install a driver for CUDA {build}, or set exec.device: cpu"
    return Check("GPU", f"driver {driver}, but torch (CUDA {build}) sees no GPU", "fail", todo)


def cores() -> Check:
    """Count the cores this process may use, which can be fewer than the machine has."""
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    quota = machine.cpu_quota()
    limit = f", limited to the time of {quota:g}" if quota is not None and quota < usable else ""
    few = quota is not None and quota < usable
    todo = f"set exec.threads: {max(1, int(quota or 1))}, so that threads do not wait for each other" if few else ""
    return Check("cores", f"{usable} of {total}{limit}", "warn" if few else "ok", todo)


def room(where: Path) -> list[Check]:
    """Look at free memory and at free disk under `where`."""
    import psutil

    memory, free = psutil.virtual_memory(), shutil.disk_usage(where).free
    available = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available"
    tight = "close other programs, or lower train.batch" if memory.available < 2 * GIB else ""
    full = "point exec.store at another disk" if free < 5 * GIB else ""
    return [
        Check("memory", available, "warn" if tight else "ok", tight),
        Check("disk", f"{free / GIB:.1f} GiB free", "warn" if full else "ok", full),
    ]
