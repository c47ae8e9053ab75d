"""The fields in which runs differ, as the factors of a model: levels, and where a level may be at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.store.records import canonical
from analysis.store.spread import differing
from analysis.store.state import SweepState

GIVEN = "given"
"""The level of a place that is there, whatever stands in it."""


@dataclass(frozen=True)
class Result:
    """A run with a value, and its configuration by dotted field."""

    run_id: str
    config_id: str
    seed: int
    fields: Mapping[str, Any]
    value: float
    trainable: float | None
    seconds: float | None


@dataclass(frozen=True)
class Factor:
    """A field and the values that it takes.

    Attributes:
        along: the fields that change with it, everywhere.
        levels: at least two.
        of: of each run its level; None where the run has no such field.
        parent: which factor says whether a run has it; None where all have.
    """

    field: str
    along: tuple[str, ...]
    levels: tuple[Any, ...]
    of: tuple[int | None, ...]
    parent: int | None = None


def factors_of_points(sweep: SweepState, results: Sequence[Result]) -> list[Factor]:
    """The one factor of a sweep of names: its changes or rows, in their order."""
    points = [dict(sweep.points[result.run_id]) for result in results]
    (field,) = points[0]
    declared = [str(name) for name in (sweep.declaration.get("axes") or {}).get(field, ())]
    levels = list(dict.fromkeys([*declared, *sorted({str(point[field]) for point in points})]))
    if len(levels) < 2:
        return []
    return [Factor(field, (), tuple(levels), tuple(levels.index(str(point[field])) for point in points))]


def factors_of_fields(results: Sequence[Result]) -> list[Factor]:
    """A factor for each field that differs by itself, and for each place that some have and others have not.

    A field that only some runs have is compared among these: that they have it is the place's own effect.
    """
    names = differing({result.config_id: result.fields for result in results}.values())
    groups = _together(names, results)
    factors: list[Factor] = []
    places: dict[tuple[bool, ...], int] = {}
    for field, *along in groups:  # first those that tell no more than whether a place is there
        levels = _levels(field, results)
        if len(levels) == 2 and levels[0] is None:
            places[_has(field, results)] = len(factors)
            factors.append(_factor(field, tuple(along), levels, results))
    for field, *along in groups:
        levels = _levels(field, results)
        if levels[0] is not None:
            factors.append(_factor(field, tuple(along), levels, results))
        elif len(levels) > 2:
            has = _has(field, results)
            if has not in places:
                places[has] = len(factors)
                of = tuple(int(each) for each in has)
                factors.append(Factor(field.split(".")[0], (), (None, GIVEN), of))
            factors.append(_factor(field, tuple(along), levels[1:], results, places[has]))
    return factors


def _factor(
    field: str,
    along: tuple[str, ...],
    levels: Sequence[Any],
    results: Sequence[Result],
    parent: int | None = None,
) -> Factor:
    at = {canonical(level): index for index, level in enumerate(levels)}
    of = tuple(at.get(canonical(result.fields.get(field))) for result in results)
    return Factor(field, along, tuple(levels), of, parent)


def _has(field: str, results: Sequence[Result]) -> tuple[bool, ...]:
    return tuple(result.fields.get(field) is not None for result in results)


def _levels(field: str, results: Sequence[Result]) -> list[Any]:
    """The field's values: the absent first, then as numbers or letters go."""
    values = {canonical(result.fields.get(field)): result.fields.get(field) for result in results}
    return sorted(values.values(), key=_order)


def _together(names: Sequence[str], results: Sequence[Result]) -> list[list[str]]:
    """The fields in sets that split the runs in the same way."""
    sets: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        numbers: dict[str, int] = {}
        texts = [canonical(result.fields.get(name)) for result in results]
        split = tuple(numbers.setdefault(text, len(numbers)) for text in texts)
        sets.setdefault(split, []).append(name)
    return list(sets.values())


def _order(each: Any) -> tuple[int, float, str]:
    if each is None:
        return 0, 0.0, ""
    if isinstance(each, (int, float)):
        return 1, float(each), ""
    return 2, 0.0, str(each)
