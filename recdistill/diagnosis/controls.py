"""Controls: what a student is taught whose teacher lacks one thing, all else being equal.

A control of terms swaps what is taught; one of labels is a label store like any other, made from the run's own: see
`stores`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from recdistill.distill.spec import ListTermSpec, TermSpec
from recdistill.distill.spec_draws import Draw, Own, Top, Unseen
from recdistill.distill.spec_lists import SoftmaxKL
from recdistill.distill.spec_targets import Pt, Scale, Smooth

Kind = Literal["smooth", "pt", "strangers", "mean"]
OWN, UNSEEN, SHARE, K = 20, 80, 0.1, 100  # as in the presets of partial teachers
PLACES = ("top", "ranked", "pairs", "closure")  # draws of the teacher's list that say how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """What a control is called, and what its teacher lacks."""

    name: str
    lacks: str


CONTROLS: Mapping[Kind, Lacking] = {
    "smooth": Lacking(name="label smoothing", lacks="all it knows: what was taken shares 0.9, some other items 0.1"),
    "pt": Lacking(name="KD-pt", lacks="all but how sure it is of what was taken"),
    "strangers": Lacking(name="another user's lists", lacks="whose lists they are"),
    "mean": Lacking(name="population mean", lacks="the user: everybody is taught one list"),
}


def control_terms(kind: Kind, terms: Sequence[TermSpec], depth: int) -> tuple[TermSpec, ...]:
    """Return `terms` as the control `kind` is taught; those of which nothing would be left are left out.

    Terms of label smoothing and of KD-pt draw the head of the list, `depth` at most, some of what was taken and some
    of the rest, and compare by KL: no other loss reads them. Weights and phases stay. What is in a history that nobody
    had counts as taken by it.
    """
    if kind == "strangers":  # at which items of a history to look, nobody else's teacher says
        return tuple(term for term in terms if term.kind != "gates")
    found = []
    for term in terms:
        if isinstance(term, ListTermSpec) and term.teacher != "labels":
            found.append(term)  # who learns from or teaches a partner does so in any case
        elif isinstance(term, ListTermSpec) and term.side == "users" and not _along(term):
            found.append(term if kind == "mean" else _partial(kind, term, depth))
    return tuple(found)


def cooled_terms(terms: Sequence[TermSpec], temperature: float) -> tuple[TermSpec, ...]:
    """Return `terms` with the teacher's scores over `temperature`; none if no term reads the labels' scores."""
    found, changed = list[TermSpec](), False
    for term in terms:
        taught = isinstance(term, ListTermSpec) and term.teacher == "labels" and term.loss.kind != "subclass_kl"
        if isinstance(term, ListTermSpec) and taught and term.loss.needs != "rank":
            changed = True
            term = term.model_copy(update={"target": (*term.target, Scale(factor=1 / temperature))})
        found.append(term)
    return tuple(found) if changed else ()


def _along(term: ListTermSpec) -> bool:
    return any(draw.kind == "trajectory" for draw in term.draw)


def _partial(kind: Kind, term: ListTermSpec, depth: int) -> ListTermSpec:
    wanted = [getattr(draw, "k", getattr(draw, "n", K)) for draw in term.draw if draw.kind in PLACES]
    draws: tuple[Draw, ...] = (Top(k=min(max(wanted, default=K), depth)), Own(n=OWN), Unseen(n=UNSEEN))
    target = Smooth(share=SHARE) if kind == "smooth" else Pt()
    return term.model_copy(update={"draw": draws, "target": (target,), "loss": SoftmaxKL(), "signal": None})
