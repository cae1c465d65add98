"""What a configuration can get wrong of where tables lie: it must not change what is learned, and must have effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from recdistill.yamlfile import KeyPath, dotted

if TYPE_CHECKING:
    from recdistill.config import Config

Finding = tuple[KeyPath, str]
OTHERS = ("column_wise", "grid", "data_parallel")  # in which row-wise Adagrad's sums are of other numbers


def tables_keep_meaning(config: Config) -> Iterator[Finding]:
    """Where a table lies must not change what is learned, and row-wise Adagrad keeps one sum for a whole row."""
    for at, layout in _layouts(config):
        for named, optimizer in _optimizers(config):
            if optimizer == "adam" and layout not in ("auto", "data_parallel"):
                yield at, f"{layout} has no {named} adam, which is of whole tables: use data_parallel"
            if optimizer == "rowwise_adagrad" and layout in OTHERS:
                yield at, f"{layout} is another algorithm with {named} rowwise_adagrad: use adagrad or sgd"


def memory_read(config: Config) -> Iterator[Finding]:
    """A GPU's memory and a cache on it are of runs on GPUs, and of tables that do not lie whole on every one."""
    how = config.exec
    if how.device == "cpu" and how.topology.hbm_gb is not None:
        yield ("exec", "topology", "hbm_gb"), "has no effect with exec.device cpu, which has no GPU: leave it out"
    if how.cache is None:
        return
    if how.device == "cpu":
        reason = "has no effect with exec.device cpu, where tables lie in the host's memory anyway: leave it out"
        yield ("exec", "cache"), reason
    for at, layout in _layouts(config):
        if layout == "data_parallel":
            yield ("exec", "cache"), f"has no effect with {dotted(at)} data_parallel, which is whole on every GPU"
    for named, optimizer in _optimizers(config):
        if optimizer == "adam":
            yield ("exec", "cache"), f"has no {named} adam, whose tables are whole on every GPU: use adagrad"


def rows_said(config: Config) -> Iterator[Finding]:
    """A bound on rows bounds something."""
    models: list[tuple[KeyPath, Any]] = [(("student",), config.student.model)]
    models += [(("teacher", *at), model) for at, model, _ in config.teacher.trained()]
    for at, model in models:
        said = getattr(model, "rows", None)
        if said is not None and said.users is None and said.items is None:
            yield (*at, "model", "rows"), "has no effect: it names neither users nor items; leave it out"


def _layouts(config: Config) -> list[tuple[KeyPath, str]]:
    said = config.exec.tables
    if isinstance(said, str):
        return [(("exec", "tables"), said)]
    return [(("exec", "tables", name), layout) for name, layout in said.items()]


def _optimizers(config: Config) -> Iterator[tuple[str, str]]:
    """Yield of each training of a run the optimizer, and where it is said."""
    yield "student.train.optimizer", config.student.train.optimizer
    for at, _, train in config.teacher.trained():
        yield dotted(("teacher", *at, "train", "optimizer")), train.optimizer


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (tables_keep_meaning, memory_read, rows_said)
