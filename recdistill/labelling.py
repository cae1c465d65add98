"""A teacher, whatever it is -> its label store; and the same teacher's lists for an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recdistill.beside import TRAJECTORY, moments, with_trajectory, write_by_item, write_vectors
from recdistill.candidates import Pool, chooser, with_own
from recdistill.data.sequences import Sequences
from recdistill.distill.spec import LabelsSpec
from recdistill.ensemble import read_recipe, speaker
from recdistill.external import external_lister
from recdistill.fit import load
from recdistill.folds import labelled_folds
from recdistill.gated import write_gates
from recdistill.labels import TRANSFER, Layout, Lister
from recdistill.members import Ready
from recdistill.models.build import history_length
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted
from recdistill.scoring import Scorer, encoder_scorer, vectors
from recdistill.shards import Share, finish, missing, write_shards
from recdistill.teachers import encoder_lister, scored_lister
from recdistill.topk import Precision
from recdistill.transfer.store import write_transfer
from recdistill.trust import trust, write_trust
from recdistill.types import Dataset, Interactions, Log


def label_data(
    dataset: Dataset,
    teacher: Teacher,
    scratch: Fitted,
    spec: LabelsSpec,
    out: Path,
    stamp: Mapping[str, str],
    log: Log,
    *,
    share: Share | None,
    whole: bool,
    student: Fitted | None = None,
) -> dict[str, Any]:
    """Write what `teacher` says to the label store `out`: the shards of `share` (none if None), its end if `whole`.

    `stamp` says in every shard which labels it is a part of: `step` and `teacher`, their fingerprints. Flips are made
    against `student`, or else `scratch`. Returns the facts of the whole store, or what `write_shards` says of its part.
    """
    seen = dataset.train if spec.exclude_seen else None
    recipe = read_recipe(teacher)
    facts: dict[str, Any] = {"teacher": teacher.kind, "recipe": recipe.kind, "space": recipe.space}
    facts |= {"folds": teacher.folds, "exclude_seen": spec.exclude_seen}
    layout = Layout(
        num_users=dataset.num_users,
        num_items=dataset.num_items,
        depth=spec.depth,
        rest=spec.rest,
        precision=spec.precision,
        shard_users=spec.shard_users,
        along=(len(teacher.models), spec.trajectory, min(spec.depth, TRAJECTORY)) if spec.trajectory else (0, 0, 0),
        stamp=stamp,
    )
    given: Lister | None = None
    if teacher.external is not None:  # read in any case: how much of it joined is a fact of the whole store
        line = {"scale": recipe.scale, "shift": recipe.shift}
        given, facts["joined"] = external_lister(teacher.external, dataset, spec.depth, seen, rest=spec.rest, **line)

    def lister() -> Lister:
        if given is not None:
            return given
        reads = Sequences.of(dataset.train)
        plain = teacher_lister(dataset, teacher, scratch, spec, spec.depth, reads, seen, spec.rest)
        if not spec.trajectory:
            return plain
        return with_trajectory(plain, moments(dataset, teacher, spec.trajectory, layout.along[2], reads, seen))

    written = write_shards(out, layout, lister, log, share) if share is not None else {}
    facts |= _keep(dataset, teacher, scratch, spec, out, layout, log) if whole else {}
    if spec.transfer is None:
        return finish(out, layout, facts, dataset.train) if whole else written
    told = write_transfer(dataset, teacher, student or scratch, spec, out / TRANSFER, layout, log, share, whole=whole)
    return _both(out, layout, facts, dataset.train, told) if whole else _together(written, told)


def _keep(
    dataset: Dataset, teacher: Teacher, scratch: Fitted, spec: LabelsSpec, out: Path, layout: Layout, log: Log
) -> dict[str, Any]:
    """Write what `spec` keeps beside the lists in `out`; returns the facts of it."""
    facts, seen = dict[str, Any](), dataset.train if spec.exclude_seen else None
    if spec.vectors or spec.item_depth or spec.reliability:
        made = ready_teacher(dataset, teacher, Sequences.of(dataset.train), seen, whole=True, compute=spec.compute)
        if spec.vectors:
            write_vectors(out, made, teacher)
        if spec.item_depth:
            write_by_item(out, made, layout, spec.item_depth, seen)
        if spec.reliability:
            found, facts["reliability"] = trust(dataset, made.score, _finder(dataset, scratch), spec.reliability)
            write_trust(out, found)
    if spec.gates and not missing(out, layout):  # of which the end of the store tells
        write_gates(out, dataset, teacher, layout, log)
    return facts


def _finder(dataset: Dataset, scratch: Fitted) -> Scorer:
    """Return what the scratch student says, of everything."""
    model = load(scratch.spec, dataset, scratch.artifact.path)
    found = vectors(model, dataset, Sequences.of(dataset.train), history_length(scratch.spec))
    return encoder_scorer(found.users, found.items)


def _both(
    out: Path, layout: Layout, facts: Mapping[str, Any], train: Interactions, beside: Mapping[str, Any]
) -> dict[str, Any]:
    """End the store of users, which says what is `beside` it; both were scored when the older of them was."""
    found = finish(out, layout, {**facts, "transfer": beside["transfer"]}, train)
    return found | {"scored_at": min(found["scored_at"], beside["scored_at"])}


def _together(users: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was written of two stores as if it were one, whose later shards are those of the second."""
    first = users["shards"]
    numbers = {name: [*users[name], *(first + shard for shard in beside[name])] for name in ("written", "missing")}
    return numbers | {"shards": first + beside["shards"]}


