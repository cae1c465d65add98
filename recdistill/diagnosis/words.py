"""The words of a diagnosis: how to read each of its tables, and what they say in a sentence each."""

from __future__ import annotations

from collections.abc import Callable

from recdistill.diagnosis.form import Control, Diagnosis
from recdistill.report_words import count, metric_name, number, percent, signed

AGREEMENT = (
    "How far a model does what the teacher does, on lists as they were taught (train), as they are served (held-"
    "out) and of histories with a half left out (augmented): what matters is how much more than scratch, which "
    "never met the teacher, and a student may agree less and rank better."
)
CONTROLS = (
    "Each control is the same student, taught by a teacher that lacks one thing, {weight}: one that reproduces much of "
    "the gain explains it, and a share below 0 says that what is left of the teacher does harm all the same."
)
BUCKETS = (
    "Recall@{k} of the student less scratch, by how active users are and how popular the items are that were held "
    "out (thirds; items of equal interactions): the worst of many cells looks worse than it is, so read its "
    "interval."
)
SHOWN = (
    "Popularity is the mean of training interactions of what is shown, coverage the share of the catalogue that "
    "somebody is shown, tail recall that of the two least popular fifths: a student should not pay for its gain "
    "with these."
)
RELIABILITY = (
    "On the diagonal a chance is met as often as it was given; below it the model is too sure. ECE is what was "
    "expected and did not come true, as a share of what was taken, and a best temperature above 1 says too sure on "
    "the whole."
)
FRONTIER = (
    "Up and to the right is better in both: relevance and the teacher's log-chance of what is shown are precision, "
    "the log-chance of what is held out, coverage and tail recall are recall, and a sharper teacher trades one for "
    "the other."
)
SLOPES = (
    "The model's log-odds of the teacher's first item against the teacher's own: a slope above 1 exaggerates the "
    "teacher's confidence, below 1 dampens it; scratch says how much of that is the model and not the teaching."
)
DIRECTIONS = (
    "The directions in which the teacher's scores vary most, by falling energy: a gain of 1 is as the teacher has "
    "it, 0 is lost, above 1 exaggerated; popularity is the correlation of a direction with how often items were "
    "taken."
)
VARIANCE = (
    "Distillation takes noise out of the gradient as far as the teacher knows it: rho^2 is the share that the best "
    "weight takes away, and a noise ratio above 1 says that at this weight the teacher adds more than it takes."
)
FLATNESS = (
    "The rise of the held-out loss when every vector is moved by a share rho of its length, with its standard "
    "error: the smaller, the flatter, and flatter than scratch is what distillation is said to give."
)
INHERITED = (
    "How much more the student is like the teacher than its scratch twin, in what it shows and misses and in what it "
    "makes of a history: two models of one log agree anyway, so only what is beyond that was handed over."
)


ROBUSTNESS = (
    "All models again, the teacher too, on a training part that is spoilt, and measured on the clean test part: with "
    "noise a share of everybody's interactions is of random items, with a cut tail a share of those with the two least "
    "popular fifths, whose recall is the tail's, is gone."
)


def controls_words(d: Diagnosis) -> str:
    """Return how to read the controls: what they were taught by, and how loudly."""
    if d.tuned == [1.0]:
        return CONTROLS.format(weight="as loudly (--tune finds each its own weight)")
    some = " and ".join(filter(None, (", ".join(f"{f:g}" for f in d.tuned[:-1]), f"{d.tuned[-1]:g}")))
    which = "at" if len(d.tuned) == 1 else "at the best on validation of"
    return CONTROLS.format(weight=f"{which} {some} times the run's own weights")


def spoil_words(kind: str, fraction: float) -> str:
    """Return in words what was done to a log."""
    return {"noise": f"{fraction:.0%} noise", "imbalance": f"tail cut by {fraction:.0%}"}.get(kind, "as it is")


def robust_words(d: Diagnosis) -> str:
    """Return by how much the gain differs on the worst of each kind of log; empty if nobody asked."""
    clean = next((one for one in d.robustness if one.spoil == "clean"), None)
    worst = {one.spoil: one for one in d.robustness if one.spoil != "clean"}  # the last of each kind is the worst
    if clean is None or not worst:
        return ""
    each = [
        f"{signed(one.gain)} with {spoil_words(one.spoil, one.fraction)} "
        f"({_surely(one.change, one.change_low, one.change_high)})"
        for one in worst.values()
    ]
    return f"The gain in {metric_name(d.metric, d.k)} is {signed(clean.gain)} on the log as it is, {', '.join(each)}."


