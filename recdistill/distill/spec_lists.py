"""What a user writes about lists: how the student's scores of the drawn items are compared with what is taught."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recdistill.distill.spec_subclass import SubclassKL
from recdistill.distill.spec_targets import ScoreSpace
from recdistill.spec import Spec

Level = Literal["given", "free"]
"""free: each row of the student's scores is shifted to the mean of the teacher's. A softmax or BPR task says nothing of
how high a user's scores are, and a pointwise loss that does would pull the listed items below all others."""


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


class GroupedKL(Spec):
    """The KL by its chain rule over parts of the list: of their masses, and within each, every one with its weight."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["grouped_kl"] = "grouped_kl"
    temperature: PositiveFloat = 1.0
    by: Literal["taken", "popularity"] = "taken"
    """taken: what the user did not take is the first part, what it took the second; popularity: groups of equal mass,
    the least popular first."""
    groups: Annotated[int, Field(ge=2)] = 4
    """Of popularity."""
    between: Annotated[float, Field(ge=0)] = 1.0
    within: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Weight of each part's inside; left out, its mass in the teacher's distribution, as in the plain KL."""

    @property
    def parts(self) -> int:
        return 2 if self.by == "taken" else self.groups


class HingeMSE(Spec):
    """Squared difference of centred scores beyond a margin; the teacher's grow from 1 / `hottest` to themselves
    (Continuation-KD)."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["hinge_mse"] = "hinge_mse"
    margin: Annotated[float, Field(ge=0)] = 0.0
    hottest: Annotated[float, Field(ge=1)] = 10.0
    """The temperature that training begins with; it falls to 1, evenly over the epochs."""


class Path(Spec):
    """Squared difference of the log-chances of each next item, along an order drawn from the student (path
    consistency)."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["path"] = "path"
    length: PositiveInt = 10
    temperature: PositiveFloat = 1.0


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
    | Pairwise
    | GroupedKL
    | HingeMSE
    | Path
    | SubclassKL,
    Field(discriminator="kind"),
]
