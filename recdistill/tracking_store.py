"""The MLflow store: opened, created once by whoever comes first, written to again where two write at once."""

from __future__ import annotations

import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from recdistill.errors import ArtifactError, StageError
from recdistill.masking import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW_ENV = {
    # Set before mlflow is first imported, unless the user has set them: it reads them then.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a stray uv.lock would decide what the model requires
    "MLFLOW_LOG_UV_FILES": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # seven, with growing pauses, look like a hang
}
REACH = "check exec.mlflow, and that the database or server it names is up and writable"
SQLITE, POSTGRES = "sqlite:///", "postgresql"
ATTEMPTS = 6


def initialise(uri: str, lock_dir: Path | None = None) -> None:
    """Create or migrate the store at `uri`, once, whoever comes first.

    MLflow lets two processes migrate one new database at a time and both fail, so they queue: on a lock beside an
    SQLite file, on one in a PostgreSQL database, else on a file in `lock_dir`. A server has done it before it answers.
    Raises StageError if the store cannot be reached, ArtifactError if its file is no database.
    """
    file = sqlite_file(uri)
    lock = file.with_name(f"{file.name}.lock") if file else lock_dir / "mlflow.lock" if lock_dir else None
    with ExitStack() as stack:
        stack.enter_context(_ours(uri))
        if lock is not None:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(lock))
        if uri.startswith(POSTGRES):
            stack.enter_context(_alone(uri))
        client = stack.enter_context(store(uri))
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)


@contextmanager
def _alone(uri: str) -> Generator[None, None, None]:
    """Hold a lock in the PostgreSQL database itself: machines share that, and no file."""
    from sqlalchemy import NullPool, create_engine, text

    try:
        engine = create_engine(uri, poolclass=NullPool)
    except ModuleNotFoundError as cause:
        fix = "install it, such as psycopg[binary] for postgresql+psycopg://"
        raise StageError(f"the database's driver is not installed: {cause}", where=shown(uri), fix=fix) from cause
    with engine.connect() as connection:  # closed, it lets the lock go
        connection.execute(text("SELECT pg_advisory_lock(hashtext('recdistill'))"))
        yield


@contextmanager
def store(uri: str) -> Generator[MlflowClient, None, None]:
    """Yield a client of the tracking and registry store at `uri`, with MLflow's failures turned into ours."""
    _check_sqlite(uri)
    with _ours(uri), warnings.catch_warnings():
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"mlflow\.")  # it warns of its own type hints, whoever asks
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _ours(uri: str) -> Generator[None, None, None]:
    """Turn the failures of MLflow, of its database and of the driver into ours."""
    from mlflow import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as cause:
        if cause.error_code == "RESOURCE_DOES_NOT_EXIST":
            fix = "name a model and version that `recdistill show` lists"
            raise ArtifactError(masked(cause.message), where=shown(uri), fix=fix) from cause
        raise StageError(masked(f"MLflow: {cause.message}"), where=shown(uri), fix=REACH) from cause
    except (SQLAlchemyError, OSError) as cause:
        text = masked(f"MLflow's store failed: {str(cause).splitlines()[0]}")
        raise StageError(text, where=shown(uri), fix=REACH) from cause


def shown(uri: str) -> str:
    """Return `uri` as it may be printed and stored: without a password."""
    return masked(uri)


def insist(write: Callable[[], object]) -> None:
    """Make one write, again if another process made the same one first.

    MLflow looks a tag or alias up and inserts it if absent, so two first writers collide on its key; the second
    attempt finds the row and updates it.
    """
    from mlflow import MlflowException

    for attempt in range(ATTEMPTS):
        try:
            write()
            return
        except MlflowException as cause:
            if cause.error_code == "RESOURCE_DOES_NOT_EXIST" or attempt + 1 == ATTEMPTS:
                raise
            time.sleep(0.02 * 2**attempt)


@contextmanager
def fluent(uri: str) -> Generator[None, None, None]:
    """Point MLflow's global functions at `uri` inside the block, and back after it."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite URI, None for a server or another database."""
    return Path(uri[len(SQLITE) :]).resolve() if uri.startswith(SQLITE) else None


def _check_sqlite(uri: str) -> None:
    """Look at the file before MLflow does, which would retry a broken one for minutes."""
    file = sqlite_file(uri)
    if file is None or not file.exists() or not file.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=20)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as cause:
        if "locked" in str(cause):
            fix = "wait until it is done, or end it, and run the same command again"
            raise StageError("another process keeps the database to itself", where=str(file), fix=fix) from cause
        fix = "restore it from a copy, or move it away to start an empty registry"
        raise ArtifactError(f"not an SQLite database ({cause})", where=str(file), fix=fix) from cause
