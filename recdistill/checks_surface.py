"""What a configuration can get wrong of how the student serves: a width it did not learn, an index that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recdistill.errors import ConfigError, Problem
from recdistill.yamlfile import KeyPath

if TYPE_CHECKING:
    from recdistill.config import Config

Finding = tuple[KeyPath, str]


def index_buildable(config: Config) -> Iterator[Finding]:
    """FAISS must understand `index.factory`, which is better known now than after training."""
    width = config.index.width or config.student.model.dim
    if found := _impossible(config.index.factory, min(width, config.student.model.dim), config.index.params):
        yield ("index", found.where.rpartition(".")[2]), found.reason


def params_fit(config: Config) -> Iterator[Finding]:
    """Runtime parameters are of one kind of index; where they are given, none are chosen by a recall."""
    if config.index.params is None:
        return
    if config.index.factory == "auto":
        yield ("index", "params"), "are those of one kind of index, which `auto` leaves open: name index.factory too"
    if "min_recall" in config.index.model_fields_set:
        yield ("index", "min_recall"), "has no effect: index.params are given, so that none are chosen; leave it out"


def width_learned(config: Config) -> Iterator[Finding]:
    """The first numbers of a vector are a student only where the student learned to be one by them."""
    width = config.index.width
    if width == config.student.model.dim:
        yield ("index", "width"), f"has no effect: {width} is all that the student has; leave it out"
    elif width is not None and (reason := _not_learned(config, width)):
        yield ("index", "width"), reason


def surface_measurable(config: Config) -> Iterator[Finding]:
    """Every width of the surface is one that can serve, at which FAISS can build every factory."""
    surface, dim = config.surface, config.student.model.dim
    if surface is None:
        return
    widths = (*config.student.widths, dim) if surface.widths == "auto" else surface.widths
    named = {"widths": surface.widths, "factories": surface.factories, "recall_k": surface.recall_k}
    for name, values in named.items():
        if values != "auto" and len(set(values)) < len(values):
            yield ("surface", name), "names one of them twice, which would be measured twice to the same end"
    for width in () if surface.widths == "auto" else widths:
        if width != dim and (reason := _not_learned(config, width)):
            yield ("surface", "widths"), reason
    for factory in () if surface.factories == "auto" else surface.factories:
        found = (_impossible(factory, width) for width in widths if width <= dim)
        if problem := next((problem for problem in found if problem), None):
            yield ("surface", "factories"), problem.reason
    if config.report.metrics[0] in ("coverage", "popularity"):
        reason = f"has {config.report.metrics[0]} first, which is of all users together; the surface measures the first"
        yield ("report", "metrics"), f"{reason}: begin with ndcg, recall or another quality of each user's list"


def _not_learned(config: Config, width: int) -> str | None:
    """Return why the student cannot serve by its first `width` numbers, None where it can."""
    dim, learned = config.student.model.dim, config.student.widths
    if width > dim:
        return f"{width} is beyond student.model.dim, which is {dim}"
    if width in learned:
        return None
    known = f"it learned {', '.join(map(str, learned))}" if learned else "it learned none below its dim"
    return f"the student is none by its first {width} numbers ({known}): add {width} to student.model.nested"


def _impossible(factory: str, dim: int, params: str | None = None) -> Problem | None:
    """Return why FAISS cannot build `factory` of `dim` numbers, or set `params` of it, None where it can."""
    if factory == "auto":
        return None
    from recdistill.ann import check_factory

    try:
        check_factory(factory, dim, params)
    except ConfigError as error:
        return error.problems[0]
    return None


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    index_buildable,
    params_fit,
    width_learned,
    surface_measurable,
)
