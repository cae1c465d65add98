"""What of the ways to serve a student is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import PositiveInt

from recdistill.spec import Spec


class SurfaceSpec(Spec):
    """Widths by factories by runtime parameters, at the metric and length that `report` names first."""

    widths: Literal["auto"] | Annotated[tuple[PositiveInt, ...], MinLen(1)] = "auto"
    """How many of the first numbers of a vector serve; auto: all widths that the student learned to serve at."""
    factories: Literal["auto"] | Annotated[tuple[Annotated[str, MinLen(1)], ...], MinLen(1)] = "auto"
    """FAISS index_factory strings beside exact search, which is always measured; auto: by catalogue size, one of each
    character: half the memory, a quarter, a graph, short codes that are refined, and an inverted file."""
    recall_k: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (10, 100)
    """Depths at which recall against exact search is measured; runtime parameters are chosen by the lowest."""
