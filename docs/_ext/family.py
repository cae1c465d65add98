"""The family of methods as Markdown: what each preset is made of, read from the preset."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import get_args

from recdistill.distill.spec import AlignTermSpec, ListTermSpec, TermSpec
from recdistill.distill.spec_align import AlignLoss
from recdistill.distill.spec_draws import Draw
from recdistill.distill.spec_lists import ListLoss
from recdistill.distill.spec_targets import Target
from recdistill.methods import Changes, Method, load_method, presets

TEACHES = {
    # What a loss makes of the teacher's scores or vectors. The one table that is written by hand: a test holds it
    # against the losses that there are.
    "single scores": ("soft_bce", "logit_mse"),
    "differences": ("margin_mse", "hinge_mse", "pairwise"),
    "a distribution": (
        *("softmax_kl", "list_ce", "gated_kl", "normalised_ce", "sampled_pl", "grouped_kl", "subclass_kl", "path"),
    ),
    "an order": ("plackett_luce", "independent", "hard_bce"),
    "vectors": ("distance", "rotation"),
    "relations": ("gram", "topology", "similarity"),
    "where it looks": ("gates",),
}
FROM = {
    # Where the items lie that a draw may give.
    "the teacher's list": ("top", "ranked", "pairs", "trajectory"),
    "outside it": ("unseen", "rest", "whole"),
    "the student's list": ("student_top", "student_ranked", "rank_gap", "closure"),
    "the log": ("own", "in_batch"),
}
TOLD = ("vectors", "item_depth", "trajectory", "gates", "partner")  # settings that `needs` names, or a term's teacher
NO_LIST = "no list"  # of terms over vectors: the users and items of the step
FAMILIES = {"": "Methods for recommenders", "seeds": "Papers on why distillation works"}


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset and its name."""

    name: str
    family: str
    path: Path
    method: Method

    @property
    def link(self) -> str:
        return f"[{self.name}](../reference/methods.md#method-{self.name})"


def read(families: Iterable[str] = FAMILIES) -> list[Preset]:
    """Return every preset of the package, by family and name."""
    folder = Path(__file__).parents[2] / "configs" / "methods"
    named = [(family, name, path) for family in families for name, path in presets((folder,), family).items()]
    return [Preset(name, family, path, load_method(path)) for family, name, path in named]


def kinds(union: object) -> dict[str, type]:
    """Return the classes of a configuration's union by the word that picks them."""
    return {one.model_fields["kind"].default: one for one in get_args(get_args(union)[0])}


def loss_of(term: TermSpec) -> str:
    """Return the word for what a term compares."""
    return term.loss.kind if isinstance(term, ListTermSpec | AlignTermSpec) else term.kind


def taught(term: TermSpec) -> str:
    """Return what of the teacher a term transfers."""
    return next(what for what, losses in TEACHES.items() if loss_of(term) in losses)


def sources(term: TermSpec) -> list[str]:
    """Return where the items lie that a term compares."""
    drawn = {draw.kind for draw in term.draw} if isinstance(term, ListTermSpec) else set()
    return [where for where, draws in FROM.items() if drawn & set(draws)] or [NO_LIST]


def matrix() -> str:
    """Return the methods for recommenders in a table: by where items come from, and by what is transferred."""
    cells: dict[tuple[str, str], dict[str, None]] = {}
    for preset in read([""]):
        for term in preset.method.set.distill:
            at = " + ".join(sources(term)), taught(term)
            cells.setdefault(at, {})[preset.link] = None
    columns = [what for what in TEACHES if any(at[1] == what for at in cells)]
    rows = sorted({where for where, _ in cells}, key=lambda where: (where == NO_LIST, where.count("+"), where))
    lines = [_row(["items from", *columns]), _row(["---"] * (len(columns) + 1))]
    lines += [_row([where, *("<br>".join(cells.get((where, what), {})) for what in columns)]) for where in rows]
    return "\n".join(lines)


