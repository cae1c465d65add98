"""What a configuration can get wrong only as a whole: settings that contradict each other, or would have no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recdistill import (
    checks_daily,
    checks_defer,
    checks_gates,
    checks_nested,
    checks_subclass,
    checks_surface,
    checks_tables,
    checks_taught,
    checks_teacher,
    checks_terms,
    checks_transfer,
    checks_yesterday,
)
from recdistill.yamlfile import KeyPath

if TYPE_CHECKING:
    from recdistill.config import Config
    from recdistill.models.spec import ModelSpec, TrainSpec

Finding = tuple[KeyPath, str]  # where the reader should look, and what is wrong there


def checks(config: Config) -> list[Finding]:
    """Return every finding about `config`; none means that its settings fit each other."""
    return [finding for look in CHECKS for finding in look(config)]


def split_possible(config: Config) -> Iterator[Finding]:
    """A split by time needs times, and a given split needs to be given."""
    log, kind = config.log, config.split.kind
    parted = isinstance(log.path, dict) or log.split is not None
    if kind in ("global_time", "user_chronological", "leave_last") and log.time is None:
        yield ("log", "time"), f"required by split.kind {kind}: name the column, or use user_random or given"
    if kind == "given" and not parted:
        reason = "the log does not say its parts: name its column in log.split, or give log.path train and test"
        yield ("split", "kind"), reason
    if kind != "given" and parted:
        at = ("log", "split") if log.split is not None else ("log", "path")
        yield at, f"has no effect with split.kind {kind}: use `split: {{kind: given}}`"
    if kind == "given" and isinstance(log.path, dict) and "valid" in log.path:
        for name in sorted({"valid_fraction", "seed"} & config.split.model_fields_set):
            yield ("split", name), "has no effect: log.path names a valid part"


def labels_read(config: Config) -> Iterator[Finding]:
    """Labels are written for the terms of `distill`, and candidates only for a teacher that ranks."""
    if "labels" in config.model_fields_set and not config.distill:
        yield ("labels",), "has no effect without distill: add a term, or leave labels out"
    if config.labels.candidates is not None and not _ranks(config):
        reason = f"has no effect: a teacher of kind {config.teacher.model.kind} is scored over the whole catalogue"
        yield ("labels", "candidates"), reason
    if config.teacher.model.kind == "external" and "compute" in config.labels.model_fields_set:
        yield ("labels", "compute"), "has no effect: an external teacher comes with its scores; leave it out"


def labels_deep_enough(config: Config) -> Iterator[Finding]:
    """What is measured of the teacher must not ask for more than its lists hold."""
    depth = config.labels.depth
    if config.distill and max(config.report.k) > depth:
        yield ("report", "k"), f"{max(config.report.k)} is beyond the teacher's lists, {depth} deep: raise labels.depth"


def list_users_read(config: Config) -> Iterator[Finding]:
    """`list_users` is how many teacher lists a step compares, which only a distilled student does."""
    if "list_users" in config.student.train.model_fields_set and not config.distill:
        yield ("student", "train", "list_users"), "has no effect without distill; leave it out"


def seeds_used(config: Config) -> Iterator[Finding]:
    """`student.seeds` takes the place of `student.train.seed`."""
    seeds, train = config.student.seeds, config.student.train
    if len(set(seeds)) < len(seeds):
        yield ("student", "seeds"), "names a seed twice, which would train the same model again"
    if seeds and "seed" in train.model_fields_set and train.seed not in seeds:
        reason = f"has no effect: student.seeds are {', '.join(map(str, seeds))}; leave one of the two out"
        yield ("student", "train", "seed"), reason


def features_read(config: Config) -> Iterator[Finding]:
    """Feature tables are read by the ranking teacher alone."""
    if config.features is not None and not _ranks(config):
        yield ("features",), f"has no effect: a teacher of kind {config.teacher.model.kind} reads ids only; use ranker"


def _ranks(config: Config) -> bool:
    models = [config.teacher.model, *(model for _, model, _ in config.teacher.trained())]
    return any(model.kind == "ranker" for model in models)


def named_once(config: Config) -> Iterator[Finding]:
    """A length or a metric that is named twice would be measured twice to the same end."""
    lists = {
        ("report", "k"): config.report.k,
        ("report", "metrics"): config.report.metrics,
        ("report", "slices"): config.report.slices,
        ("index", "k"): config.index.k,
    }
    for at, named in lists.items():
        if twice := sorted({str(n) for n in named if named.count(n) > 1}):
            yield at, f"names {', '.join(twice)} twice"


def gates_measured(config: Config) -> Iterator[Finding]:
    """A gate can hold only what the report and the index measure."""
    from recdistill.gates import parse

    if config.registry is None:
        return
    for name in config.registry.gates:
        metric, at = parse(name), ("registry", "gates", name)
        if metric is None:  # the section itself refuses such a name
            continue
        if metric.kind == "freshness" and config.log.time is None:
            yield at, "can never pass: the log has no times, so nobody knows how old its data is; set log.time"
        if metric.worst is not None and metric.worst not in config.report.slices:
            yield at, f"slices by {metric.worst} are not measured: add it to report.slices"
        ks = config.index.k if metric.kind == "index" else config.report.k
        where = "index.k" if metric.kind == "index" else "report.k"
        if metric.k is not None and metric.k not in ks:
            yield at, f"k = {metric.k} is not measured: add it to {where}, which has {', '.join(map(str, ks))}"
        if metric.kind == "quality" and metric.name not in config.report.metrics:
            known = ", ".join(config.report.metrics)
            yield at, f"{metric.name} is not measured: add it to report.metrics, which has {known}"


def index_deep_enough(config: Config) -> Iterator[Finding]:
    """The index is tuned at `index.k`; what the report asks of it should not lie beyond."""
    if max(config.report.k) > max(config.index.k):
        reason = f"stops at {max(config.index.k)}, but report.k asks the index for {max(config.report.k)}: add it"
        yield ("index", "k"), reason


def heads_divide(config: Config) -> Iterator[Finding]:
    """Attention cuts a vector into heads of one width."""
    for at, model, _ in _trained(config):
        if model.kind in ("ranker", "sequence") and model.dim % model.heads:
            yield (*at, "model", "heads"), f"{model.heads} heads do not divide dim, which is {model.dim}"


def ranker_told(config: Config) -> Iterator[Finding]:
    """A ranker's further heads and its clock read columns that the log must name."""
    for at, model, _ in _trained(config):
        if model.kind != "ranker":
            continue
        if config.log.time is None and model.time and "time" in model.model_fields_set:
            yield (*at, "model", "time"), "has no effect: the log has no times; name their column in log.time"
        for name, task in model.tasks.items():
            column = "event" if task.event is not None else "weight"
            if getattr(config.log, column) is None:
                yield (*at, "model", "tasks", name), f"the log does not say it: name the column in log.{column}"
            if task.event is not None and config.log.events is not None and task.event not in config.log.events:
                yield (*at, "model", "tasks", name), f"log.events leaves out every {task.event!r}: add it there"


