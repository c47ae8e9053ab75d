"""Which axes of a sweep matter: how much of the outcome hangs on each, and how much of that is chance.

By two measures (`anova.py`) of the points, each placed among all (`places.py`), as a search stops most of its
runs. With two dozen points both find something in any axis: what chance brings is shown beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.anova import (
    FEWEST,
    Point,
    Space,
    count_best,
    differences_of_best,
    even,
    laid,
    quiet,
    variance_shares,
)
from analysis.places import Places, places
from analysis.ranking import check_metric, objective
from analysis.store.errors import StoreError
from analysis.store.records import canonical
from analysis.store.state import RunState, State
from analysis.study import distributions, shown

REPEATS = 50
"""How often the points are resampled, and how often axes are shuffled."""
CHANCE = 0.05
"""An axis that chance brings as far more often than so may be noise."""
UNSTEERED = ("random", "quasi_random")
"""Samplers that choose points whatever the others came to."""
TAIL = 2.5
"""Percent of the resamples beyond either end of a 95% interval."""

Measure = Callable[[Sequence[Point], Space, int | None], dict[str, float]]
"""How much hangs on each axis at some points: at all there are, or at those drawn the so manieth time."""


@dataclass(frozen=True)
class Share:
    """How much hangs on an axis.

    Attributes:
        low, high: of the interval over resamples of the points (Efron 1979).
        p: how often chance brings some axis so far: of draws that shuffle the values of every axis not yet
            told from chance, in how many does one of these stand out, against what it usually comes to, as
            far as this one does unshuffled (the step-down maxima of Westfall & Young 1993).
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Importance:
    """What hangs on an axis.

    Attributes:
        points: at which it is asked.
        variance: by fANOVA; null where too few points ask it.
        best: by PED-ANOVA.
        among_best: its values among the best points, in words.
    """

    axis: str
    points: int
    variance: Share | None
    best: Share
    among_best: str

    @property
    def p(self) -> float:
        """The smaller of both measures' chances, as there are two."""
        return min(1.0, 2 * min(each.p for each in (self.variance, self.best) if each is not None))


@dataclass(frozen=True)
class Importances:
    """The axes of a sweep, the most important first, and what they were judged by.

    Attributes:
        best: how many of the points count as the best.
        steered: by which sampler, where it chose the points by what had come before: they then differ along
            several axes at once, which share what each did.
    """

    by: str
    points: int
    best: int
    steered: str | None
    places: Places
    axes: tuple[Importance, ...]


def importances(
    state: State, sweep: str, by: str | None = None, lowest_first: bool = False, repeats: int = REPEATS
) -> Importances:
    """How much hangs on each axis of a search or a grid.

    Args:
        by, lowest_first: as for `ranked`.

    Raises:
        StoreError: no such sweep or metric; a sweep without axes; too few points.
    """
    by = by or objective(state, sweep)
    runs = state.runs_of(sweep)
    check_metric(runs, by)
    groups: dict[str, list[RunState]] = {}
    for run in runs:
        groups.setdefault(run.config_id, []).append(run)
    placed = places(groups, by, lowest_first)
    declared = state.sweep(sweep)
    told = {name: declared.points[groups[name][0].run_id] for name in placed.of}
    axes = _varying(list(told.values()), sweep, declared.kind)
    if len(told) < FEWEST or len(set(placed.of.values())) == 1:
        raise StoreError(
            f"importance takes at least {FEWEST} points that did not all come to the same; {len(told)} of "
            f"{sweep!r} have shown anything"
        )
    points = [
        Point({axis: shown(point[axis]) for axis in axes if axis in point}, placed.of[name])
        for name, point in told.items()
    ]
    known = distributions(declared.declaration.get("axes") or {}, list(told.values()))
    with quiet():
        found = judged(points, {axis: known[axis] for axis in axes}, repeats)
    sampler = (declared.declaration.get("sampler") or {}).get("name")
    steered = None if sampler in UNSTEERED else sampler
    return Importances(by, len(points), count_best(len(points)), steered, placed, found)


