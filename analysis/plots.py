"""Plots: functions that take a frame and return axes. What they show is worked out elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

POINT, MEAN = "#7aa6c2", "#1b3a4b"  # told apart by lightness too


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
