"""The tables of a diagnosis, once, for every format, each with the sentence that says how to read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from recdistill.diagnosis import words
from recdistill.diagnosis.form import Bucket, Control, Diagnosis, Robust
from recdistill.diagnosis.words import group, interval
from recdistill.report_view import Cell, Table
from recdistill.report_words import MISSING, count, metric_name, number, percent, signed

TOLD = 8  # directions; the figure has all
HALF = 0.5  # a control that gives as much of a gain is what explains it


class Block(NamedTuple):
    """One table of a diagnosis: what it is of, and how to read it."""

    key: str
    title: str
    hint: str
    table: Table


def blocks(d: Diagnosis) -> list[Block]:
    """Return every table that has rows."""
    return [block for block in _blocks(d) if block.table.rows]


def _blocks(d: Diagnosis) -> Iterator[Block]:
    name = metric_name(d.metric, d.k)
    yield Block("agreement", "Fidelity to the teacher", words.AGREEMENT, _agreement(d))
    yield Block("inherited", "Transfer index", words.INHERITED, _inherited(d))
    hint = f"{words.controls_words(d)} The gain is in {name}."
    yield Block("controls", "Is the gain knowledge?", hint, _controls(d))
    yield Block("robustness", "Noise and imbalance", words.ROBUSTNESS, _robustness(d))
    yield Block("buckets", "Who gains, and who pays", words.BUCKETS.format(k=d.k), _buckets(d))
    yield Block("shown", "What is shown", words.SHOWN, _shown(d))
    yield Block("reliability", "Calibration", words.RELIABILITY, _reliability(d))
    yield Block("frontier", "Precision and recall", words.FRONTIER, _frontier(d))
    yield Block("slopes", "Confidence", words.SLOPES, _slopes(d))
    yield Block("directions", "Spectrum of deviations", words.DIRECTIONS, _directions(d))
    yield Block("variance", "Gradient noise", words.VARIANCE, _variance(d))
    yield Block("flatness", "Flatness", words.FLATNESS, _flatness(d))


def _agreement(d: Diagnosis) -> Table:
    rows = [
        [
            Cell(a.part),
            Cell(a.model),
            *(Cell(percent(v)) for v in (a.top, a.overlap)),
            *(Cell(number(v)) for v in (a.rbo, a.kl)),
        ]
        for a in d.agreement
    ]
    return Table(["histories", "model", "same first item", f"overlap@{d.k}", "RBO", "KL (nats)"], rows, names=2)


def _controls(d: Diagnosis) -> Table:
    rows = [[Cell(c.control, _lacks(c)), _share(c), _signed(c.value, c.low, c.high)] for c in d.controls]
    if d.controls:
        one = d.controls[0]
        whole = Cell("100.0%" if any(c.share is not None for c in d.controls) else MISSING, tone="soft")
        rows.append([Cell("the run's teacher"), whole, _signed(one.gain, one.gain_low, one.gain_high)])
    missing = [why.partition(": ") for why in d.uncontrolled]
    rows += [[Cell(name, why), Cell("not controlled", tone="soft"), Cell(MISSING)] for name, _, why in missing]
    return Table(["control", "share of the gain", "control - scratch"], rows)


def _lacks(c: Control) -> str:
    return f"lacks {c.lacks}" + ("" if c.factor == 1 else f"; weights times {c.factor:g}")


def _share(c: Control) -> Cell:
    if c.share is None:
        return Cell("no sure gain", tone="soft")
    tone = "bad" if c.share >= HALF and (c.gain or 0) > 0 else ""
    return Cell(percent(c.share), interval(c.share_low, c.share_high, percent), tone)


def _buckets(d: Diagnosis) -> Table:
    at = {(b.activity, b.popularity): b for b in d.buckets}
    users, items = (range(n) for n in d.groups)
    head = ["users", *(f"{group(g, d.groups[1], 'popular')} items" for g in items)]
    rows = [
        [Cell(f"{group(a, d.groups[0], 'active')} users"), *(_bucket(at[a, g]) for g in items if (a, g) in at)]
        for a in users
        if at
    ]
    return Table(head, rows)


def _bucket(b: Bucket) -> Cell:
    if b.difference is None:
        return Cell(MISSING, "nobody", "soft")
    tone = "good" if (b.low or 0) > 0 else "bad" if (b.high or 0) < 0 else ""
    note = f"{interval(b.low, b.high)}\n{number(b.scratch)} to {number(b.student)}, teacher {number(b.teacher)}"
    return Cell(signed(b.difference), f"{note}\n{count(b.users)} users", tone)


def _shown(d: Diagnosis) -> Table:
    rows = [
        [Cell(s.model), Cell(number(s.popularity)), Cell(percent(s.coverage)), Cell(number(s.tail_recall))]
        for s in d.shown
    ]
    return Table(["model", "popularity", f"coverage@{d.k}", f"tail recall@{d.k}"], rows)


def _reliability(d: Diagnosis) -> Table:
    rows = [[Cell(r.model), *(Cell(number(v)) for v in (r.ece, r.nll, r.temperature))] for r in d.reliability]
    return Table(["model", "ECE", "list NLL", "best temperature"], rows)


def _frontier(d: Diagnosis) -> Table:
    rows = [
        [
            Cell(p.model),
            Cell(number(p.teacher_temperature) if p.teacher_temperature is not None else "-"),
            *(Cell(number(v)) for v in (p.relevance, p.teacher_chance, p.likelihood)),
            Cell(percent(p.coverage)),
            Cell(number(p.tail_recall)),
        ]
        for p in d.frontier
    ]
    head = ["model", "temperature", "relevance", "teacher's log-chance", "held-out log-chance"]
    return Table([*head, "coverage", "tail recall"], rows)


def _slopes(d: Diagnosis) -> Table:
    rows = [
        [
            Cell(s.part),
            Cell(s.model),
            *(Cell(number(v)) for v in (s.slope, s.unsure, s.intercept)),
            Cell(count(s.users)),
        ]
        for s in d.slopes
    ]
    return Table(
        ["histories", "model", "slope", "where the teacher is least sure", "intercept", "users"], rows, names=2
    )


def _directions(d: Diagnosis) -> Table:
    at = {(v.model, v.direction): v for v in d.directions}
    models = _models(v.model for v in d.directions)
    rows = []
    for n in sorted({v.direction for v in d.directions})[:TOLD]:
        each = [at.get((m, n)) for m in models]
        one = next(v for v in each if v is not None)
        gains = [Cell(MISSING if v is None else number(v.gain)) for v in each]
        apart = [Cell(MISSING if v is None else percent(v.residual)) for v in each]
        rows.append([Cell(str(n)), Cell(percent(one.teacher)), Cell(number(one.popularity)), *gains, *apart])
    head = ["direction", "teacher's energy", "popularity", *(f"gain, {m}" for m in models)]
    return Table([*head, *(f"of what is apart, {m}" for m in models)], rows)


def _variance(d: Diagnosis) -> Table:
    weights = list(dict.fromkeys(w for v in d.variance for w in v.ratios))
    rows = [
        [Cell(v.model), Cell(percent(v.rho2)), Cell(number(v.best)), *(Cell(number(v.ratios.get(w))) for w in weights)]
        for v in d.variance
    ]
    return Table(["model", "rho^2", "best weight", *(f"noise ratio at {w}" for w in weights)], rows)


def _flatness(d: Diagnosis) -> Table:
    rhos = sorted({f.rho for f in d.flatness})
    at = {(f.model, f.rho): f for f in d.flatness}
    rows = []
    for m in _models(f.model for f in d.flatness):
        each = [at.get((m, rho)) for rho in rhos]
        base = next(f.loss for f in each if f is not None)
        cells = [Cell(MISSING) if f is None else Cell(number(f.rise), f"+/- {number(f.error)}") for f in each]
        rows.append([Cell(m), Cell(number(base)), *cells])
    return Table(["model", "loss", *(f"rise at rho {rho:g}" for rho in rhos)], rows)


def _inherited(d: Diagnosis) -> Table:
    rows = [
        [Cell(i.what, i.note), _signed(i.index, i.low, i.high), Cell(percent(i.student)), Cell(percent(i.independent))]
        for i in d.inherited
    ]
    return Table(["agreement with the teacher", "transfer index", "student", "scratch"], rows)


def _robustness(d: Diagnosis) -> Table:
    rows = [
        [
            Cell(words.spoil_words(r.spoil, r.fraction)),
            *(Cell(number(v)) for v in (r.teacher, r.scratch, r.student)),
            _gain(r),
            _signed(r.change, r.change_low, r.change_high) if r.change is not None else Cell(MISSING, tone="soft"),
            *(Cell(number(v)) for v in (r.tail_scratch, r.tail_student)),
        ]
        for r in d.robustness
    ]
    head = ["training log", "teacher", "scratch", "student", "gain", "change of the gain", "tail, scratch"]
    return Table([*head, "tail, student"], rows)


def _gain(r: Robust) -> Cell:
    cell = _signed(r.gain, r.low, r.high)
    spread = "" if r.least is None or r.most is None else f"seeds {signed(r.least)} to {signed(r.most)}"
    return cell._replace(note="\n".join(filter(None, (cell.note, spread))))


def _models(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _signed(value: float | None, low: float | None, high: float | None) -> Cell:
    tone = "" if low is None or high is None else "good" if low > 0 else "bad" if high < 0 else ""
    return Cell(signed(value), interval(low, high), tone)