def teacher_lister(
    dataset: Dataset,
    teacher: Teacher,
    scratch: Fitted,
    spec: LabelsSpec,
    depth: int,
    sequences: Sequences,
    seen: Interactions | None,
    rest: int = 0,
) -> Lister:
    """Return the `depth` best of what a trained `teacher` scores, `seen` left out; `sequences` is what it may read.

    `rest` is how many samples a user are kept of what is outside the list. If nothing is left out, fold teachers score
    the training interactions too, each those that it did not learn from, and the lists say which fold that was.
    """
    choose = candidates(dataset, teacher, scratch, spec, sequences, seen)
    made = ready_teacher(dataset, teacher, sequences, seen, whole=choose is None, compute=spec.compute)
    return lister_of(made, dataset, teacher, depth, seen, choose, rest, spec.compute)


def candidates(
    dataset: Dataset,
    teacher: Teacher,
    scratch: Fitted,
    spec: LabelsSpec,
    sequences: Sequences,
    seen: Interactions | None,
) -> Pool | None:
    """Return which items are scored for a user: all of them (None), unless `teacher` ranks and `spec` names some."""
    if not teacher.ranks or spec.candidates is None:
        return None
    near = None
    if spec.candidates.ann:
        finder = load(scratch.spec, dataset, scratch.artifact.path)
        found = vectors(finder, dataset, sequences, history_length(scratch.spec))
        near = found.users, found.items
    choose = chooser(spec.candidates, dataset, near, dataset.train if seen is None else seen)
    own = choose is not None and teacher.folds and seen is None
    return with_own(choose, dataset.train) if own and choose is not None else choose


def ready_teacher(
    dataset: Dataset,
    teacher: Teacher,
    sequences: Sequences,
    seen: Interactions | None,
    *,
    whole: bool,
    compute: Precision,
) -> Ready:
    """Return a trained `teacher` that can score; `whole` says that a mixture is over the whole catalogue."""
    how = {"whole": whole, "compute": compute}
    if teacher.folds and seen is None:  # out of fold: what each model may read, and not recommend, is what it knows
        return speaker(dataset, teacher, read_recipe(teacher), sequences=None, seen=None, **how)
    return speaker(dataset, teacher, read_recipe(teacher), sequences=sequences, seen=seen, **how)


def lister_of(
    made: Ready,
    dataset: Dataset,
    teacher: Teacher,
    depth: int,
    seen: Interactions | None,
    choose: Pool | None,
    rest: int = 0,
    compute: Precision = "fp32",
) -> Lister:
    """Return the lists of `made`: from vectors if it has them, else from its scores."""
    if made.vectors is not None:
        return encoder_lister(*made.vectors, depth, seen, rest=rest, precision=compute)
    lister = scored_lister(made.score, dataset.num_items, depth, seen=seen, choose=choose, rest=rest)
    return labelled_folds(lister, dataset, teacher.folds) if teacher.folds and seen is None else lister
