"""What a user writes about vectors: through which adapter the student's are compared with the teacher's, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recdistill.spec import Spec


class Linear(Spec):
    """One matrix from the student's width to the teacher's."""

    kind: Literal["linear"] = "linear"


class Orthogonal(Spec):
    """A matrix with orthonormal columns: what it maps keeps its lengths and angles (VkD)."""

    kind: Literal["orthogonal"] = "orthogonal"


class MLP(Spec):
    """One hidden layer, `ratio` times as wide as the student's vectors (FitNet)."""

    kind: Literal["mlp"] = "mlp"
    ratio: PositiveInt = 5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


class Experts(Spec):
    """`experts` small networks, one chosen by the teacher's vector through a Gumbel gate that hardens (DE)."""

    kind: Literal["experts"] = "experts"
    experts: PositiveInt = 30
    anneal: Annotated[float, Field(gt=0, lt=1)] = 1e-10
    """Temperature of the gate at the end of training; it begins at 1 and falls exponentially."""


Adapter = Annotated[Linear | Orthogonal | MLP | Experts, Field(discriminator="kind")]


class Distance(Spec):
    """Squared distance of the adapted vectors from the teacher's, or one minus their cosine."""

    kind: Literal["distance"] = "distance"
    adapter: Adapter
    metric: Literal["squared", "cosine"] = "squared"


class Gram(Spec):
    """Squared differences of all cosines among a step's entities (FTD)."""

    kind: Literal["gram"] = "gram"


class Topology(Spec):
    """Cosines within groups and between groups' means and entities, and each group's own expert (HTD)."""

    kind: Literal["topology"] = "topology"
    groups: PositiveInt = 30
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the cosines; the rest is of the experts' distances."""
    anneal: Annotated[float, Field(gt=0, lt=1)] = 1e-10


class Similarity(Spec):
    """Squared differences of the rows of inner products among a step's entities (similarity-preserving)."""

    kind: Literal["similarity"] = "similarity"


class Rotation(Spec):
    """Squared distance from the teacher's vectors, cut to the student's width and turned to come nearest."""

    kind: Literal["rotation"] = "rotation"


AlignLoss = Annotated[Distance | Gram | Topology | Similarity | Rotation, Field(discriminator="kind")]


class Filter(Spec):
    """Only what is smooth over a graph of entities that are taken together is compared (FreqD)."""

    neighbours: PositiveInt = 5
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the neighbours' mean; the rest is the entity's own vector."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the student's edges that a step keeps."""


class Preserve(Spec):
    """The adapter keeps the student's own ranking: cross-entropy of scores before it with scores after it (PCKD)."""

    weight: PositiveFloat = 0.1
    k: PositiveInt = 5
    """Items a user whose ranking is kept, of the teacher's list."""
    draw_temperature: PositiveFloat = 10.0
    temperature: PositiveFloat = 0.1
