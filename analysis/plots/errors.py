"""Where predictions and labels part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.plots.style import BLUE, INK, MUTED, SMALL, VERMILLION

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.axes import Axes

DARKEST = 0.55  # of a cell, so that its number can be read in ink
_BINS = 16
_NUMBERED = 10  # classes, up to which each cell shows its number


def confusion(counts: npt.NDArray[np.float64], classes: Sequence[str], axes: Axes) -> Axes:
    """A confusion matrix: the share of each label's examples that was predicted so, darker for more.

    Args:
        counts: [labels, predictions], the examples of each; means over runs need not be whole.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    for label, predicted in np.ndindex(*counts.shape):
        share = shares[label, predicted]
        if share > 0:
            _cell(axes, predicted - 0.5, label - 0.5, 1, 1, share * DARKEST)
        if len(classes) <= _NUMBERED:
            text = f"{share:.0%}" if totals[label] else "–"
            weight = "bold" if label == predicted else "normal"
            size = SMALL if len(classes) <= 6 else SMALL - 3
            axes.text(
                predicted, label, text, ha="center", va="center", fontsize=size, color=INK, fontweight=weight
            )
    ticks = range(0, len(classes), 1 + len(classes) // 15)
    axes.set_xticks(ticks, [classes[at] for at in ticks])
    axes.set_yticks(ticks, [classes[at] for at in ticks])
    axes.set_xlim(-0.5, len(classes) - 0.5)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.tick_params(length=0)
    axes.spines[:].set_color(MUTED)
    return axes


def residuals(frame: pd.DataFrame, axes: Axes) -> Axes:
    """Prediction minus label by label: darker where there are more examples, and the mean at each.

    Args:
        frame: columns `label` and `residual`.
    """
    labels, found = frame["label"].to_numpy(float), frame["residual"].to_numpy(float)
    reach = max(1e-9, float(np.abs(found).max()))
    across = np.histogram_bin_edges(labels, bins=_BINS)
    up = np.linspace(-reach, reach, _BINS + 1)
    counts, _, _ = np.histogram2d(labels, found, bins=(across, up))
    for column, row in np.argwhere(counts > 0):
        width, height = across[column + 1] - across[column], up[row + 1] - up[row]
        share = counts[column, row] / counts.max()
        _cell(axes, across[column], up[row], width, height, (0.12 + 0.88 * share**0.5) * DARKEST)
    axes.axhline(0, color=INK, linewidth=1)
    place = np.clip(np.digitize(labels, across) - 1, 0, _BINS - 1)
    filled = [at for at in range(_BINS) if (place == at).any()]
    axes.plot(
        [(across[at] + across[at + 1]) / 2 for at in filled],
        [found[place == at].mean() for at in filled],
        color=VERMILLION,
        marker="o",
        markersize=4,
        linewidth=1.8,
        label="mean",
    )
    axes.set_xlim(across[0], across[-1])
    axes.set_ylim(-reach, reach)
    axes.set_xlabel("label")
    axes.set_ylabel("prediction − label")
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.legend(loc="best")
    return axes


def _cell(axes: Axes, x: float, y: float, width: float, height: float, alpha: float) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, facecolor=BLUE, alpha=alpha, linewidth=0))
