"""What configurations came to, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.plots.style import BLUE, MUTED, VERMILLION, bare

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

POINT, MEAN = "#7aa6c2", "#1b3a4b"  # told apart by lightness too
_WIDE = 20.0
"""From the smallest to the largest, from which on numbers are spread by their logarithm."""


def configuration_scores(frame: pd.DataFrame, order: Sequence[str], axes: Axes) -> Axes:
    """A line of dots for each configuration: its runs, and their mean with its value.

    Args:
        frame: a row per run, with columns `label` and `score`.
        order: the labels from top to bottom.
    """
    for at, label in enumerate(order):
        scores = frame.loc[frame["label"] == label, "score"]
        axes.plot(scores, [at] * len(scores), "o", color=POINT, markersize=5, zorder=2)
        axes.plot([scores.mean()], [at], "D", color=MEAN, markersize=7, zorder=3)
        axes.annotate(
            f"{scores.mean():.3f}", (scores.mean(), at), (0, 8), textcoords="offset points", ha="center"
        )
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.4, -0.7)
    axes.set_xlabel("score on dev: one dot per seed, the diamond is their mean")
    axes.grid(axis="x", color="#dddddd", zorder=1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return axes


def intervals(frame: pd.DataFrame, runs: pd.DataFrame, axes: Axes, name: str = "score") -> Axes:
    """The configurations from the best down: mean, interval, and each seed's value.

    Args:
        frame: columns `label`, `mean`, `low` and `high` (nan where there is no interval), best first.
        runs: columns `label` and `value`.
    """
    at = {label: row for row, label in enumerate(frame["label"])}
    best = frame["mean"].iloc[0]
    axes.axvline(best, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    axes.plot(runs["value"], [at[label] + 0.22 for label in runs["label"]], "|", color=MUTED, markersize=7)
    axes.hlines(range(len(frame)), frame["low"], frame["high"], color=BLUE, linewidth=2.2, zorder=2)
    axes.plot(frame["mean"], range(len(frame)), "o", color=BLUE, markersize=6, zorder=3)
    axes.plot([best], [0], "o", color=VERMILLION, markersize=7, zorder=4)
    if frame["low"].notna().iloc[0]:
        axes.hlines([0], frame["low"].iloc[:1], frame["high"].iloc[:1], color=VERMILLION, linewidth=2.6)
    axes.set_yticks(range(len(frame)), list(frame["label"]))
    axes.set_ylim(len(frame) - 0.4, -0.6)
    axes.set_xlabel(name)
    return bare(axes, "x")


def front(frame: pd.DataFrame, axes: Axes, cost: str, name: str = "score") -> Axes:
    """What each configuration reached against what it cost; the front joins those that nothing beats in both.

    Args:
        frame: columns `cost`, `value`, `front` (whether it is on it) and `label` (a short one, shown there).
    """
    rest, best = frame[~frame["front"]], frame[frame["front"]].sort_values("cost")
    axes.plot(rest["cost"], rest["value"], "o", color=MUTED, markersize=4, alpha=0.6, label="beaten")
    axes.step(best["cost"], best["value"], where="post", color=BLUE, linewidth=1.4)
    axes.plot(best["cost"], best["value"], "D", color=BLUE, markersize=6, label="on the front")
    for point in best.itertuples():
        axes.annotate(
            str(point.label), (point.cost, point.value), (0, 7), textcoords="offset points", ha="center"
        )
    spread_out(axes, frame["cost"])
    axes.margins(x=0.08, y=0.15)
    axes.set_xlabel(cost)
    axes.set_ylabel(name)
    return bare(axes)


def spread_out(axes: Axes, values: pd.Series[float]) -> None:
    """Puts the horizontal axis on a logarithm where its numbers span more than one order of magnitude."""
    low, high = values.min(), values.max()
    if low > 0 and high / low >= _WIDE and math.isfinite(high):
        axes.set_xscale("log")
