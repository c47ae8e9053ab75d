"""How every chart looks: colours that colour-blind people can tell apart, and a line style and mark for each.

The colours are Okabe and Ito's (2008, "Color Universal Design"); a page puts variables of its own in their
place (`analysis.page.drawing`), so that one chart serves light, dark and print.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, RULE, PAPER = "#1f2328", "#59636e", "#d0d7de", "#ffffff"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"

FONT_SIZE = 12.0  # of the text on a page, where a chart is shown at its own size
SMALL = 11.0
SETTINGS: Mapping[str, Any] = {
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.labelsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": RULE,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # a label's dollars are its own
    "svg.fonttype": "none",  # text stays text: read aloud, searched, copied
    "svg.hashsalt": "mtbert",
}
"""For `matplotlib.rc_context`."""


class Look(NamedTuple):
    """What tells one series from the others, in colour and without."""

    color: str
    marker: str
    dashes: Any


LOOKS = (
    Look(BLUE, "o", "-"),
    Look(VERMILLION, "s", (0, (5, 2))),
    Look(GREEN, "^", (0, (5, 1.5, 1, 1.5))),
    Look(PURPLE, "D", (0, (1.5, 1.5))),
    Look(ORANGE, "v", (0, (8, 2, 2, 2))),
    Look(INK, "P", (0, (3, 1, 1, 1, 1, 1))),
)
"""In this order; more series than these are not told apart in one chart."""


def bare(axes: Axes, grid: str = "both") -> Axes:
    """Takes away what says nothing, and lays a faint grid beneath."""
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    if grid != "none":
        axes.grid(axis=grid, linewidth=0.8)  # type: ignore[arg-type]
    return axes
