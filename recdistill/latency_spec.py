"""What a user writes about how service times are measured."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from pydantic import PositiveInt, model_validator

from recdistill.spec import Spec


class LatencySpec(Spec):
    """How the service times of a run are measured; left out, one query at a time, in the process alone."""

    queries: Annotated[int, Ge(100)] = 2000
    """Queries of each repeat, after 200 that are not timed."""
    repeats: Annotated[int, Ge(3)] = 5
    """Repeats, of whose percentiles the medians are reported."""
    batches: tuple[PositiveInt, ...] = ()
    """Also measure queries a second, asked as many at once, such as [1, 32, 256]."""
    threads: tuple[PositiveInt, ...] = (1,)
    """The numbers of threads that answer those batches."""
    http: bool = False
    """Also time requests to an MLflow scoring server of the bundle on loopback, which takes about 10 s to start."""

    @model_validator(mode="after")
    def _read(self) -> LatencySpec:
        if self.threads != (1,) and not self.batches:
            raise ValueError("threads has no effect without batches: single queries are answered by one thread")
        return self
