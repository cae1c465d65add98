"""What a configuration is told of terms that cannot be trained, or would do nothing: where, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i, time: t}
teacher:
  model: {kind: mf, dim: 16}
  train: {epochs: 3}
labels: {depth: 50}
student:
  model: {kind: two_tower, dim: 8}
  train: {epochs: 3}
distill: []
report: {k: [10]}
"""
LUCE, MSE, PAIRWISE = "{kind: plackett_luce}", "{kind: logit_mse}", "{kind: pairwise}"
GATED, PARTNER = "{kind: gated_kl}", "student.partner={kind: mf, dim: 16}"
VECTORS, BY_ITEM, ALONG = "labels.vectors=true", "labels.item_depth=30", "labels.trajectory=4"


def term(*draws: str, loss: str = LUCE, more: str = "") -> str:
    shown = ", ".join(f"{{kind: {draw}}}" for draw in draws)
    return f"{{kind: list, weight: 1, draw: [{shown}], loss: {loss}{', ' + more if more else ''}}}"


def distill(*terms: str) -> str:
    return f"distill=[{', '.join(terms)}]"


def one(*draws: str, loss: str = LUCE, more: str = "") -> str:
    return distill(term(*draws, loss=loss, more=more))


def align(more: str = "", loss: str = "{kind: distance, adapter: {kind: linear}}") -> str:
    return distill(f"{{kind: align, weight: 1, loss: {loss}{', ' + more if more else ''}}}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


BELOW = "top, k: 5", "unseen, n: 3"
TERMS = "teacher.recipe={kind: self, terms: [%s]}"
TAUGHT = one(*BELOW)


@pytest.mark.parametrize(
    "sets",
    [
        [one("top, k: 50")],
        [one(*BELOW, loss="{kind: plackett_luce, whole: true}")],
        [one("top, k: 5", "rest")],
        [one(*BELOW, loss="{kind: list_ce}")],  # what is below the list needs no score
        [one("top, k: 5", loss=MSE)],
        [one(*BELOW, loss=MSE), VECTORS],
        [one("pairs, n: 3", loss=PAIRWISE)],
        [one("closure, k: 50, n: 150", loss=GATED), VECTORS],  # n is of the student's list, 200 deep
        [one("top, k: 30", more="side: items"), BY_ITEM],
        [one("trajectory, k: 5", "unseen, n: 3"), ALONG],
        [one("in_batch, n: 3", loss="{kind: softmax_kl}", more="target: [{kind: debias}]"), VECTORS],
        [one("top, k: 200", more="teacher: partner"), PARTNER],
        [one("top, k: 5", more="teacher: partner"), PARTNER, "student.guide={depth: 20}"],
        [one("student_top, k: 5"), "student.guide={depth: 20}"],
        [align(), VECTORS],
        [align("preserve: {k: 3}, filter: {keep: 0.9}"), VECTORS],
        [TAUGHT, "student.task=0"],
        [TAUGHT, TERMS % term("ranked, k: 5", "unseen, n: 3")],
    ],
)
def test_what_may_be_said(file: Path, sets: list[str]) -> None:
    assert load_config(file, sets).distill


def problems(file: Path, sets: list[str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(file, sets)
    return [str(problem).split(": ", 1)[1] if problem.where else str(problem) for problem in caught.value.problems]


NO_LISTS = "draws nothing that the teacher ranked: add a draw of kind top or ranked"
ALONE = "stands for itself: take the other draws out, or make them another term"
UNSCORED = "logit_mse compares scores, and the teacher's lists give these items none: set labels.vectors: true"
REST = "rest is for users, the serving head, and losses that put a list above what is below it"
PRESERVE = "is of adapters of users and of items: loss distance, with both sides"
UNREAD = "has no effect: nothing reads it; leave it out"
ENCODER = "needs a teacher whose scores are products of vectors: an encoder, without folds"
FOR_STUDENTS = "is for students; leave it out of a recipe's terms"
OF_USERS = "is of the labels' lists of items for a user: take another draw"

CASES = {
    # terms_taught
    "nothing taught": ([one("unseen, n: 3")], "distill.0.draw", NO_LISTS),
    "nothing but the rest": ([one("rest")], "distill.0.draw", NO_LISTS),
    "in_batch and more": (
        [one("in_batch, n: 3", "top, k: 5", loss=MSE), VECTORS],
        "distill.0.draw",
        f"in_batch {ALONE}",
    ),
    "whole and more": ([one("whole", "top, k: 5", loss=MSE), VECTORS], "distill.0.draw", f"whole {ALONE}"),
    "closure and more": (
        [one("closure, k: 5, n: 3", "top, k: 5", loss=GATED), VECTORS],
        "distill.0.draw",
        f"closure {ALONE}",
    ),
    # stores_hold
    "no vectors to align": (
        [align()],
        "distill.0.kind",
        "align compares vectors, and the labels keep none: set labels.vectors: true",
    ),
    "no lists of users": (
        [one("student_top, k: 5", more="side: items")],
        "distill.0.side",
        "the labels keep no users of an item: set labels.item_depth: 500",
    ),
    "no lists along": (
        [one("trajectory, k: 5")],
        "distill.0.draw.0",
        "the labels keep no lists along a training: set labels.trajectory: 4",
    ),
    "no scores": ([one(*BELOW, loss=MSE)], "distill.0.draw.1", UNSCORED),
    "vectors unread": ([TAUGHT, VECTORS], "labels.vectors", UNREAD),
    "item lists unread": ([TAUGHT, BY_ITEM], "labels.item_depth", UNREAD),
    "trajectory unread": ([TAUGHT, ALONG], "labels.trajectory", UNREAD),
    "vectors of a ranker": ([align(), VECTORS, "teacher.model={kind: ranker}"], "labels.vectors", ENCODER),
    "vectors of a file": (
        [align(), VECTORS, "teacher.model={kind: external, path: x}", "teacher.train=null"],
        "labels.vectors",
        ENCODER,
    ),
    "vectors of folds": ([align(), VECTORS, "teacher.folds=2", "labels.exclude_seen=false"], "labels.vectors", ENCODER),
    "vectors of a mixture": (
        [align(), VECTORS, "teacher.recipe={kind: seeds, seeds: [1, 2]}"],
        "labels.vectors",
        "needs one encoder: a mixture of several has no vectors",
    ),
    # parts_fit
    "pairs without pairwise": ([one("pairs, n: 2")], "distill.0.draw", "pairs goes with pairwise"),
    "pairwise without pairs": ([one("top, k: 4", loss=PAIRWISE)], "distill.0.loss", "pairwise goes with pairs"),
    "closure without gate": (
        [one("closure, k: 5, n: 3")],
        "distill.0.draw",
        "closure goes with gated_kl, and the other way round",
    ),
    "gate without closure": (
        [one("top, k: 5", loss=GATED)],
        "distill.0.loss",
        "gated_kl goes with closure, and the other way round",
    ),
    "debias of lists": (
        [one("top, k: 5", more="target: [{kind: debias}]")],
        "distill.0.target.0",
        "debias is of the batch's own items: draw in_batch",
    ),
    "adapted of lists": (
        [one("top, k: 5", loss=MSE, more="target: [{kind: scale, factor: 2}, {kind: adapted}]")],
        "distill.0.target.1",
        "adapted is of the batch's own items: draw in_batch",
    ),
    "a partner scaled": (
        [one("in_batch, n: 3", loss=MSE, more="teacher: partner, target: [{kind: scale, factor: 2}]"), PARTNER],
        "distill.0.target.0",
        "has no effect: what a partner says is taught as it is",
    ),
    "rest of scores": ([one("top, k: 5", "rest", loss="{kind: softmax_kl}")], "distill.0.draw", REST),
    "rest of a head": ([one("top, k: 5", "rest", more="head: {}")], "distill.0.draw", REST),
    "rest of users": ([one("top, k: 5", "rest", more="side: items"), BY_ITEM], "distill.0.draw", REST),
    "rest of a partner": ([one("top, k: 5", "rest", more="teacher: partner"), PARTNER], "distill.0.draw", REST),
    "whole of nothing": (
        [one("top, k: 5", loss="{kind: plackett_luce, whole: true}")],
        "distill.0.loss.whole",
        "has no effect without a draw of kind unseen",
    ),
    "the batch's users": (
        [one("in_batch, n: 3", more="side: items"), BY_ITEM],
        "distill.0.side",
        "has no effect: the batch's own items are compared for its users",
    ),
    # sides_whole
    "preserve without an adapter": ([align("preserve: {}", "{kind: gram}"), VECTORS], "distill.0.preserve", PRESERVE),
    "preserve of one side": ([align("preserve: {}, sides: [users]"), VECTORS], "distill.0.preserve", PRESERVE),
    "a partner's lists of users": (
        [one("top, k: 5", more="side: items, teacher: partner"), PARTNER, BY_ITEM],
        "distill.0.teacher",
        "lists of users for an item are the labels': a partner gives none",
    ),
    "a head for users": (
        [one("top, k: 5", more="side: items, head: {}"), BY_ITEM],
        "distill.0.head",
        "is of lists of items for a user: leave it out, or take side users",
    ),
    "pairs of users": (
        [one("pairs, n: 2", loss=PAIRWISE, more="side: items"), BY_ITEM],
        "distill.0.draw.0",
        f"pairs {OF_USERS}",
    ),
    "users along a training": (
        [one("trajectory, k: 5", more="side: items"), BY_ITEM, ALONG],
        "distill.0.draw.0",
        f"trajectory {OF_USERS}",
    ),
    "a partner along a training": (
        [one("trajectory, k: 5", more="teacher: partner"), ALONG, PARTNER],
        "distill.0.draw.0",
        f"trajectory {OF_USERS}",
    ),
    # partner_heard
    "an unheard partner": (
        [TAUGHT, PARTNER],
        "student.partner",
        "has no effect: no term of distill has teacher: partner",
    ),
    "no partner": (
        [distill(term("top, k: 5"), term("top, k: 5", more="teacher: student"))],
        "distill.1.teacher",
        "there is no partner for student to teach or learn from: student.partner",
    ),
    # student_taught
    "a guide of nobody": (
        [TAUGHT, "student.guide={depth: 9}"],
        "student.guide",
        "has no effect: no draw follows the student's own lists",
    ),
    "a guide of a batch": (
        [one("in_batch, n: 3", loss=MSE, more="teacher: partner"), PARTNER, "student.guide={depth: 9}"],
        "student.guide",
        "has no effect: no draw follows the student's own lists",
    ),
    # recipes_plain
    "a recipe's own lists": (
        [TAUGHT, TERMS % term("student_top, k: 5")],
        "teacher.recipe.terms.0.draw.0",
        "student_top is for students; a recipe's models draw top, ranked, unseen or pairs",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_makes_no_sense_is_said_where_it_stands(file: Path, case: str) -> None:
    sets, place, words = CASES[case]
    found = problems(file, sets)
    assert any(place in each and words in each for each in found), found
    assert len(found) == 1, found


@pytest.mark.parametrize(
    "more", ["side: users", "head: {}", "balance: true", "teacher: labels", "target: [{kind: rank}]"]
)
def test_what_is_for_students_is_no_part_of_a_recipes_terms(file: Path, more: str) -> None:
    (found,) = problems(file, [TAUGHT, TERMS % term("top, k: 5", more=more)])
    assert f"teacher.recipe.terms.0.{more.split(':')[0]}: {FOR_STUDENTS}" in found


GUIDE, LABELS, LISTS = "student.guide.depth", "labels.depth", "labels.item_depth"


@pytest.mark.parametrize(
    ("sets", "place", "wanted", "whose", "depth", "where"),
    [
        ([one("top, k: 5", "ranked, k: 51")], "1.k", 51, "teacher", 50, LABELS),
        ([one("top, k: 31", more="side: items"), BY_ITEM], "0.k", 31, "teacher", 30, LISTS),
        ([one("student_ranked, k: 21"), "student.guide={depth: 20}"], "0.k", 21, "student", 20, GUIDE),
        ([one("rank_gap, side: over, k: 201")], "0.k", 201, "student", 200, GUIDE),
        ([one("rank_gap, side: under, k: 60")], "0.k", 60, "teacher", 50, LABELS),
        ([one("closure, k: 51, n: 3", loss=GATED), VECTORS], "0.k", 51, "teacher", 50, LABELS),
        ([one("closure, k: 5, n: 201", loss=GATED), VECTORS], "0.n", 201, "student", 200, GUIDE),
        ([one("top, k: 201", more="teacher: partner"), PARTNER], "0.k", 201, "teacher", 200, GUIDE),
    ],
)
def test_a_draw_beyond_the_lists_it_reads_is_told_which_to_make_deeper(
    file: Path, sets: list[str], place: str, wanted: int, whose: str, depth: int, where: str
) -> None:
    (found,) = problems(file, sets)
    assert f"distill.0.draw.{place}: {wanted} is beyond the {whose}'s lists, {depth} deep: raise {where}" in found


@pytest.mark.parametrize(
    ("setting", "value"), [("task", "0.5"), ("guide", "{depth: 9}"), ("partner", "{kind: mf, dim: 16}")]
)
def test_settings_of_a_distilled_student_do_nothing_to_another(file: Path, setting: str, value: str) -> None:
    file.write_text(GOOD.replace("labels: {depth: 50}\n", "").replace("distill: []\n", ""))
    found = problems(file, [f"student.{setting}={value}"])
    assert f"student.{setting}: has no effect without distill; leave it out" in " ".join(found)


def test_every_problem_is_named_at_once(file: Path) -> None:
    found = problems(file, [distill(term("unseen, n: 3"), term("top, k: 99")), PARTNER, VECTORS])
    assert len(found) == 4
