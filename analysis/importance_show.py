"""The importance of axes as tables, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.console import RenderableType

from analysis.importance import CHANCE, Importance, Importances, Share
from analysis.show import Column, laid_out
from analysis.store.spread import column


def importance_table(found: Importances, width: int | None = None) -> RenderableType:
    """The axes for a terminal, the most important first, under what is to be said of them."""
    axes = found.axes
    columns = [
        Column("axis", [each.axis for each in axes]),
        Column("of the variance", [_told(each.variance) for each in axes], 0, True),
        Column("of what marks the best", [_told(each.best) for each in axes], 1, True),
        Column("chance", [_chance(each.p) for each in axes], 0, True),
        Column("among the best", [each.among_best for each in axes], 2),
        Column("points", [str(each.points) for each in axes], 3, True),
    ]
    return laid_out(columns, width, in_words(found), _note(found))


def importance_rows(found: Importances) -> pa.Table:
    """The axes as a table for machines."""
    axes = found.axes
    columns: dict[str, list[Any]] = {
        "axis": [each.axis for each in axes],
        "points": [each.points for each in axes],
    }
    for name in ("variance", "best"):
        shares = [getattr(each, name) for each in axes]
        for part in ("value", "low", "high", "p"):
            key = name if part == "value" else f"{name}_{part}"
            columns[key] = [None if share is None else getattr(share, part) for share in shares]
    columns["p"] = [each.p for each in axes]
    columns["among_best"] = [each.among_best for each in axes]
    return pa.table({name: column(values) for name, values in columns.items()})


def in_words(found: Importances) -> str:
    """What the points tell of the axes, and what they cannot tell."""
    sure = [each for each in found.axes if each.p <= CHANCE]
    rest = len(found.axes) - len(sure)
    if not sure:
        return (
            f"The {found.points} points do not tell which axis matters for {found.by}: chance brings as much "
            f"to any of the {len(found.axes)}."
        )
    named = _joined([f"{each.axis} ({_why(each)})" for each in sure])
    said = f"What {found.by} hangs on beyond chance: {named}."
    if found.steered:
        said += (
            f" The search ({found.steered}) chose its points by what came before: axes that it moved "
            "together share what one of them did, which sweeps/ablation.py around its winner tells apart."
        )
    if rest:
        others = "the other axis" if rest == 1 else f"the other {rest} axes"
        said += f" Of {others}, {found.points} points do not tell: chance brings as much."
    return said


def _why(each: Importance) -> str:
    """The measure by which an axis stands out the most."""
    if each.variance is not None and each.variance.p <= each.best.p:
        return f"{each.variance.value:.0%} of the variance"
    return f"best with {each.among_best}"


def _note(found: Importances) -> str:
    said = (
        f"{found.points} points. Of the variance: the share that an axis explains by itself (fANOVA). "
        f"Of what marks the best: how far its values among the best {found.best} differ from all's "
        "(PED-ANOVA). "
        "In brackets 95% over resampled points; chance: how often shuffled values stand out as far."
    )
    stopped = len(found.places.stopped)
    if stopped:
        said += (
            f" {stopped} of the points were stopped: each counts as it stood, where it was stopped, among "
            "those that went further."
        )
    if found.places.unplaced:
        said += f" {len(found.places.unplaced)} more have shown nothing that compares, and are left out."
    return said


def _told(share: Share | None) -> str:
    return "-" if share is None else f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def _chance(p: float) -> str:
    return f"{p:.2f}" + (" *" if p <= CHANCE else "")


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
