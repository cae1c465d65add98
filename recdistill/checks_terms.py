"""What a configuration can get wrong of its distillation terms: draws, losses and stores that do not fit each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recdistill.checks_teacher import all_terms
from recdistill.distill.spec import AlignTermSpec, GatesTermSpec, ListTermSpec
from recdistill.distill.spec_draws import Draw
from recdistill.yamlfile import KeyPath

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config

OTHERS = ("unseen", "student_top", "student_ranked", "rank_gap", "closure", "whole", "in_batch", "trajectory", "own")
"""Draws that give items which the teacher's lists need not hold."""
BELONG = {"pairs": ("pairwise",), "closure": ("gated_kl",), "pairwise": ("pairs",), "gated_kl": ("closure",)}


def terms_taught(config: Config) -> Iterator[Finding]:
    """A term compares the student with the teacher, so it needs items that somebody ranked or scored."""
    for at, term in all_terms(config):
        if all(draw.kind in ("unseen", "rest", "own") for draw in term.draw):
            yield (*at, "draw"), "draws nothing that the teacher ranked: add a draw of kind top or ranked"
        if len(term.draw) > 1 and any(draw.kind in ("in_batch", "whole", "pairs", "closure") for draw in term.draw):
            alone = next(d.kind for d in term.draw if d.kind in ("in_batch", "whole", "pairs", "closure"))
            yield (*at, "draw"), f"{alone} stands for itself: take the other draws out, or make them another term"


def draws_deep_enough(config: Config) -> Iterator[Finding]:
    """What reads the teacher's lists, or the student's, must not ask for more than they hold."""
    for at, term in all_terms(config):
        guided = config.student.guide.depth, "student.guide.depth"
        labelled = config.labels.depth, "labels.depth"
        if term.side == "items":
            labelled = config.labels.item_depth, "labels.item_depth"
        for j, draw in enumerate(term.draw):
            for setting, whose in _taken(draw):
                depth, where = labelled if whose == "teacher" and term.teacher == "labels" else guided
                if (wanted := getattr(draw, setting)) > depth:
                    reason = f"{wanted} is beyond the {whose}'s lists, {depth} deep: raise {where}"
                    yield (*at, "draw", j, setting), reason


def _taken(draw: Draw) -> tuple[tuple[str, str], ...]:
    """Return (setting, of whose lists) of all that `draw` takes from the head of a list."""
    if draw.kind == "closure":
        return ("k", "teacher"), ("k", "student"), ("n", "student")
    student = draw.kind in ("student_top", "student_ranked") or (draw.kind == "rank_gap" and draw.side == "over")
    return (("k", "student" if student else "teacher"),) if hasattr(draw, "k") else ()


def stores_hold(config: Config) -> Iterator[Finding]:
    """A term can read only what the label store is told to keep, and what is kept should be read."""
    labels, wanted = config.labels, set[str]()
    for at, term, setting, why in _asked(config):
        wanted.add(setting)
        if not getattr(labels, setting):
            value = {"vectors": "true", "item_depth": "500", "trajectory": "4"}[setting]
            yield (*at, *term), f"{why}: set labels.{setting}: {value}"
    for setting in ("vectors", "item_depth", "trajectory"):
        if getattr(labels, setting) and setting not in wanted:
            yield ("labels", setting), "has no effect: nothing reads it; leave it out"
        if getattr(labels, setting) and (config.teacher.model.kind in ("ranker", "external") or config.teacher.folds):
            reason = "needs a teacher whose scores are products of vectors: an encoder, without folds"
            yield ("labels", setting), reason
        recipe = config.teacher.recipe
        mixed = recipe is not None and recipe.kind != "delta" and setting != "trajectory"
        if getattr(labels, setting) and mixed:
            yield ("labels", setting), "needs one encoder: a mixture of several has no vectors"


