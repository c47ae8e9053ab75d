"""Effects as tables, and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.console import Group, RenderableType
from rich.text import Text

from analysis.effects import Effect, Effects, Joint
from analysis.show import Column, cell, laid_out
from analysis.stats import LEVEL, Estimate
from analysis.store.spread import column

CHANCE = 1 - LEVEL
POINTS = ("score", ".accuracy", ".pearson")
"""Metrics from 0 (or -1) to 1, of which differences are told in hundredths."""


def effects_table(found: Effects, width: int | None = None) -> RenderableType:
    """The effects for a terminal, under what they come to in words."""
    if not found.axes:
        return Text("nothing differs between the completed runs")
    if found.kind == "ablation":
        return laid_out(_ablation_columns(found), width, in_words(found), _note(found))
    tables = [laid_out(_columns(found), width, in_words(found), None if found.joint else _note(found))]
    if found.joint:
        title = "\nWhat a step of one field does more beside a step of another:"
        tables.append(laid_out(_joint_columns(found), width, title, _note(found)))
    return Group(*tables)


def effects_rows(found: Effects) -> pa.Table:
    """The effects as a table for machines; those of two fields with `×` between them."""
    rows = [_row(each) for axis in found.axes for each in axis] + [_joint_row(each) for each in found.joint]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: column([row.get(name) for row in rows]) for name in names})


def in_words(found: Effects) -> str:
    """What was found to differ beyond chance, and what was not."""
    if found.noise is None:
        return "Nothing shows how far chance moves a run: differences are as measured, without intervals."
    if found.kind == "ablation":
        return _ablation_in_words(found)
    sure = [each for axis in found.axes for each in axis if each.p is not None and each.p <= CHANCE]
    joint = [each for each in found.joint if each.p is not None and each.p <= CHANCE]
    if not sure:
        said = f"No difference of {found.by} is told from chance."
    else:
        largest = max(sure, key=lambda each: abs(_value(each.difference)))
        said = (
            f"Told from chance in {found.by}: {_joined(list(dict.fromkeys(each.field for each in sure)))}; "
            f"the most, {largest.field} {cell(largest.value)} instead of {cell(largest.against)}, "
            f"{_interval(largest.difference, found.by)}."
        )
    if joint:
        pairs = _joined(list(dict.fromkeys(" and ".join(each.fields) for each in joint)))
        said += f" They do not merely add up: {pairs}."
    return said


def _ablation_in_words(found: Effects) -> str:
    if not found.axes[0][0].runs:
        return "The base has no result yet, with which the changes are to be compared."
    changes = [each for each in found.axes[0][1:] if each.difference is not None]
    sure = [each for each in changes if each.p is not None and each.p <= CHANCE]
    said = []
    for group, verb in (
        ([each for each in sure if _value(each.difference) < 0], "Worse beyond chance"),
        ([each for each in sure if _value(each.difference) > 0], "Better beyond chance"),
    ):
        ordered = sorted(group, key=lambda each: -abs(_value(each.difference)))
        if ordered:
            told = [f"{each.value} ({_interval(each.difference, found.by)})" for each in ordered]
            said.append(f"{verb}: {_joined(told)}.")
    rest = len(changes) - len(sure)
    if rest:
        widths = [each.difference.half_width for each in changes if each not in sure and each.difference]
        which = "None of the changes is" if not sure else f"Of the other {rest}, none is"
        which = "The other is not" if sure and rest == 1 else which
        said.append(
            f"{which} told from chance, with intervals of {_sizes(widths, found.by)}; more seeds narrow them."
        )
    return " ".join(said) or "No change has come to a result yet."


def _ablation_columns(found: Effects) -> list[Column]:
    (base, *changes) = found.axes[0]
    ordered = [base, *sorted(changes, key=_cost)]
    return [
        Column("change", [str(each.value) for each in ordered]),
        Column("difference", ["" if each is base else _told(each, found) for each in ordered]),
        Column("p", ["" if each is base else _p(each.p) for each in ordered], 1, True),
        Column(found.by, [cell(each.mean) for each in ordered], 0, True),
        Column("seeds", [_runs(each) for each in ordered], 1, True),
        Column("parameters saved", [_saved(base.trainable, each.trainable) for each in ordered], 2, True),
        Column("seconds saved", [_saved(base.seconds, each.seconds) for each in ordered], 3, True),
    ]


def _columns(found: Effects) -> list[Column]:
    rows = [(each, at) for axis in found.axes for at, each in enumerate(axis)]
    return [
        Column("field", [text for axis in found.axes for text in _field_cells(axis)]),
        Column("value", [cell(each.value) for each, _ in rows], 0, True),
        Column(f"mean {found.by}", [cell(each.mean) for each, _ in rows], 0, True),
        Column("against", ["" if not at else cell(each.against) for each, at in rows], 2, True),
        Column("difference", ["" if not at else _told(each, found) for each, at in rows], 1),
        Column("p", ["" if not at else _p(each.p) for each, at in rows], 2, True),
        Column("runs", [_runs(each) for each, _ in rows], 3, True),
        Column("configurations", [str(each.configurations) for each, _ in rows], 4, True),
    ]


def _joint_columns(found: Effects) -> list[Column]:
    return [
        Column("fields", [" × ".join(each.fields) for each in found.joint]),
        Column("steps", [_steps(each) for each in found.joint]),
        Column("difference", [_interval(each.difference, found.by) for each in found.joint]),
        Column("p", [_p(each.p) for each in found.joint], 1, True),
    ]


def _steps(each: Joint) -> str:
    return ", ".join(f"{cell(before)} to {cell(after)}" for before, after in each.steps)


def _note(found: Effects) -> str:
    unit = "Differences in points, hundredths of the metric. " if _in_points(found.by) else ""
    if found.noise is None:
        return f"{unit}With more seeds there would be intervals."
    freedom = f"{found.noise.freedom} degree{'s' if found.noise.freedom != 1 else ''} of freedom"
    if found.replicated:
        paired = "paired by seeds, with " if found.seeds > 1 else "with "
        noise = f"{paired}the noise of all configurations together ({freedom})"
    else:
        noise = (
            f"the noise is what these effects leave unexplained ({freedom}), joint effects included: with "
            "more seeds it would be that of seeds"
        )
    own = any(each.own_spread for axis in found.axes for each in axis)
    scattered = " † by the spread of its own seeds, which is larger." if own else ""
    return (
        f"{unit}± is a 95% interval: {noise}. * p ≤ 0.05, corrected for all in the table (Holm).{scattered}"
    )


def _told(each: Effect, found: Effects) -> str:
    if each.difference is None:
        return "cannot be told apart" if each.runs else "no result"
    marks = (" *" if each.p is not None and each.p <= CHANCE else "") + (" †" if each.own_spread else "")
    return _interval(each.difference, found.by) + marks


def _interval(difference: Estimate | None, by: str) -> str:
    """`-0.8 ± 0.3`, in points where the metric is a share."""
    if difference is None:
        return "-"
    factor, digits = (100, ".2f") if _in_points(by) else (1, ".4g" if abs(difference.value) >= 1e4 else ".4f")
    spread = "" if math.isnan(difference.error) else f" ± {factor * difference.half_width:{digits}}"
    value = f"{factor * difference.value:+{digits}}"
    return value.replace("-", "−" if float(value) else "+") + spread


def _sizes(widths: Sequence[float], by: str) -> str:
    told = [f"±{100 * each:.2f}" if _in_points(by) else f"±{each:.4g}" for each in (min(widths), max(widths))]
    return " to ".join(dict.fromkeys(told)) + (" points" if _in_points(by) else "")


def _in_points(by: str) -> bool:
    return by.endswith(POINTS)


def _p(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _runs(each: Effect) -> str:
    return str(each.runs) + (f" (+{each.without} without a result)" if each.without else "")


def _saved(base: float | None, own: float | None) -> str:
    if base is None or own is None:
        return "-"
    saved = base - own
    told = f"{saved:,.0f}" if abs(saved) >= 100 or saved == 0 else f"{saved:.1f}"
    return told.replace("-", "−")


def _cost(each: Effect) -> float:
    return math.inf if each.difference is None else each.difference.value


def _value(difference: Estimate | None) -> float:
    return 0.0 if difference is None else difference.value


def _row(each: Effect) -> dict[str, Any]:
    names = ("field", "value", "against", "configurations", "runs", "without", "mean", "trainable", "seconds")
    return (
        {name: getattr(each, name) for name in names}
        | {"along": ",".join(each.along)}
        | _difference_row(each.difference, each.p)
    )


def _joint_row(each: Joint) -> dict[str, Any]:
    before, after = ([cell(step[at]) for step in each.steps] for at in (0, 1))
    named = {"field": " × ".join(each.fields), "value": ", ".join(after), "against": ", ".join(before)}
    return named | _difference_row(each.difference, each.p)


def _difference_row(difference: Estimate | None, p: float | None) -> dict[str, Any]:
    known = difference is not None and not math.isnan(difference.error)
    return {
        "difference": None if difference is None else difference.value,
        "low": difference.low if difference is not None and known else None,
        "high": difference.high if difference is not None and known else None,
        "p": p,
    }


def _field_cells(axis: Sequence[Effect]) -> list[str]:
    """The field at its first value, and below it, as far as there is room, those that go along with it."""
    names = [axis[0].field, *(f"+ {name}" for name in axis[0].along)]
    cells = [*names[: len(axis) - 1], " ".join(names[len(axis) - 1 :])]
    return cells + [""] * (len(axis) - len(cells))


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
