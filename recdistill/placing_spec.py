"""What a user writes about the places of tables; free of torch, so that checking a file is quick."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recdistill.models.placement import Layout
from recdistill.spec import Spec

GB = 10**9
TablesSpec = Layout | dict[Literal["user", "item"], Layout]
Gigabytes = Annotated[float, Field(gt=0)]


class TopologySpec(Spec):
    """The memory that tables may be laid in, in gigabytes of 10^9 bytes."""

    hbm_gb: Gigabytes | None = None
    """Of one GPU."""
    ddr_gb: Gigabytes | None = None
    """Of one host, which its processes share."""

    @property
    def hbm(self) -> int | None:
        return None if self.hbm_gb is None else int(self.hbm_gb * GB)

    @property
    def ddr(self) -> int | None:
        return None if self.ddr_gb is None else int(self.ddr_gb * GB)


class CacheSpec(Spec):
    """Tables in the host's memory, read by the GPU through a cache of rows."""

    load_factor: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of a table's rows that its GPU holds; 0 is none: every row is read where it lies."""