def _asked(config: Config) -> Iterator[tuple[KeyPath, KeyPath, str, str]]:
    """Yield (term, or the student; place in it; setting of labels that it asks for; why)."""
    if config.student.start == "teacher" and config.distill:
        yield ("student",), ("start",), "vectors", "the teacher's dimensions are found in its vectors"
    if config.student.items == "folded" and config.distill:
        yield ("student",), ("items",), "vectors", "what serves are the teacher's own items"
    for i, term in enumerate(config.distill):
        at: KeyPath = ("distill", i)
        if isinstance(term, GatesTermSpec):
            continue
        if not isinstance(term, ListTermSpec):
            yield at, ("kind",), "vectors", "align compares vectors, and the labels keep none"
            continue
        if term.side == "items":
            yield at, ("side",), "item_depth", "the labels keep no users of an item"
        if term.loss.kind == "subclass_kl":
            yield at, ("loss",), "vectors", "sub-logits are made of vectors, and the labels keep none"
        scores = term.loss.needs != "rank" and all(t.kind != "rank" for t in term.target)
        for j, draw in enumerate(term.draw):
            if draw.kind == "trajectory":
                yield at, ("draw", j), "trajectory", "the labels keep no lists along a training"
            below = draw.kind == "unseen" and term.loss.kind in ("sampled_pl", "list_ce")  # they read the ranked ones'
            if draw.kind == "own" and not config.labels.exclude_seen:
                continue  # the lists hold some of it, with scores
            if scores and draw.kind in OTHERS and not below and term.teacher == "labels":
                why = f"{term.loss.kind} compares scores, and the teacher's lists give these items none"
                yield at, ("draw", j), "vectors", why
                break


def parts_fit(config: Config) -> Iterator[Finding]:
    """Some draws, targets and losses are made for each other."""
    for at, term in all_terms(config):
        kinds = [draw.kind for draw in term.draw]
        for kind in (*kinds, term.loss.kind):
            if kind in BELONG and not {*kinds, term.loss.kind} & set(BELONG[kind]):
                place = ("loss",) if kind == term.loss.kind else ("draw",)
                yield (*at, *place), f"{kind} goes with {BELONG[kind][0]}, and the other way round"
        for k, target in enumerate(term.target):
            if target.kind in ("debias", "adapted") and kinds != ["in_batch"]:
                yield (*at, "target", k), f"{target.kind} is of the batch's own items: draw in_batch"
            if target.kind in ("rank", "scale", "adjust", "adapted") and term.teacher != "labels":
                yield (*at, "target", k), f"has no effect: what a {term.teacher} says is taught as it is"
            if target.kind == "adjust" and term.side == "items":
                yield (*at, "target", k), "is of items in a user's list: leave it out, or take side users"
            if target.kind in ("scale", "adjust") and term.loss.needs == "rank":
                yield (*at, "target", k), f"has no effect: {term.loss.kind} reads the order alone"
        ordered = term.loss.kind in ("plackett_luce", "sampled_pl", "independent", "list_ce")
        if "rest" in kinds and (
            not ordered or term.side == "items" or term.head is not None or term.teacher != "labels"
        ):
            yield (
                (*at, "draw"),
                "rest is for users, the serving head, and losses that put a list above what is below it",
            )
        if getattr(term.loss, "whole", False) and "unseen" not in kinds:
            yield (*at, "loss", "whole"), "has no effect without a draw of kind unseen"
        if "in_batch" in kinds and term.side == "items":
            yield (*at, "side"), "has no effect: the batch's own items are compared for its users"


def sides_whole(config: Config) -> Iterator[Finding]:
    """Lists of users for an item are the labels' alone, as lists along a training are; an adapter has two sides."""
    for i, term in enumerate(config.distill):
        at: KeyPath = ("distill", i)
        if isinstance(term, GatesTermSpec):
            continue
        if not isinstance(term, ListTermSpec):
            if term.preserve is not None and (term.loss.kind != "distance" or set(term.sides) != {"users", "items"}):
                yield (*at, "preserve"), "is of adapters of users and of items: loss distance, with both sides"
            continue
        items = term.side == "items"
        if items and term.teacher != "labels":
            yield (*at, "teacher"), f"lists of users for an item are the labels': a {term.teacher} gives none"
        if items and term.head is not None:
            yield (*at, "head"), "is of lists of items for a user: leave it out, or take side users"
        for j, draw in enumerate(term.draw):
            if (items and draw.kind in ("pairs", "trajectory")) or (
                draw.kind == "trajectory" and term.teacher != "labels"
            ):
                yield (*at, "draw", j), f"{draw.kind} is of the labels' lists of items for a user: take another draw"


