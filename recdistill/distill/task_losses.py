"""How student scores are compared with what users took and declared: pure functions that return one value a row.

The caller takes the mean, as with the list losses. Scores are logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from recdistill.distill.logsumexp import logsumexp_but


def bpr(positive: Tensor, negatives: Tensor) -> Tensor:
    """Return -log sigmoid(s+ - s-), averaged over the row's negatives: positive [B], negatives [B,N] -> [B].

    Rendle et al. (BPR, UAI 2009), without the regulariser.
    """
    return -logsigmoid(positive.unsqueeze(1) - negatives).mean(1)


def sampled_softmax(
    positive: Tensor, negatives: Tensor, collides: tuple[Tensor, Tensor], *, log_share: float
) -> Tensor:
    """Return the cross-entropy of the positive against sampled items, corrected for how they were sampled: [B].

    positive [B], negatives [B,N], collides the rows, which rise, and columns [m] where a negative is the positive
    itself. `log_share` is the log of the expected number of times an item is among the negatives (logQ): subtracting
    it makes the denominator an estimate of the whole catalogue's (Bengio and Senecal, 2008).
    """
    rest = logsumexp_but(negatives, *collides) - log_share
    return torch.logaddexp(positive, rest) - positive


def full_softmax(positive: Tensor, everything: Tensor) -> Tensor:
    """Return the cross-entropy of the positive [B] against every item of the catalogue [B,I], itself included: [B]."""
    none = torch.zeros(0, dtype=torch.int64, device=everything.device)
    return logsumexp_but(everything, none, none) - positive


def told(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of sigmoid(logits) [B] with what was declared [B], 0 where that is NaN: [B]."""
    known = ~torch.isnan(targets)
    each = binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return torch.where(known, each, 0.0)
