"""Data and a specification -> a trained model on disk: what surrounds the loop, the same for every model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.axes import served
from recdistill.begin import end, resume, starts
from recdistill.checkpoint import drop_checkpoints
from recdistill.data.batches import Sampler
from recdistill.data.prefetch import batches_ahead
from recdistill.data.sequences import Sequences
from recdistill.data.tasks import targets
from recdistill.distill.compose import make_terms
from recdistill.distill.objective import Objective, Widths
from recdistill.distill.spec_transfer import asked
from recdistill.errors import ConfigError
from recdistill.finite import finite_rows, means
from recdistill.guide import Ask
from recdistill.keeper import Keeper, only, reached
from recdistill.lessons import Lessons, make_lessons
from recdistill.metrics import hits, ndcg, relevant
from recdistill.models.build import Model, ModelSpec, build, history_length, widths
from recdistill.models.ranker import Ranker
from recdistill.models.spec import RankerSpec, SequenceSpec, TrainSpec
from recdistill.models.tables import Distributed, PlainTable, Table, distribute
from recdistill.placing import Where, told
from recdistill.scoring import recommend, scaled, vectors
from recdistill.settle import settler
from recdistill.store import aside, write_text
from recdistill.subclasses import classes_of, kept_head, taught_subs
from recdistill.teaching import Teaching, actor_of, make_guide, parts
from recdistill.train import RATES, Progress, Stopwatch, train
from recdistill.types import Dataset, Float, Int, Log
from recdistill.world import World

INIT_STD = 0.1
VALID_K = 10
VALID_PAIRS = 1_000_000  # of a ranker's validation: users times items
VALID_USERS = 10_000


def fit(
    dataset: Dataset,
    spec: ModelSpec,
    settings: TrainSpec,
    out: Path,
    *,
    name: str,
    world: World,
    log: Log,
    layout: Where = "auto",
    checkpoint_every: int = 500,
    teaching: Teaching | None = None,
    keep: bool = False,
    after: Path | None = None,
    part: tuple[int, int] = (0, 1),
    prefetch: int = 0,
    since: Path | None = None,
) -> dict[str, Any]:  # long: the steps of a training, in their order
    """Write weights.safetensors, curve.json and an encoder's vectors to `out`, return what was reached; collective.

    Without `teaching` this is the teacher or the scratch student. A killed one goes on from its checkpoint in `out`, to
    the same files; `keep` leaves each validation's weights-<step>.safetensors. It begins with what the fit at `after`
    learned, or yesterday's teacher left at `since`; `part` k of K with all that the last one kept.
    """
    sequences = Sequences.of(dataset.train)
    sampler = _sampler(dataset, spec, settings, sequences)
    steps = settings.epochs * sampler.steps_per_epoch
    until = end(part, settings.epochs, sampler.steps_per_epoch)
    plain = build(spec, dataset, PlainTable, seed=settings.seed)

    def ask() -> dict[str, tuple[Float, Float]]:
        return model_vectors(model.gather(), spec, teaching, dataset, sequences)

    lessons = _lessons(teaching, dataset, spec, settings, sampler, out, world, ask)
    sampler = _taught(sampler, lessons, settings, world)
    before = after, since
    model = told(_distributed(dataset, spec, settings, lessons, teaching, world, layout, before), out, name, world, log)
    judge = partial(validate, plain, dataset, sequences=sequences, history=history_length(spec))
    at, clock = resume(out, model, world, after, log), Stopwatch()
    prune = None if lessons is None or lessons.guide is None else lessons.guide.prune
    settle = settler(spec, teaching, partial(served, spec=spec, dataset=dataset, sequences=sequences))
    keeper = Keeper(out, model, plain, judge, world, clock, steps, checkpoint_every, keep, prune, settle, name)
    done = train(
        model,
        batches_ahead(sampler, world, until, prefetch),
        at,
        steps=steps,
        until=until,
        every=settings.evaluate_every * sampler.steps_per_epoch,
        patience=settings.patience if len(dataset.valid) else 0,
        rate=RATES[settings.decay],
        mean=partial(means, world=world, where=name),
        log=lambda step, values: log(name, step, steps, values),
        save=keeper.save,
        evaluate=keeper.evaluate,
        leave=keeper.leave if until < steps else None,
    )
    facts = reached(done, plain, dataset, clock.read(), (done.step - at.step) / sampler.steps_per_epoch)
    log(name, steps, steps, {} if facts["valid_ndcg_at_10"] is None else {"valid": done.best})
    latest = model.gather() if until < steps else None
    return facts | world.share(lambda: _finish(done, keeper, dataset, sequences, history_length(spec), latest))


def load(spec: ModelSpec, dataset: Dataset, path: Path, weights: str = "weights.safetensors") -> Model:
    """Return the plain model that `fit` wrote to `path`; `weights` may name those of another validation."""
    model = build(spec, dataset, PlainTable, seed=0)
    model.load_state_dict(load_file(path / weights))
    return model.eval()


def validate(model: Model, dataset: Dataset, *, sequences: Sequences, history: int) -> float | None:
    """Return NDCG@10 on (a sample of) the users with validation items, training items masked; None without any."""
    users = validation_users(dataset, ranker=isinstance(model, Ranker))
    if not len(users):
        return None
    lists = recommend(model, dataset, users, VALID_K, sequences=sequences, history=history, seen=dataset.train)
    return float(ndcg(hits(lists, dataset.valid, users), relevant(dataset.valid, users), VALID_K).mean())


def validation_users(dataset: Dataset, *, ranker: bool) -> Int:
    """Return the users to validate on: all that have something to find, or a sample that keeps it quick."""
    users = np.flatnonzero(np.diff(dataset.valid.indptr))
    limit = max(64, VALID_PAIRS // dataset.num_items) if ranker else VALID_USERS
    if len(users) <= limit:
        return users
    return np.sort(np.random.Generator(np.random.Philox(11)).choice(users, limit, replace=False))


def _distributed(
    dataset: Dataset,
    spec: ModelSpec,
    settings: TrainSpec,
    lessons: Lessons | None,
    teaching: Teaching | None,
    world: World,
    layout: Where,
    before: tuple[Path | None, Path | None],
) -> Distributed:
    model, partner = build(spec, dataset, Table, seed=settings.seed), None
    if teaching is not None and teaching.partner is not None:
        partner = build(teaching.partner, dataset, Table, seed=settings.seed)
    heads = {name: task.loss for name, task in spec.tasks.items()} if isinstance(spec, RankerSpec) else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # every rank builds the same modules of its terms
        objective = Objective(
            model,
            loss=settings.loss,
            num_items=dataset.num_items,
            terms=() if lessons is None else lessons.terms,
            heads=heads,
            bf16=settings.compute == "bf16",
            widths=Widths(*widths(model), *(() if lessons is None else lessons.widths), subs=taught_subs(teaching)),
            partner=partner,
            task=1.0 if teaching is None else teaching.task,
            parts=parts(teaching, settings.epochs, spec.dim),
            actor=actor_of(teaching, settings.seed),
            classes=classes_of(spec, settings),
        )
    return distribute(
        objective,
        world,
        layout=layout,
        optimizer=settings.optimizer,
        lr=settings.lr,
        dense_lr=settings.dense_lr,
        weight_decay=settings.weight_decay,
        init_std=INIT_STD,
        seed=settings.seed,
        starts=starts(model, spec, teaching, *before, std=INIT_STD, seed=settings.seed),
    )


def _lessons(
    teaching: Teaching | None,
    dataset: Dataset,
    spec: ModelSpec,
    settings: TrainSpec,
    sampler: Sampler,
    out: Path,
    world: World,
    ask: Ask,
) -> Lessons | None:
    """Return what is drawn for each step; a partner that reads a history has the batches bring it along."""
    if teaching is None:
        return None
    counts = torch.bincount(torch.from_numpy(np.array(dataset.train.items)), minlength=dataset.num_items)
    terms = make_terms(teaching.terms, num_items=dataset.num_items, epochs=settings.epochs, counts=counts)
    guide = make_guide(teaching, dataset, out, world, ask, sampler.steps_per_epoch, getattr(spec, "temperature", 1.0))
    history = max(sampler.history, 0 if teaching.partner is None else history_length(teaching.partner))
    steps = settings.epochs * sampler.steps_per_epoch
    return make_lessons(dataset, teaching.labels, terms, guide, sampler.sequences, history, steps)


def _sampler(dataset: Dataset, spec: ModelSpec, settings: TrainSpec, sequences: Sequences) -> Sampler:
    return Sampler(
        train=dataset.train,
        num_items=dataset.num_items,
        sequences=sequences,
        batch=settings.batch,
        negatives=settings.negatives,
        own_negatives=settings.loss == "bpr" or isinstance(spec, RankerSpec),
        history=history_length(spec),
        windows=isinstance(spec, SequenceSpec),
        item_dropout=spec.item_dropout if isinstance(spec, SequenceSpec) else 0.0,
        seed=settings.seed,
        tasks=targets(dataset, spec.tasks) if isinstance(spec, RankerSpec) else {},
    )


def _taught(sampler: Sampler, lessons: Lessons | None, settings: TrainSpec, world: World) -> Sampler:
    """Return `sampler` with what lists are drawn for: users, and where the labels have them histories nobody had.

    Raises ConfigError if the ranks cannot share either of both evenly.
    """
    if lessons is None:
        return sampler
    sampler = replace(sampler, lessons=lessons, list_users=settings.list_users, history=lessons.history)
    if lessons.labels is None or lessons.labels.transfer is None:
        return sampler
    lists, synthetic = lessons.labels.transfer
    rows = asked(settings.list_users, lists.facts["transfer"]["share"])
    if rows % world.size:
        what = f"{rows} of the {settings.list_users} rows of student.train.list_users are histories nobody had"
        fix = f"make list_users, times labels.transfer.share, a multiple of {world.size}"
        raise ConfigError(f"{what}, which {world.size} processes cannot share evenly", where="torchrun", fix=fix)
    return replace(sampler, transfer=Sequences.of(synthetic.interactions), transfer_rows=rows)


def model_vectors(
    weights: Mapping[str, Tensor], spec: ModelSpec, teaching: Teaching | None, dataset: Dataset, sequences: Sequences
) -> dict[str, tuple[Float, Float]]:
    """Return the vectors of the student, and of its partner, whose gathered `weights` these are; none off rank 0."""
    found: dict[str, tuple[Float, Float]] = {}
    models = {"student": ("model.", spec)}
    if teaching is not None and teaching.partner is not None:
        models["partner"] = ("partner.", teaching.partner)
    for called, (prefix, one) in models.items() if weights else ():
        model = build(one, dataset, PlainTable, seed=0)
        model.load_state_dict(only(weights, prefix))
        sides = vectors(model, dataset, sequences, history_length(one))
        found[called] = sides.users, sides.items
    return found


def _finish(
    at: Progress, keeper: Keeper, dataset: Dataset, sequences: Sequences, history: int, latest: dict[str, Tensor] | None
) -> dict[str, Any]:
    """Leave the best weights, the curve and the vectors; take the checkpoints away; return facts of a head's use.

    Of a training that goes on from its `latest` weights, those are left, and all that it goes on with.
    """
    out, plain = keeper.out, keeper.plain
    left = load_file(out / f"weights-{at.best_step}.safetensors") if latest is None else keeper.served(latest)
    with aside(out / "weights.safetensors") as file:
        save_file(left, file)
    write_text(out / "curve.json", json.dumps([dict(point) for point in at.curve]))
    facts = dict[str, Any]()
    if not isinstance(plain, Ranker):
        plain.load_state_dict(left)
        found = vectors(plain, dataset, sequences, history)
        for side in ("users", "items"):
            with aside(out / f"{side}.npy") as file, file.open("wb") as handle:
                np.save(handle, finite_rows(getattr(found, side), where=keeper.name, what=f"vectors of {side}"))
        facts = kept_head(out, at.best_step, scaled(found, plain.temperature), dataset)
    if latest is None:  # last, and the checkpoint first: whoever is stopped before goes on from it
        drop_checkpoints(out)
        for old in [*(() if keeper.keep else out.glob("weights-*.safetensors")), *out.glob("guide-*")]:
            old.unlink()
    return facts