def parts() -> str:
    """Return, for each preset, the parts that it is made of."""
    lines: list[str] = []
    for family, title in FAMILIES.items():
        lines += [f"### {title}", "", _row(["method", "draw", "target", "loss", "besides"]), _row(["---"] * 5)]
        for preset in read([family]):
            terms = preset.method.set.distill
            told = [[_draws(t), _targets(t), _losses(t)] for t in terms]
            columns = ["<br>".join(dict.fromkeys(column)) for column in zip(*told, strict=True)]
            lines.append(_row([preset.link, *columns, ", ".join(besides(preset.method.set))]))
        lines.append("")
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _draws(term: TermSpec) -> str:
    if not isinstance(term, ListTermSpec):
        return "users and items of the step" if isinstance(term, AlignTermSpec) else "the history"
    said = [f"{d.kind} {n}" if (n := getattr(d, "k", getattr(d, "n", None))) else d.kind for d in term.draw]
    return " + ".join(said) + (" users for an item" if term.side == "items" else "")


def _targets(term: TermSpec) -> str:
    return " + ".join(t.kind for t in term.target) if isinstance(term, ListTermSpec) else ""


def _losses(term: TermSpec) -> str:
    if not isinstance(term, AlignTermSpec):
        return loss_of(term)
    adapter = getattr(term.loss, "adapter", None)
    return loss_of(term) + (f" through {adapter.kind}" if adapter is not None else "")


def besides(changes: Changes) -> list[str]:
    """Return in words what a method sets besides its draws, targets and losses, each once."""
    return list(dict.fromkeys(_besides(changes)))


def _besides(changes: Changes) -> Iterator[str]:
    for term in changes.distill:
        if term.phase.start or term.phase.ramp or term.phase.stop:
            yield "phases"
        if isinstance(term, AlignTermSpec):
            yield from (word for word in ("filter", "preserve") if getattr(term, word) is not None)
        if isinstance(term, ListTermSpec):
            yield from {"partner": ["a partner"], "student": ["teaches the partner"]}.get(term.teacher, [])
            yield from ["a head of its own"] if term.head is not None else []
            yield from ["an early exit"] if term.exit else []
            yield from [f"{term.signal.kind} by row"] if term.signal is not None else []
    for section in ("student", "labels", "teacher"):
        yield from (f"`{section}.{word}`" for word in getattr(changes, section) if word not in TOLD)
    yield from ["yesterday"] if changes.yesterday else []


def picture() -> str:
    """Return the path of a term as columns of words, each with the number of presets that use it; HTML."""
    found = read()
    terms = [(i, term) for i, preset in enumerate(found) for term in preset.method.set.distill]
    lists = [(i, term) for i, term in terms if isinstance(term, ListTermSpec)]
    losses = {**{kind: one.__doc__ for kind, one in (kinds(ListLoss) | kinds(AlignLoss)).items()}, "gates": ""}
    columns = (
        ("what is kept of the teacher", _count((i, n) for i, p in enumerate(found) for n in p.method.set.needs), None),
        ("draw: which items", _count((i, d.kind) for i, t in lists for d in t.draw), _docs(Draw)),
        ("target: what is taught", _count((i, c.kind) for i, t in lists for c in t.target), _docs(Target)),
        ("loss: how it is compared", _count((i, loss_of(t)) for i, t in terms), losses),
        ("when, and how much", _count((i, b) for i, p in enumerate(found) for b in besides(p.method.set)), None),
    )
    return '<div class="family">\n' + "\n".join(_column(*column) for column in columns) + "\n</div>"


def _docs(union: object) -> dict[str, str]:
    return {kind: one.__doc__ or "" for kind, one in kinds(union).items()}


def _count(used: Iterable[tuple[int, str]]) -> Counter[str]:
    """Return by how many presets each word is used, however often one of them uses it."""
    return Counter(word for _, word in set(used))


def _column(title: str, counts: Counter[str], docs: Mapping[str, str | None] | None) -> str:
    docs = docs or {}
    words = sorted(set(docs) | set(counts), key=lambda word: (-counts[word], word))
    items = "".join(
        f'<li title="{escape(_first(docs.get(word)))}">{_breakable(word)}<b>{counts[word]}</b></li>' for word in words
    )
    return f"<div><p>{escape(title)}</p><ul>{items}</ul></div>"


def _first(doc: str | None) -> str:
    """Return a docstring's first sentence on one line."""
    return " ".join((doc or "").partition("\n\n")[0].split())


def _breakable(word: str) -> str:
    """Return a word as HTML that may go on in another line after a dot or an underscore."""
    return re.sub(r"([._])", r"\1<wbr>", escape(word.strip("`")))
