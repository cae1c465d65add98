"""What a configuration can get wrong of its teacher: recipes, folds, and what the labels' scores mean to a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, get_args

from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_targets import ScoreSpace
from recdistill.yamlfile import KeyPath

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config

SPACES: tuple[str, ...] = get_args(ScoreSpace)  # each says more than the one before
CALIBRATED = {"temperature": "logit", "platt": "probability"}


def all_terms(config: Config) -> Iterator[tuple[KeyPath, ListTermSpec]]:
    """Yield every term over lists, and where it stands: the student's, then those of a recipe."""
    yield from ((("distill", i), term) for i, term in enumerate(config.distill) if term.kind == "list")
    yield from ((("teacher", "recipe", "terms", i), term) for i, term in enumerate(config.teacher.terms))


def teacher_training(config: Config) -> Iterator[Finding]:
    """An external teacher is not trained; every other one is."""
    external = config.teacher.model.kind == "external"
    if external and config.teacher.train is not None:
        yield ("teacher", "train"), "has no effect: an external teacher comes with its scores; leave it out"
    if not external and config.teacher.train is None:
        yield ("teacher", "train"), "required, but not given: only an external teacher is not trained"
    for name in ("recipe", "folds"):
        if external and getattr(config.teacher, name):
            yield ("teacher", name), "has no effect: an external teacher comes with its scores; leave it out"


def folds_possible(config: Config) -> Iterator[Finding]:
    """Out-of-fold teachers are for labels of what the user took, and learn from no labels themselves."""
    folds, recipe = config.teacher.folds, config.teacher.recipe
    if not folds:
        return
    if folds == 1:
        yield (
            ("teacher", "folds"),
            "one fold is all there is, and leaves nothing to learn from: 0 for none, or 2 and more",
        )
    if recipe is not None and recipe.kind in ("assistants", "self"):
        reason = (
            f"not with recipe {recipe.kind}, whose models learn from labels of the whole training part: leave it out"
        )
        yield ("teacher", "folds"), reason
    if not config.distill:
        yield ("teacher", "folds"), "has no effect without distill: add a term, or leave folds out"
    elif config.labels.exclude_seen:
        reason = "has no effect: the lists leave out what the folds are there to judge; set labels.exclude_seen: false"
        yield ("teacher", "folds"), reason


def recipe_used(config: Config) -> Iterator[Finding]:
    """A recipe needs more than one model to choose from, and each only once."""
    recipe, train = config.teacher.recipe, config.teacher.train
    if recipe is None or train is None:
        return
    if recipe.kind == "checkpoints" and train.evaluate_every >= train.epochs:
        reason = f"{train.epochs} epochs with a validation every {train.evaluate_every} leave one snapshot: lower it"
        yield ("teacher", "train", "evaluate_every"), reason
    if recipe.kind == "seeds":
        if len(set(recipe.seeds)) < len(recipe.seeds):
            yield ("teacher", "recipe", "seeds"), "names a seed twice, which would train the same model again"
        if "seed" in train.model_fields_set and train.seed not in recipe.seeds:
            reason = f"has no effect: teacher.recipe.seeds are {', '.join(map(str, recipe.seeds))}"
            yield ("teacher", "train", "seed"), f"{reason}; leave one of the two out"
    known = [(config.teacher.model, train)] if recipe.kind == "pool" else []
    for at, model, settings in config.teacher.trained():
        if at and (model, settings) in known:
            yield ("teacher", *at), "is there already, and would be the same model again"
        known += [(model, settings)] if at else []


def teacher_lists_read(config: Config) -> Iterator[Finding]:
    """`list_users` is how many lists a step compares: of a teacher's models, only those that learn from labels do."""
    kind = config.teacher.recipe.kind if config.teacher.recipe is not None else "none"
    for at, _, train in config.teacher.trained():
        reads = kind == "assistants" if at else kind == "self"
        if "list_users" in train.model_fields_set and not reads:
            yield ("teacher", *at, "train", "list_users"), "has no effect: it learns from no lists; leave it out"


def spaces_fit(config: Config) -> Iterator[Finding]:
    """A loss may read no more into a teacher's scores than they mean."""
    external = config.teacher.model if config.teacher.model.kind == "external" else None
    raw = external.space if external is not None else "logit"
    known = CALIBRATED.get(config.labels.calibration, raw)  # scaled to fit lists, a chance is one no more
    for at, term in all_terms(config):
        step = at[0] == "teacher"  # whose labels are not calibrated: what they teach is judged by their order and odds
        space, needs = (raw if step else known), term.loss.needs
        if term.teacher != "labels":
            continue
        for target in term.target:
            space = target.gives or space
        if SPACES.index(space) >= SPACES.index(needs):
            continue
        said = {"rank": "only the order", "logit": "known up to a shift for each user"}[space]
        fix = {"logit": "labels.calibration: temperature", "probability": "labels.calibration: platt"}[needs]
        fix = "take another loss here" if step else f"set {fix}"
        if external is not None and not step:
            fix += f", or teacher.model.space: {needs} if the file holds that"
        reason = f"{term.loss.kind} reads the teacher's scores as {needs}, and these are {space}, {said}: {fix}"
        yield (*at, "loss"), reason


def calibration_read(config: Config) -> Iterator[Finding]:
    """A calibration changes what scores mean, not their order."""
    if config.labels.calibration == "none" or not config.distill:
        return
    if all(term.kind == "list" and term.loss.needs == "rank" for term in config.distill):
        reason = "has no effect: every term reads the order of the lists alone; leave it out"
        yield ("labels", "calibration"), reason


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    teacher_training,
    folds_possible,
    recipe_used,
    teacher_lists_read,
    spaces_fit,
    calibration_read,
)
