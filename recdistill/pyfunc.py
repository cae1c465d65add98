"""A bundle as a model that MLflow serves: what `log_model` and `save_model` are told of it."""

from __future__ import annotations

import shlex
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from recdistill.bundle import Bundle, model_code, open_bundle
from recdistill.tracking import signature

REQUIREMENTS = ("mlflow", "numpy", "faiss-cpu", "safetensors", "pyarrow", "pandas")


def model_parts(opened: Bundle, folder: Path) -> dict[str, Any]:
    """Return the arguments by which MLflow packs the bundle `opened`; its code is written to `folder`."""
    return {
        "python_model": str(model_code(folder)),
        "artifacts": {"bundle": str(opened.path)},
        "signature": signature(opened),
        "pip_requirements": [f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
    }


def save_model(opened: Bundle, out: Path) -> Path:
    """Write the bundle `opened` as a model to the directory `out`, as the registry would hold it.

    Returns the bundle's place in it. All code in it is of this package.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own type hints, and gives advice on input examples
        import mlflow

        code = out.with_name(f"{out.name}.code")
        code.mkdir(parents=True)
        mlflow.pyfunc.save_model(path=str(out), **model_parts(opened, code))
    return out / "artifacts" / opened.path.name


def save_to_serve(bundle: Path, out: Path, *, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Write the model of `bundle` to the directory `out`, as the registry would hold it.

    Returns the command by which `mlflow models serve` serves it at `port`, and its environment. Raises ArtifactError if
    the bundle is not whole.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.pyfunc import scoring_server

        save_model(open_bundle(bundle), out)
        get_cmd: Any = scoring_server.get_cmd  # whose annotations mistake the host for a number
        line, environment = get_cmd(str(out), port=port, host=host, nworkers=1)
    return [sys.executable, "-m", *shlex.split(line)], environment  # uvicorn of this environment, wherever that lies
