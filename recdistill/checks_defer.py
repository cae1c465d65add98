"""What a configuration can get wrong of asking the teacher at serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config

SETS = ("recall", "hit", "precision")  # what these count does not depend on the order of the first k


def deep_enough(config: Config) -> Iterator[Finding]:
    """What is shown comes from the list that is re-ranked, and an order is seen only by what reads it."""
    spec = config.defer
    if spec is None:
        return
    if spec.k > spec.depth:
        yield ("defer", "k"), f"{spec.k} is beyond the list, {spec.depth} deep: raise defer.depth"
    if spec.k == spec.depth and spec.metric in SETS:
        reason = f"is defer.k: another order of {spec.depth} items changes no {spec.metric}@{spec.k}; raise it"
        yield ("defer", "depth"), reason


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (deep_enough,)
