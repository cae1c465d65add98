"""What the users of a day took, and what each model of fortnight.py would have shown them that morning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from fortnight_world import day_of

from recdistill.metrics import interval
from recdistill.serve import open_bundle, read_index, recommend

K, TIMES = 10, 1000
LINES = (
    ("full", "#7a7a7a", "full, every night", 7),
    ("nightly", "#1f6fb2", "from the champion", -7),
    ("never", "#c0504d", "never again", 0),
)
SURELY = -0.005  # NDCG@10 that a champion may lose to what served before it, for all that is known, and stay


class Asked(NamedTuple):
    """The users of a day: what a request of each says of the past, and what they took."""

    requests: list[tuple[str, list[int]]]
    taken: list[list[int]]


class Morning(NamedTuple):
    """What was seen the day after a night."""

    night: int
    event: str  # in a word or two, if the night was none like the others
    seen: str
    serving: int
    quality: dict[str, float]  # mean NDCG@10 by model
    lead: tuple[float, float, float]  # of the champion over the model of the first night: mean and 95% interval
    behind: tuple[float, float, float]  # of the champion over the shop that trains in full
    worse: bool  # than what served before it, surely

    def line(self) -> str:
        """Return it as one line of a table."""
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in self.quality.items())
        return f"{day_of(self.night)}  version {self.serving:2d}  {numbers}  {self.seen}"


def truth(days: Mapping[int, pl.DataFrame], night: int, window: int) -> Asked:
    """Return the users of the day after `night`, with what they took in the window that ends with `night`."""
    past = pl.concat([days[day] for day in range(night - window + 1, night + 1)]).sort("time", "user", "item")
    known = dict(past.group_by("user", maintain_order=True).agg("item").iter_rows())
    taken = dict(days[night + 1].sort("user", "item").group_by("user", maintain_order=True).agg("item").iter_rows())
    return Asked([(user, known.get(user, [])) for user in taken], list(taken.values()))


def ndcg(bundle: Path, asked: Asked) -> np.ndarray:
    """Return NDCG@10 of each user [n] of what the bundle answers, past items left out."""
    opened = open_bundle(bundle)
    index = read_index(bundle / "index.faiss", opened.params)
    answers = recommend(opened, index, asked.requests, K, exclude_seen=True)
    gain = 1 / np.log2(np.arange(2, K + 2))
    found = np.zeros(len(asked.taken))
    for n, (answer, taken) in enumerate(zip(answers, asked.taken, strict=True)):
        hits = np.isin(answer.item_ids, taken)
        found[n] = gain[: len(hits)][hits].sum() / gain[: len(taken)].sum()
    return found


def measured(asked: Asked, bundles: Mapping[str, Path | None]) -> dict[str, Any]:
    """Return what a morning has of figures; `bundles` are `nightly`, `never`, `full`, and what served `before`."""
    each = {name: ndcg(bundle, asked) for name, bundle in bundles.items() if bundle is not None}
    ours, before = each["nightly"], each.pop("before", None)
    worse = before is not None and paired(ours - before)[2] < SURELY
    quality = {name: float(values.mean()) for name, values in each.items()}
    lead, behind = paired(ours - each["never"]), paired(ours - each["full"])
    return {"quality": quality, "lead": lead, "behind": behind, "worse": worse}


def paired(difference: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of a difference a user [n] and its 95% bootstrap interval over users."""
    n = len(difference)
    draws = np.random.default_rng(0).integers(n, size=(TIMES, n))
    low, high = interval(difference[draws].mean(axis=1))
    return float(difference.mean()), low, high


def plot(mornings: list[Morning], out: Path) -> None:
    """Draw quality over days, with what happened, to an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "fortnight", "svg.fonttype": "none"}  # equal figures, equal bytes
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    nights = [m.night for m in mornings]
    for name, colour, words, up in LINES:
        values = [m.quality[name] for m in mornings]
        axes.plot(nights, values, color=colour, linewidth=2, marker="o", markersize=4)
        axes.annotate(words, (nights[-1], values[-1]), (6, up), textcoords="offset points", color=colour, va="center")
    _events(axes, mornings)
    axes.set(xlabel="night", ylabel="NDCG@10 of the next day's users", xticks=nights)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0.5, nights[-1] + 2.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


def _events(axes: Any, mornings: list[Morning]) -> None:
    """Say above the lines what happened in a night that was none like the others."""
    for morning in mornings:
        if morning.event:
            axes.axvline(morning.night, color="black", alpha=0.12, linewidth=1)
            where = {"transform": axes.get_xaxis_transform(), "rotation": 30, "va": "bottom", "fontsize": 9}
            axes.text(morning.night - 0.1, 1.01, morning.event, **where)
