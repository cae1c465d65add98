"""Every error a user can meet, with the exit code a scheduler reads.

RecdistillError           what happened, where, how to fix it
|-- ConfigError      2    the configuration is wrong; lists every problem at once
|-- DataError        3    a log, feature table or label file breaks its contract
|-- GateRejected     4    the student was registered, but its gates did not let it serve
|-- ArtifactError    5    an artifact is missing, truncated, tampered with, too new, or locked
`-- StageError       1    a stage failed; the cause is chained
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RecdistillError(Exception):
    """A failure that the user can act on: `what` happened, `where`, and how to `fix` it."""

    exit_code = 1
    shared = False  # raised by rank 0, which says it, and passed on to the others

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  fix: {self.fix}" if self.fix else head


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a configuration: its place (`file:line:col` or `--set`), dotted path and reason."""

    where: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.path}: {self.reason}" if self.path else f"{self.where}: {self.reason}"


class ConfigError(RecdistillError):
    """The configuration is wrong; `problems` holds every one of them."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | str, *, where: str | None = None, fix: str | None = None) -> None:
        self.problems = [Problem(where or "config", "", problems)] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(map(str, self.problems)), fix=fix)


class DataError(RecdistillError):
    """Input data breaks its contract: names the file, the column, how many rows, and the first of them."""

    exit_code = 3


class GateRejected(RecdistillError):
    """The candidate stays registered, but its gates refuse the alias `champion`."""

    exit_code = 4

    def __init__(
        self, what: str, *, reasons: Sequence[str] = (), fix: str | None = None, report: str | None = None
    ) -> None:
        self.reasons, self.report = list(reasons), report  # the directory of the report that says why, if there is one
        super().__init__("\n".join([what, *(f"  - {r}" for r in self.reasons)]), fix=fix)


class ArtifactError(RecdistillError):
    """An artifact is missing, truncated, tampered with, written by a newer version, or locked by another run."""

    exit_code = 5
    damaged = False  # it is there, and is not what was written


class StageError(RecdistillError):
    """A stage failed for a reason that is not one of the above; the cause is chained."""

    exit_code = 1
