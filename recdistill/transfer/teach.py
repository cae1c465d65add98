"""What a trained teacher says of histories that nobody had: vectors and lists, as it says them of a user.

No user stands behind such a history, so its id is hidden from the teacher (-1). One that hid ids in its training too
(`id_dropout`) has learned what to say then; one that never did has not, unless the history is all that it reads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.data.sequences import Sequences
from recdistill.labels import Lister
from recdistill.members import lined, lined_vectors
from recdistill.models.encoders import Encoder
from recdistill.models.lengths import unit
from recdistill.models.pairs import PairScorer
from recdistill.models.ranker import Ranker
from recdistill.scoring import PAIRS_OF_PLACES, USERS_PER_BLOCK
from recdistill.teachers import encoder_lister, scored_lister
from recdistill.topk import Precision, blocks
from recdistill.types import Float, Int, Synthetic


@torch.inference_mode()
def history_vectors(model: Encoder, synthetic: Synthetic, history: int) -> Float:
    """Return an encoder's vectors of histories, [S,D], whose inner product with its items' is the logit.

    The items' are those of `scoring.scaled`. `history` is how many items the model reads, the latest; it must read
    some. In blocks of rows.
    """
    assert history > 0, "a model without a history says the same of every one"
    assert len(synthetic), "there are no histories"
    sequences = Sequences.of(synthetic.interactions)
    found = list[Tensor]()
    nothing = torch.zeros(0, dtype=torch.int64)
    for start, stop in blocks(len(synthetic), max(1, min(USERS_PER_BLOCK, PAIRS_OF_PLACES // history**2))):
        past = sequences.latest(torch.arange(start, stop), history)
        left, _ = model.vectors(torch.full((stop - start,), -1), past, nothing)
        found.append(unit(left, model.space) / model.temperature)
    return torch.cat(found).numpy()


def history_lister(
    model: Encoder,
    items: Float,
    synthetic: Synthetic,
    history: int,
    depth: int,
    *,
    exclude: bool = True,
    rest: int = 0,
    precision: Precision = "fp32",
    line: tuple[float, float] = (1.0, 0.0),
) -> Lister:
    """Return the function from rows [n] of `synthetic` to an encoder's best `depth` items that they do not hold.

    items [I,D] are its vectors (`scoring.scaled`), history how many items it reads; `rest` uniform samples of what is
    outside the list. Without `exclude` what a history holds may be listed too. Scores go through the `line`, of scale
    and shift. The vectors of all rows are computed here, the lists where they are asked for, in blocks.
    """
    sides = lined_vectors(history_vectors(model, synthetic, history), items, *line)
    return encoder_lister(*sides, depth, synthetic.interactions if exclude else None, rest=rest, precision=precision)


def ranker_history_lister(
    model: Ranker,
    synthetic: Synthetic,
    history: int,
    depth: int,
    *,
    num_items: int,
    exclude: bool = True,
    rest: int = 0,
    dtype: torch.dtype = torch.float32,
    line: tuple[float, float] = (1.0, 0.0),
) -> Lister:
    """Return the function from rows [n] of `synthetic` to a ranker's best `depth` items that they do not hold.

    It scores the whole catalogue for each, computed in `dtype`; features of users are hidden with their ids. Without
    `exclude` what a history holds may be listed too; scores go through the `line`, of scale and shift.
    """
    sequences, pairs_of = Sequences.of(synthetic.interactions), PairScorer(model, num_items, dtype)

    def score(rows: Int, asked: Tensor | None) -> Tensor:
        nobody = torch.full((len(rows),), -1)
        return pairs_of(nobody, sequences.latest(torch.from_numpy(rows), history), asked)

    seen = synthetic.interactions if exclude else None
    return scored_lister(lined(score, *line), num_items, depth, seen=seen, rest=rest)