def _surely(change: float | None, low: float | None, high: float | None) -> str:
    sure = low is not None and high is not None and not low <= 0 <= high
    return f"{'' if sure else 'not '}surely {'more' if (change or 0.0) > 0 else 'less'}"


def worst_words(d: Diagnosis) -> str:
    """Return the worst bucket in words, and how many are surely better or worse; empty without any."""
    worst = d.worst
    if worst is None or worst.difference is None:
        return ""
    users, items = group(worst.activity, d.groups[0], "active"), group(worst.popularity, d.groups[1], "popular")
    surely = worst.high is not None and worst.high < 0
    known = [b for b in d.buckets if b.low is not None and b.high is not None]
    counts = (sum(b.high < 0 for b in known if b.high is not None), sum(b.low > 0 for b in known if b.low is not None))
    return (
        f"Worst bucket: {users} users, {items} items: {signed(worst.difference)} {interval(worst.low, worst.high)} in "
        f"Recall@{d.k} ({count(worst.users)} users), {'' if surely else 'not '}surely worse; of {len(known)} buckets "
        f"{counts[0]} are surely worse and {counts[1]} surely better."
    )


def findings(d: Diagnosis) -> list[str]:
    """Return what a reader should know before all tables, a sentence each."""
    found = [_fidelity_words(d), _gain_words(d), *_uncontrolled_words(d), worst_words(d)]
    shown = {one.model: one for one in d.shown}
    if {"student", "scratch"} <= shown.keys():
        s, o = shown["student"], shown["scratch"]
        found.append(
            f"The student covers {percent(s.coverage)} of the catalogue, scratch {percent(o.coverage)}; tail recall "
            f"{number(s.tail_recall)} against {number(o.tail_recall)}."
        )
    found.append(robust_words(d))
    return [text for text in found if text]


def _uncontrolled_words(d: Diagnosis) -> list[str]:
    """Return why which controls are missing, a sentence a reason."""
    why = dict[str, list[str]]()
    for text in d.uncontrolled:
        name, _, reason = text.partition(": ")
        why.setdefault(reason, []).append(name)
    return [f"Not controlled for: {', '.join(names)}: {reason}." for reason, names in why.items()]


def _fidelity_words(d: Diagnosis) -> str:
    at = {a.model: a for a in d.agreement if a.part == "held-out"}
    if not {"student", "scratch"} <= at.keys():
        return ""
    s, o = at["student"], at["scratch"]
    return (
        f"On held-out histories the student shares {percent(s.overlap)} of the teacher's first {d.k} items, scratch "
        f"{percent(o.overlap)}; the first item is the same for {percent(s.top)} of users, scratch {percent(o.top)}."
    )


def _gain_words(d: Diagnosis) -> str:
    if not d.controls:
        return f"The gain in {metric_name(d.metric, d.k)} is not controlled for: nothing says that it is knowledge."
    first = d.controls[0]
    gain = (
        f"The gain in {metric_name(d.metric, d.k)} is {signed(first.gain)} {interval(first.gain_low, first.gain_high)}"
    )
    if all(one.share is None for one in d.controls):
        return f"{gain}: its interval holds zero, so there is no gain that controls could share."
    return f"{gain}; share of it reproduced by: {', '.join(map(_share_words, d.controls))}."


def _share_words(one: Control) -> str:
    """Return a share in words: one below 0 is no share, it says that the control loses where the run gains."""
    if (one.share or 0.0) < 0:
        return f"{one.control} none ({signed(one.value)} on scratch)"
    return f"{one.control} {percent(one.share)}"


def group(place: int, of: int, what: str) -> str:
    """Return a group's name: of three the least, the middle and the most."""
    return f"{('least', 'middle', 'most')[place]} {what}" if of == 3 else f"{what} group {place + 1} of {of}"


def interval(low: float | None, high: float | None, form: Callable[[float], str] = signed) -> str:
    """Return an interval, empty where there is none."""
    return "" if low is None or high is None else f"[{form(low)}, {form(high)}]"