def sequences_timed(config: Config) -> Iterator[Finding]:
    """What comes next can be learned only from what came first."""
    for at, model, _ in _trained(config):
        if model.kind == "sequence" and config.log.time is None:
            yield (*at, "model", "kind"), "a sequence needs times: name their column in log.time, or use another model"


def dense_part_there(config: Config) -> Iterator[Finding]:
    """`dense_lr` and `compute` are of what is not a table, which not every model has."""
    for at, model, train in _trained(config):
        plain = model.kind in ("mf", "lightgcn") or (model.kind == "two_tower" and not model.hidden)
        plain = plain and train.subclasses is None
        for name in ("dense_lr", "compute"):
            if plain and name in train.model_fields_set:
                reason = f"has no effect: a {model.kind} without hidden layers is all tables; leave it out"
                yield (*at, "train", name), reason


def _trained(config: Config) -> Iterator[tuple[KeyPath, ModelSpec, TrainSpec]]:
    """Yield where each model stands that a run trains, the model, and its training."""
    yield ("student",), config.student.model, config.student.train
    yield from ((("teacher", *at), model, train) for at, model, train in config.teacher.trained())


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    split_possible,
    *checks_teacher.CHECKS,
    *checks_terms.CHECKS,
    *checks_taught.CHECKS,
    *checks_transfer.CHECKS,
    *checks_defer.CHECKS,
    *checks_gates.CHECKS,
    *checks_yesterday.CHECKS,
    *checks_daily.CHECKS,
    *checks_subclass.CHECKS,
    *checks_nested.CHECKS,
    labels_read,
    labels_deep_enough,
    list_users_read,
    seeds_used,
    features_read,
    named_once,
    gates_measured,
    *checks_surface.CHECKS,
    index_deep_enough,
    heads_divide,
    ranker_told,
    sequences_timed,
    *checks_tables.CHECKS,
    dense_part_there,
)
