"""The label store of histories that nobody had: made from the log, listed by the teacher, kept beside their lists."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recdistill.data.sequences import Sequences
from recdistill.distill.spec import LabelsSpec
from recdistill.distill.spec_transfer import Dropout, Flips, Splice
from recdistill.ensemble import read_recipe
from recdistill.errors import ConfigError, DataError
from recdistill.fit import load
from recdistill.labels import Layout, Lister, read_histories, write_histories
from recdistill.members import lined_vectors
from recdistill.models.build import Model, history_length
from recdistill.models.encoders import TwoTower
from recdistill.models.ranker import Ranker
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted
from recdistill.scoring import scaled, vectors
from recdistill.shards import Share, finish, write_shards
from recdistill.store import aside
from recdistill.transfer.against import Tower, disputed
from recdistill.transfer.histories import dropout, longest, mates, shares, splice
from recdistill.transfer.teach import history_lister, history_vectors, ranker_history_lister
from recdistill.types import Dataset, Float, Int, Interactions, Log, Synthetic

APART = "apart.npy"  # how far flips part student and teacher: of each the parent and the history itself, [S,2]


@dataclass(frozen=True, slots=True)
class Told:
    """One model that can be asked about a history, how many items of it it reads, and the line of its scores."""

    model: Model
    history: int
    line: tuple[float, float]  # scale and shift


def write_transfer(
    dataset: Dataset,
    teacher: Teacher,
    student: Fitted,
    spec: LabelsSpec,
    out: Path,
    users: Layout,
    log: Log,
    share: Share | None,
    *,
    whole: bool,
) -> dict[str, Any]:
    """Write what `teacher` says of the histories of `spec.transfer` to the store `out`, cut as that of `users` is.

    The shards of `share` (none if None), and its end if `whole`: the histories, which every process makes alike, and
    the teacher's vectors of them where `spec` keeps vectors. `student` is whom flips are made against. Returns the
    facts of the whole store, or what `write_shards` says of its part. Raises ConfigError if the teacher cannot be
    asked, or a share is asked of flips, DataError if nobody has a history.
    """
    transfer, told, facts = spec.transfer, one_model(dataset, teacher), dict[str, Any]()
    assert transfer is not None
    if not len(dataset.train):
        fix = "lower log.min_user, or leave labels.transfer out"
        raise DataError("nobody has a history to make others from", where="labels.transfer", fix=fix)
    out.mkdir(exist_ok=True)
    if isinstance(transfer, Flips):
        if share is not None and share.of > 1:
            what = "machines do not round alike what two models say, so each would edit other items"
            raise ConfigError(what, where="--shard", fix="label flips on one machine, with `recdistill run`")
        synthetic, facts["apart"] = flipped(dataset, told, student, transfer, spec.depth, out)
    else:
        synthetic = histories(dataset.train, transfer, told.history)
    layout = replace(users, num_users=len(synthetic), along=(0, 0, 0))

    def make() -> Lister:
        return lister(dataset, told, synthetic, spec)

    written = write_shards(out, layout, make, log, share) if share is not None else {}
    if not whole:
        return written
    write_histories(out, synthetic)
    if spec.vectors:
        assert not isinstance(told.model, Ranker)
        sides = history_vectors(told.model, synthetic, told.history), items_of(dataset, told)
        with aside(out / "users.npy") as file, file.open("wb") as handle:
            np.save(handle, np.ascontiguousarray(lined_vectors(*sides, *told.line)[0], dtype=np.float32))
    # In how many rounds a student learns is no part of what its labels are.
    made = {**transfer.model_dump(exclude={"rounds"}), "history": told.history, "rows": len(synthetic), **facts}
    return finish(out, layout, {"side": "histories", "transfer": made}, synthetic.interactions)


def flipped(
    dataset: Dataset, told: Told, student: Fitted, transfer: Flips, depth: int, out: Path
) -> tuple[Synthetic, dict[str, float]]:
    """Return the histories that part `student` from its teacher, written to `out`, and how far: means, and how often.

    Those that are there already are read: a command that goes on need not round as the one before it did.
    """
    file = out / APART
    if not file.is_file():
        train, reads = dataset.train, history_length(student.spec)
        users = np.flatnonzero(np.diff(train.indptr))
        rows = max(round(transfer.rows * len(users)), 1)
        chosen = np.sort(np.random.Generator(np.random.Philox(transfer.seed)).permutation(users)[:rows])
        models = told.model, load(student.spec, dataset, student.artifact.path)
        teacher, learner = (model for model in models if isinstance(model, TwoTower))  # load_config has checked it
        sides = Tower(teacher, told.line[0]), Tower(learner)
        found = disputed(train, *sides, history=reads, depth=depth, count=transfer.count, users=chosen)
        write_histories(out, found.synthetic)
        with aside(file) as new, new.open("wb") as handle:
            np.save(handle, found.apart)
    before, after = np.load(file).T
    how = {"parents": float(before.mean()), "histories": float(after.mean()), "rose": float((after > before).mean())}
    return read_histories(out), how


def histories(train: Interactions, transfer: Dropout | Splice, history: int) -> Synthetic:
    """Return the histories that `transfer` asks for: a function of the log, its settings, and what the teacher reads.

    What is spliced is the last `history` items of each user, so that its share of the two is that of what is read; the
    times of both end together. A part of a round of pairs is a random one.
    """
    generator = np.random.Generator(np.random.Philox(transfer.seed))
    if not isinstance(transfer, Splice):
        return dropout(train, transfer.rate, transfer.copies, generator)
    users = int((np.diff(train.indptr) > 0).sum())
    rows, partners = max(round(transfer.rows * users), min(users, 1)), list[Int]()
    for left in range(rows, 0, -max(users, 1)):
        pairs = mates(train, generator)
        partners.append(pairs[np.sort(generator.permutation(len(pairs))[:left])])
    both = np.concatenate([np.zeros((0, 2), np.int64), *partners])
    mu = shares(len(both), generator, transfer.concentration)
    return splice(longest(train, history), both, mu, generator, aligned=True)


def one_model(dataset: Dataset, teacher: Teacher, where: str = "labels.transfer") -> Told:
    """Return the model of `teacher`; raises ConfigError, of the setting `where`, unless it is one with a history."""
    recipe = read_recipe(teacher)
    history = history_length(teacher.models[0].spec) if teacher.models else 0
    if len(recipe.members) != 1 or teacher.folds or not history:
        what = "needs a teacher that is one model and reads a history: nobody else can be asked about one"
        raise ConfigError(what, where=where, fix="leave it out, or take a two_tower, sequence or ranker")
    fitted, line = teacher.models[recipe.members[0].model], (recipe.scale, recipe.shift)
    return Told(load(fitted.spec, dataset, fitted.artifact.path, recipe.members[0].weights), history, line)


def lister(dataset: Dataset, told: Told, synthetic: Synthetic, spec: LabelsSpec) -> Lister:
    """Return the lists that the model gives `synthetic`, as `spec` wants those of users."""
    how = {"exclude": spec.exclude_seen, "rest": spec.rest, "line": told.line}
    if isinstance(told.model, Ranker):
        dtype = torch.bfloat16 if spec.compute == "bf16" else torch.float32
        size = dataset.num_items
        return ranker_history_lister(
            told.model, synthetic, told.history, spec.depth, num_items=size, dtype=dtype, **how
        )
    items = items_of(dataset, told)
    return history_lister(told.model, items, synthetic, told.history, spec.depth, precision=spec.compute, **how)


def items_of(dataset: Dataset, told: Told) -> Float:
    """Return an encoder's vectors of the items, [I,D]."""
    assert not isinstance(told.model, Ranker)
    found = vectors(told.model, dataset, Sequences.of(dataset.train), told.history)
    return scaled(found, told.model.temperature)[1]
