"""The app by which MLflow answers for a model, in the process that serves it; it loads what serving needs alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any


def scoring_app(model: Path) -> Any:
    """Return the ASGI app that `mlflow models serve` runs, for the model in a directory, once it has answered.

    The model is code that runs here: who calls this knows where it comes from.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of its own type hints
        import pandas as pd
        from mlflow.pyfunc import scoring_server

        loaded: Any = scoring_server.load_model(str(model))
        known = next(iter(loaded.unwrap_python_model().bundle.user_row))
        loaded.predict(pd.DataFrame({"user_id": [known]}))  # one that is read but does not answer is not to serve
    return scoring_server.init(loaded)
