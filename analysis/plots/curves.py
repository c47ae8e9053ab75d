"""What runs said while they trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.plots.style import BLUE, INK, LOOKS, MUTED, VERMILLION, bare

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def learning_curves(frame: pd.DataFrame, others: pd.DataFrame, axes: Axes, name: str = "score") -> Axes:
    """The mean over seeds by step, with the range between lowest and highest seed; others as thin lines.

    Args:
        frame: columns `label`, `step`, `mean`, `low` and `high`; at most as many labels as there are looks.
        others: columns `run`, `step` and `value`; may be empty.
    """
    for _, run in others.groupby("run", sort=False):
        axes.plot(run["step"], run["value"], color=MUTED, linewidth=0.7, alpha=0.5, zorder=1)
    ends = others.groupby("run", sort=False).last() if len(others) else others
    if len(ends):
        axes.plot(ends["step"], ends["value"], "o", color=MUTED, markersize=2.5, alpha=0.7, zorder=1)
    for (label, curve), look in zip(frame.groupby("label", sort=False), LOOKS, strict=False):
        axes.fill_between(
            curve["step"], curve["low"], curve["high"], color=look.color, alpha=0.12, linewidth=0
        )
        axes.plot(
            curve["step"],
            curve["mean"],
            color=look.color,
            linestyle=look.dashes,
            marker=look.marker,
            markersize=4.5,
            linewidth=1.8,
            label=str(label),
        )
    axes.set_xlabel("step")
    axes.set_ylabel(name)
    if len(frame):
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2, "handlelength": 3.2}
        axes.legend(**below)  # where it hides no line
    return bare(axes)


def train_and_dev(frame: pd.DataFrame, axes: Axes, metric: str) -> Axes:
    """A metric on train and on dev by step, and the gap between them.

    Args:
        frame: columns `step`, `train` and `dev`.
    """
    axes.fill_between(frame["step"], frame["train"], frame["dev"], color=MUTED, alpha=0.15, linewidth=0)
    for split, look in (("train", LOOKS[1]), ("dev", LOOKS[0])):
        axes.plot(
            frame["step"],
            frame[split],
            color=look.color,
            linestyle=look.dashes,
            marker=look.marker,
            markersize=4.5,
            linewidth=1.8,
            label=split,
        )
    axes.set_xlabel("step")
    axes.set_ylabel(metric)
    axes.margins(y=0.15)
    axes.legend(loc="best", handlelength=3)
    return bare(axes)


def history(frame: pd.DataFrame, axes: Axes, name: str = "score") -> Axes:
    """The points of a search in the order in which they were begun, and the best so far.

    Args:
        frame: columns `order`, `value`, `whole` (whether it went to its end) and `best` (so far, or nan).
    """
    whole, early = frame[frame["whole"]], frame[~frame["whole"]]
    if len(whole):
        axes.step(frame["order"], frame["best"], where="post", color=INK, linewidth=1.4, label="best so far")
        axes.plot(whole["order"], whole["value"], "o", color=BLUE, markersize=5, label="to its end")
    if len(early):
        axes.plot(
            early["order"],
            early["value"],
            "x",
            color=VERMILLION,
            markersize=5,
            markeredgewidth=1.4,
            label="stopped early",
        )
    axes.set_xlabel("point, in the order tried")
    axes.set_ylabel(name)
    axes.legend(loc="lower right")
    return bare(axes)


def best_of(expected: Sequence[float], axes: Axes, name: str = "score") -> Axes:
    """The best to be expected of 1, 2, … points of a random search."""
    axes.plot(range(1, len(expected) + 1), expected, color=BLUE, marker="o", markersize=4, linewidth=1.8)
    axes.set_xlabel("points")
    axes.set_ylabel(f"best {name} expected")
    return bare(axes)
