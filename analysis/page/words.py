"""Numbers as one says them."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """A duration in the unit that fits it."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(number: float | None) -> str:
    """A count with thousands set apart; a dash where there is none."""
    return "–" if number is None else f"{number:,.0f}"


def score(value: float | None) -> str:
    """A metric's value."""
    if value is None or not math.isfinite(value):
        return "–"
    return (f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}").replace("-", "−")


def spread(value: float, half_width: float | None) -> str:
    """A value and the half-width of its interval."""
    return score(value) if half_width is None else f"{score(value)} ± {score(half_width)}"


def gain(value: float) -> str:
    """A difference, with its sign."""
    return f"{value:+.4f}".replace("-", "−")


def memory(size_in_bytes: float) -> str:
    return (
        f"{size_in_bytes / 2**30:.1f} GiB" if size_in_bytes >= 2**30 else f"{size_in_bytes / 2**20:.0f} MiB"
    )
