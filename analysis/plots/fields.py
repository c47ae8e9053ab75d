"""How a configuration's fields and what it came to go together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from analysis.plots.scores import spread_out
from analysis.plots.style import BLUE, INK, MUTED, SMALL, VERMILLION, bare

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ABSENT = "none"
"""What is shown in place of a field that a configuration does not have."""
_TICKS = 5  # numbers named along an axis
_WIDE = 20.0


def parallel_coordinates(frame: pd.DataFrame, value: str, best: int, axes: Axes) -> Axes:
    """A line for each configuration through its fields, which lie below one another, the value last.

    Lying so, an axis for each field and its name fit the narrowest screen.

    Args:
        frame: a row per configuration, a column per field (numbers or text) and one for the value.
        value: the name of the last.
        best: how many of the highest are drawn thick.
    """
    names = [name for name in frame.columns if name != value] + [value]
    scales = [_Scale(list(frame[name])) for name in names]
    ordered = frame.sort_values(value, na_position="first")
    rows = range(len(names))
    for at, (_, row) in enumerate(ordered.iterrows()):
        chosen = at >= len(ordered) - best
        places = [scale.place(row[name]) for scale, name in zip(scales, names, strict=True)]
        axes.plot(
            places,
            rows,
            color=VERMILLION if chosen else BLUE,
            linewidth=2.0 if chosen else 0.9,
            alpha=0.95 if chosen else 0.35,
            zorder=3 if chosen else 2,
        )
    for at, (name, scale) in enumerate(zip(names, scales, strict=True)):
        _axis(axes, at, name, scale)
    axes.set_xlim(-0.06, 1.06)
    axes.set_ylim(len(names) - 0.55, -0.45)
    axes.set_axis_off()
    return axes


def slices(frame: pd.DataFrame, field: str, axes: Axes, name: str = "score") -> Axes:
    """What configurations came to by the value of one field.

    Args:
        frame: columns `field` and `value`; a field's text, truth values and absence each have a place.
    """
    found = list(frame["field"])
    scale = _Scale(found)
    if scale.named:
        places = [scale.labels.index(_text(each)) for each in found]
        shifted = [at + _jitter(row) for row, at in enumerate(places)]
        axes.plot(shifted, frame["value"], "o", color=BLUE, markersize=4, alpha=0.6)
        means = frame["value"].groupby(places).mean()
        axes.plot(means.index, means, "_", color=VERMILLION, markersize=22, markeredgewidth=2.4)
        axes.set_xticks(range(len(scale.labels)), [_short(label) for label in scale.labels])
        axes.set_xlim(-0.6, len(scale.labels) - 0.4)
        if sum(len(_short(label)) for label in scale.labels) > 34:
            axes.tick_params(axis="x", rotation=30)
    else:
        axes.plot(found, frame["value"], "o", color=BLUE, markersize=4, alpha=0.6)
        spread_out(axes, frame["field"].astype(float))
    axes.set_xlabel(field)
    axes.set_ylabel(name)
    return bare(axes)


def importance(frame: pd.DataFrame, axes: Axes) -> Axes:
    """How much hangs on each axis of a sweep, with its interval.

    Args:
        frame: columns `label`, `value`, `low` and `high`, shares between 0 and 1, the largest first.
    """
    rows = range(len(frame))
    axes.barh(rows, frame["value"], color=BLUE, height=0.5, alpha=0.75)
    axes.hlines(rows, frame["low"], frame["high"], color=INK, linewidth=1.4)
    for at, (label, found) in enumerate(zip(frame["label"], frame["value"], strict=True)):
        axes.annotate(
            f"{label}: {found:.0%}", (0, at), (2, 10), textcoords="offset points", color=INK, fontsize=SMALL
        )
    axes.set_yticks([])
    axes.set_ylim(len(frame) - 0.5, -0.9)
    axes.set_xlim(0, max(0.05, 1.05 * frame["high"].max()))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    return bare(axes, "x")


class _Scale:
    """From a field's values to places between 0 and 1: numbers by size, anything else by name."""

    def __init__(self, values: Sequence[Any]) -> None:
        present = [each for each in values if not _missing(each)]
        numbers = [each for each in present if isinstance(each, (int, float)) and not isinstance(each, bool)]
        self.named = len(numbers) < len(values) or not numbers
        self.labels = sorted({_text(each) for each in values}, key=_natural)
        self.low, self.high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
        self.log = not self.named and self.low > 0 and self.high / self.low >= _WIDE

    def place(self, value: Any) -> float:
        if self.named:
            return (self.labels.index(_text(value)) + 0.5) / len(self.labels)
        width = self._of(self.high) - self._of(self.low)
        return 0.5 if width == 0 else (self._of(value) - self._of(self.low)) / width

    def ticks(self) -> list[tuple[float, str]]:
        """Places, and what stands there."""
        if self.named:
            return [(self.place(label), label) for label in self.labels]
        ends = sorted({self.low, self.high})
        return [(self.place(each), f"{each:.4g}") for each in ends]

    @property
    def _of(self) -> Callable[[float], float]:
        return math.log if self.log else float


def _axis(axes: Axes, at: int, name: str, scale: _Scale) -> None:
    """A field's line, its name above it and its values below."""
    axes.plot([0, 1], [at, at], color=MUTED, linewidth=1, zorder=1)
    axes.annotate(
        name + (" (log)" if scale.log else ""),
        (0, at),
        (-6, 6),
        textcoords="offset points",
        color=INK,
        fontsize=SMALL,
        fontweight="bold",
        zorder=5,
    )
    ticks = scale.ticks()
    shown = ticks if len(ticks) <= _TICKS else [ticks[0], ticks[-1]]
    for place, text in shown:
        side = "left" if place < 0.08 else "right" if place > 0.92 else "center"
        axes.plot([place], [at], "|", color=MUTED, markersize=7, zorder=1)
        axes.annotate(
            _short(text),
            (place, at),
            (0, -13),
            textcoords="offset points",
            ha=side,
            color=MUTED,
            fontsize=SMALL - 1,
            zorder=5,
        )


def _jitter(row: int) -> float:
    """Aside by up to a seventh, evenly and always the same (the golden ratio's multiples)."""
    return ((row * 0.6180339887) % 1 - 0.5) / 3.5


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    if _missing(value):
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _natural(text: str) -> tuple[int, float, str]:
    """Absence first, then numbers by size, then letters."""
    if text == ABSENT:
        return 0, 0.0, ""
    try:
        return 1, float(text), ""
    except ValueError:
        return 2, 0.0, text


def _short(text: str) -> str:
    return text if len(text) <= 16 else text[:15] + "…"
