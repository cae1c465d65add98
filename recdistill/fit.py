"""Data and a specification -> a trained model on disk: what surrounds the loop, the same for every model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.checkpoint import load_checkpoint, save_checkpoint
from recdistill.data.batches import Sampler, make_batches
from recdistill.data.sequences import Sequences
from recdistill.data.tasks import targets
from recdistill.distill.draws import Lists, Seen
from recdistill.distill.spec import ListTermSpec
from recdistill.distill.terms import ListTerm, Objective, make_term
from recdistill.metrics import hits, ndcg, relevant
from recdistill.models.build import Model, ModelSpec, build, history_length
from recdistill.models.ranker import Ranker
from recdistill.models.spec import RankerSpec, SequenceSpec, TrainSpec
from recdistill.models.tables import Distributed, Layout, PlainTable, Table, distribute
from recdistill.scoring import recommend, vectors
from recdistill.store import aside, write_text
from recdistill.train import Progress, finite, train
from recdistill.types import Candidates, Dataset, Int, Labels, Log
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
    layout: Layout = "auto",
    checkpoint_every: int = 500,
    labels: Labels | None = None,
    terms: Sequence[ListTermSpec] = (),
    keep: bool = False,
) -> dict[str, Any]:
    """Train a model and write it to `out`: weights.safetensors, curve.json, and an encoder's vectors; collective.

    `out` is there already, with what a killed run left in it.

    Without `terms` this is the teacher or the scratch student. A run that was killed goes on from its last
    checkpoint in `out` and ends in the same files. With `keep` the weights of every validation stay there too, as
    weights-<step>.safetensors. Returns what was reached.
    """
    made = [make_term(term, i) for i, term in enumerate(terms)]
    sequences = Sequences.of(dataset.train)
    sampler = _sampler(dataset, spec, settings, sequences, labels, made)
    model = _distributed(dataset, spec, settings, made, world, layout)
    plain = build(spec, dataset, PlainTable, seed=settings.seed)
    judge = partial(validate, plain, dataset, sequences=sequences, history=history_length(spec))
    steps = settings.epochs * sampler.steps_per_epoch
    at = _resume(out, model, world)

    def evaluate(step: int) -> float | None:
        weights = model.gather()
        return world.share(lambda: _keep_best(out, step, weights, plain, judge))

    def save(now: Progress, sums: Mapping[str, Tensor]) -> None:
        if now.step % checkpoint_every == 0 and now.step < steps:
            # What the ranks have summed each for itself is averaged, or the others' part would be lost on the way.
            means = _mean({name: value.clone() for name, value in sums.items()}, world)
            finite(means, now.step)
            save_checkpoint(out, model, now.step, asdict(replace(now, sums=means)), world, keep=keep)

    at = train(
        model,
        make_batches(sampler, world),
        at,
        steps=steps,
        every=settings.evaluate_every * sampler.steps_per_epoch,
        patience=settings.patience if len(dataset.valid) else 0,
        mean=partial(_mean, world=world),
        log=lambda step, values: log(name, step, steps, values),
        save=save,
        evaluate=evaluate,
    )
    best = at.best if len(dataset.valid) else None
    log(name, steps, steps, {} if best is None else {"valid": best})
    world.share(lambda: _finish(out, at, plain, dataset, sequences, history_length(spec), keep))
    return {"steps": at.step, "best_step": at.best_step, "valid_ndcg_at_10": best, "parameters": _count(plain)}


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
    dataset: Dataset, spec: ModelSpec, settings: TrainSpec, terms: Sequence[ListTerm], world: World, layout: Layout
) -> Distributed:
    model = build(spec, dataset, Table, seed=settings.seed)
    heads = {name: task.loss for name, task in spec.tasks.items()} if isinstance(spec, RankerSpec) else {}
    bf16 = settings.compute == "bf16"
    return distribute(
        Objective(model, loss=settings.loss, num_items=dataset.num_items, terms=terms, heads=heads, bf16=bf16),
        world,
        layout=layout,
        optimizer=settings.optimizer,
        lr=settings.lr,
        dense_lr=settings.dense_lr,
        weight_decay=settings.weight_decay,
        init_std=INIT_STD,
        seed=settings.seed,
    )


def _sampler(
    dataset: Dataset,
    spec: ModelSpec,
    settings: TrainSpec,
    sequences: Sequences,
    labels: Labels | None,
    terms: Sequence[ListTerm],
) -> Sampler:
    train = dataset.train
    keys = (torch.from_numpy(train.users()) * dataset.num_items + torch.from_numpy(np.array(train.items))).sort().values

    def draw(users: Tensor, items: Tensor, scores: Tensor, generator: torch.Generator) -> dict[str, Candidates]:
        lists = Lists(items, scores, Seen(users, keys, dataset.num_items))
        return {term.name: term.candidates(lists, generator) for term in terms}

    return Sampler(
        train=train,
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
        labels=labels if terms else None,
        list_users=settings.list_users,
        drawer=draw if terms else None,
    )


def _mean(sums: dict[str, Tensor], world: World) -> dict[str, float]:
    """Return each sum averaged over the ranks, whose batches are of one size."""
    if world.size > 1:
        import torch.distributed as dist

        for value in sums.values():
            dist.all_reduce(value)
    return {name: float(value) / world.size for name, value in sums.items()}


def _keep_best(
    out: Path, step: int, weights: dict[str, Tensor], plain: Model, judge: Callable[[], float | None]
) -> float | None:
    """Validate `weights` and keep them beside the checkpoints; those that prove not the best go with the next."""
    weights = {name.removeprefix("model."): value.contiguous() for name, value in weights.items()}
    plain.load_state_dict(weights)
    with aside(out / f"weights-{step}.safetensors") as file:
        save_file(weights, file)
    value = judge()
    plain.train()
    return value


def _resume(out: Path, model: Distributed, world: World) -> Progress:
    found = load_checkpoint(out, model, world)
    if found is None:
        return Progress()
    return Progress(**found | {"curve": tuple(found["curve"])})


def _finish(
    out: Path, at: Progress, plain: Model, dataset: Dataset, sequences: Sequences, history: int, keep: bool
) -> None:
    """Leave the best weights, the curve and the vectors; take the checkpoints away."""
    best = load_file(out / f"weights-{at.best_step}.safetensors")
    for old in [*(() if keep else out.glob("weights-*.safetensors")), *out.glob("checkpoint-*")]:
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    with aside(out / "weights.safetensors") as file:
        save_file(best, file)
    write_text(out / "curve.json", json.dumps([dict(point) for point in at.curve]))
    if isinstance(plain, Ranker):
        return
    plain.load_state_dict(best)
    found = vectors(plain, dataset, sequences, history)
    for side in ("users", "items"):
        with aside(out / f"{side}.npy") as file, file.open("wb") as handle:
            np.save(handle, getattr(found, side))


def _count(model: Model) -> int:
    return sum(p.numel() for p in model.parameters())