def judged(points: Sequence[Point], space: Space, repeats: int) -> tuple[Importance, ...]:
    """The axes of a space by what the points tell of them, the most important first."""
    evenly = {axis: even(each) for axis, each in space.items()}
    flat = [replace(point, values=laid(point.values, space)) for point in points]
    explained = _shares(flat, evenly, variance_shares, repeats, relative=False)
    best = _shares(points, space, differences_of_best, repeats, relative=True)
    found = [
        Importance(
            axis,
            sum(axis in point.values for point in points),
            explained.get(axis),
            best[axis],
            _among_best(points, axis),
        )
        for axis in space
    ]
    return tuple(sorted(found, key=lambda each: (each.variance is None, -_weight(each), each.axis)))


def _shares(
    points: Sequence[Point], space: Space, measure: Measure, repeats: int, relative: bool
) -> dict[str, Share]:
    """A measure of the points, with its interval and its chance.

    Args:
        relative: whether to show each value as a share of all axes' together.
    """
    generator = np.random.default_rng(0)

    def told(measured: dict[str, float]) -> dict[str, float]:
        whole = sum(measured.values()) if relative else 1.0
        return {axis: value / (whole or 1.0) for axis, value in measured.items()}

    found = measure(points, space, None)
    resampled = []
    for draw in range(1, repeats + 1):
        drawn = [points[at] for at in generator.integers(len(points), size=len(points))]
        resampled.append(told(measure(drawn, space, draw)))
    chances = _chances(points, space, measure, found, repeats, generator)
    return {
        axis: Share(value, *_interval([each[axis] for each in resampled if axis in each]), chances[axis])
        for axis, value in told(found).items()
    }


def _chances(
    points: Sequence[Point],
    space: Space,
    measure: Measure,
    found: Mapping[str, float],
    repeats: int,
    generator: np.random.Generator,
) -> dict[str, float]:
    """Of each axis how often chance comes as far; what is told from it stays as it is for the others.

    Beside an axis that explains most there is little left for chance to explain.
    """
    chances: dict[str, float] = {}
    remaining = list(found)
    while remaining:
        drawn = [
            measure(_shuffled(points, remaining, generator), space, draw) for draw in range(1, repeats + 1)
        ]
        null = np.array([[each[axis] for axis in remaining] for each in drawn])
        middle, spread = null.mean(axis=0), np.maximum(null.std(axis=0), 1e-12)
        furthest = ((null - middle) / spread).max(axis=1, keepdims=True)
        own = (np.array([found[axis] for axis in remaining]) - middle) / spread
        beaten = (1 + (furthest >= own).sum(axis=0)) / (1 + repeats)
        chances |= dict(zip(remaining, map(float, beaten), strict=True))
        left = [axis for axis in remaining if chances[axis] > CHANCE / 2]  # as there are two measures
        if len(left) == len(remaining):
            break
        remaining = left
    return chances


def _shuffled(points: Sequence[Point], axes: Sequence[str], generator: np.random.Generator) -> list[Point]:
    """The points with the values of these axes shuffled, each among the points that have any."""
    values = [dict(point.values) for point in points]
    for axis in axes:
        asked = [at for at, point in enumerate(points) if axis in point.values]
        for at, other in zip(asked, generator.permutation(asked), strict=True):
            values[at][axis] = points[other].values[axis]
    return [replace(point, values=each) for point, each in zip(points, values, strict=True)]


def _interval(drawn: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(drawn, (TAIL, 100 - TAIL))
    return float(low), float(high)


def _varying(points: Sequence[Mapping[str, Any]], sweep: str, kind: str | None) -> list[str]:
    """The axes along which the points differ."""
    axes = dict.fromkeys(axis for point in points for axis in point)
    found = [axis for axis in axes if len({canonical(point[axis]) for point in points if axis in point}) > 1]
    if kind in ("ablation", "list") or not found:
        raise StoreError(
            f"{sweep!r} ({kind}) has no axes along which its points differ: importance is of a search or a "
            "grid, and `compare` says what each change did"
        )
    return found


def _among_best(points: Sequence[Point], axis: str) -> str:
    """The values of an axis among the best points: the range of numbers, or the commonest of others."""
    ordered = sorted(points, key=lambda point: -point.place)[: count_best(len(points))]
    found = [point.values[axis] for point in ordered if axis in point.values]
    if not found:
        return "-"
    if all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in found):
        low, high = min(found), max(found)
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    ((value, count),) = Counter(map(str, found)).most_common(1)
    return f"{value} in {count} of {len(ordered)}"


def _weight(each: Importance) -> float:
    return each.best.value if each.variance is None else each.variance.value