def partner_heard(config: Config) -> Iterator[Finding]:
    """A partner is there to be learned from, and who learns from one needs it."""
    teachers = [term.teacher if isinstance(term, ListTermSpec) else "labels" for term in config.distill]
    if config.student.partner is not None and "partner" not in teachers:
        yield ("student", "partner"), "has no effect: no term of distill has teacher: partner"
    for i, teacher in enumerate(teachers):
        if teacher != "labels" and config.student.partner is None:
            yield (
                ("distill", i, "teacher"),
                f"there is no partner for {teacher} to teach or learn from: student.partner",
            )


def student_taught(config: Config) -> Iterator[Finding]:
    """Settings of a distilled student do nothing to one that is taught nothing."""
    student = config.student
    for name in ("task", "start", "items", "axes", "stages", "select", "ladder", "guide", "partner"):
        if name in student.model_fields_set and not config.distill:
            yield ("student", name), "has no effect without distill; leave it out"
    if student.start == "teacher" and (student.model.kind != "mf" or student.model.space != "dot"):
        reason = "the teacher's dimensions are of rows of numbers: set student.model.kind mf, and space dot"
        yield ("student", "start"), reason
    if student.items == "folded" and (student.model.kind != "mf" or student.model.space != "dot"):
        reason = "the teacher's items are cut to rows of numbers: set student.model.kind mf, and space dot"
        yield ("student", "items"), reason
    lists = [term for term in config.distill if isinstance(term, ListTermSpec)]
    follows = any(
        "student" in draw.reads or (term.teacher != "labels" and "labels" in draw.reads)
        for term in lists
        for draw in term.draw
    )
    follows = follows or student.ladder is not None
    if config.distill and "guide" in config.student.model_fields_set and not follows:
        yield ("student", "guide"), "has no effect: no draw follows the student's own lists"


def recipes_plain(config: Config) -> Iterator[Finding]:
    """Models of a teacher's recipe learn from the teacher's lists alone, whatever kind of model they are."""
    for i, term in enumerate(config.teacher.terms):
        at: KeyPath = ("teacher", "recipe", "terms", i)
        for j, draw in enumerate(term.draw):
            if draw.kind not in ("top", "ranked", "unseen", "pairs"):
                yield (
                    (*at, "draw", j),
                    f"{draw.kind} is for students; a recipe's models draw top, ranked, unseen or pairs",
                )
        for name in ("side", "teacher", "head", "balance", "target", "signal"):
            if name in term.model_fields_set:
                yield (*at, name), "is for students; leave it out of a recipe's terms"


def phases_possible(config: Config) -> Iterator[Finding]:
    """A term must count at some time, and can be balanced only with a task that counts too."""
    epochs = config.student.train.epochs
    for i, term in enumerate(config.distill):
        start, stop = term.phase.start, term.phase.stop
        if start >= epochs or (stop is not None and stop <= start):
            yield ("distill", i, "phase"), f"never counts: training ends after {epochs} epochs, and stop is after start"
        if term.balance and not config.student.task:
            yield ("distill", i, "balance"), "has no effect: with student.task 0 there is no gradient to be as long as"
        if isinstance(term, AlignTermSpec) and len(set(term.sides)) < len(term.sides):
            yield ("distill", i, "sides"), "names a side twice"


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    terms_taught,
    draws_deep_enough,
    stores_hold,
    parts_fit,
    sides_whole,
    partner_heard,
    student_taught,
    recipes_plain,
    phases_possible,
)
