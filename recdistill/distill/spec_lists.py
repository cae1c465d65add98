"""What a user writes about lists: what is taught of the drawn items (targets), and how it is compared (losses)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recdistill.spec import Spec

ScoreSpace = Literal["rank", "logit", "probability"]
"""What a teacher's scores mean, each more than the one before: the order, log-odds in a list, the logit of a chance."""


Level = Literal["given", "free"]
"""free: each row of the student's scores is shifted to the mean of the teacher's. A softmax or BPR task says nothing of
how high a user's scores are, and a pointwise loss that does would pull the listed items below all others."""


class RankScore(Spec):
    """The rank in place of the score, as -rank / temperature: what is left where only the order is known."""

    gives: ClassVar[ScoreSpace | None] = "logit"
    kind: Literal["rank"] = "rank"
    temperature: PositiveFloat = 10.0


class Scale(Spec):
    """The teacher's logit times `factor`."""

    gives: ClassVar[ScoreSpace | None] = None
    kind: Literal["scale"] = "scale"
    factor: PositiveFloat


class Adjust(Spec):
    """The teacher's score less `exponent` times log(1 + interactions of the item): a student of few dimensions spends
    them on what is popular, and this gives the tail its share back."""

    gives: ClassVar[ScoreSpace | None] = None
    kind: Literal["adjust"] = "adjust"
    exponent: PositiveFloat = 0.1


class Debias(Spec):
    """Teacher and student through the same correction for how the step's negatives were sampled."""

    gives: ClassVar[ScoreSpace | None] = None
    kind: Literal["debias"] = "debias"


class Adapted(Spec):
    """The teacher's logit through a small network that is trained on what the users took; its output is taught."""

    gives: ClassVar[ScoreSpace | None] = "probability"
    kind: Literal["adapted"] = "adapted"
    hidden: PositiveInt = 16
    loss: PositiveFloat = 1.0
    """Weight of its own cross-entropy, which reaches the student in no way."""


Target = Annotated[RankScore | Scale | Adjust | Debias | Adapted, Field(discriminator="kind")]


class SoftmaxKL(Spec):
    """KL of the student's softmax over the list from the teacher's, both at `temperature`."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["softmax_kl"] = "softmax_kl"
    temperature: PositiveFloat = 1.0
    whole: bool = False
    """The sampled draws stand for all that is not in the list, not for themselves."""


class ListCE(Spec):
    """Cross-entropy of the teacher's softmax over the ranked items with the student's over them and all below them.

    A temperature below one moves what is taught to the head of the list, where a short list's quality is decided.
    """

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["list_ce"] = "list_ce"
    temperature: PositiveFloat = 1.0
    """Of the teacher's scores alone."""
    whole: bool = False
    """As for softmax_kl."""


class GatedKL(Spec):
    """The KL of two lists of one draw, each normalised for itself, mixed by how little they overlap (RCE-KD)."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["gated_kl"] = "gated_kl"
    temperature: PositiveFloat = 1.0


class SoftBCE(Spec):
    """Pointwise cross-entropy with the teacher's sigmoid((score + shift) / temperature)."""

    needs: ClassVar[ScoreSpace] = "probability"
    kind: Literal["soft_bce"] = "soft_bce"
    level: Level = "given"
    temperature: PositiveFloat = 1.0
    shift: float = 0.0


class NormalisedCE(Spec):
    """Cross-entropy of the sigmoids, each normalised to a distribution over the list, which keeps calibration."""

    needs: ClassVar[ScoreSpace] = "probability"
    kind: Literal["normalised_ce"] = "normalised_ce"
    level: Level = "given"


class LogitMSE(Spec):
    """Squared difference of the logits, averaged over the list."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["logit_mse"] = "logit_mse"
    level: Level = "given"


class MarginMSE(Spec):
    """Squared difference of score differences: the first item of the list against each other one."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["margin_mse"] = "margin_mse"


class PlackettLuce(Spec):
    """Likelihood of the teacher's order, with the unranked draws below it (RRD, Kang et al., CIKM 2020)."""

    needs: ClassVar[ScoreSpace] = "rank"
    kind: Literal["plackett_luce"] = "plackett_luce"
    whole: bool = False
    """The sampled draws stand for all that is not in the list, not for themselves."""


class SampledPL(Spec):
    """Likelihood of `samples` orders drawn from the teacher's Plackett-Luce model (RankDistil)."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["sampled_pl"] = "sampled_pl"
    samples: PositiveInt = 8
    temperature: PositiveFloat = 1.0


class Independent(Spec):
    """Each ranked item against the unranked draws alone: ranked items do not compete (HetComp, first stage)."""

    needs: ClassVar[ScoreSpace] = "rank"
    kind: Literal["independent"] = "independent"
    whole: bool = False
    """As for plackett_luce."""


class HardBCE(Spec):
    """Ranked items as positives, weighted exp(-rank / decay) and by how much the student puts them too low.

    The second weight is tanh(sharpness * (estimated rank - rank)) from `start` epochs on, the student's rank
    estimated by the share of the unranked draws that it scores higher (RD).
    """

    needs: ClassVar[ScoreSpace] = "rank"
    kind: Literal["hard_bce"] = "hard_bce"
    decay: PositiveFloat = 1.0
    sharpness: PositiveFloat = 0.1
    start: Annotated[float, Field(ge=0)] = 10.0


class Pairwise(Spec):
    """The better item of each pair above the other: -log sigmoid of the student's difference (UnKD)."""

    needs: ClassVar[ScoreSpace] = "rank"
    kind: Literal["pairwise"] = "pairwise"


ListLoss = Annotated[
    SoftmaxKL
    | ListCE
    | GatedKL
    | SoftBCE
    | NormalisedCE
    | LogitMSE
    | MarginMSE
    | PlackettLuce
    | SampledPL
    | Independent
    | HardBCE
    | Pairwise,
    Field(discriminator="kind"),
]
