"""Points of a space as rows of numbers, many at a time: drawn, varied, told apart and compared.

A column is a parameter: the place of a choice among the choices, a number from 0 to 1 over its range, or
not-a-number where the parameter is not asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from scipy.spatial.distance import cdist

from sweeps.search.space import Parameter, Space, switches

Rows = NDArray[np.float64]
NEAR = 0.1
"""How far a number is moved that is varied near where it stands, as a part of its range."""
MOVES = 8
"""How often a number is varied: half of them near where it stands, half of them anywhere."""


class Coding:
    """Between the points of a space and rows of numbers."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._parameters = list(space.parameters.items())
        self._needs = [self._needed(name) for name, _ in self._parameters]
        self.distributions: dict[str, BaseDistribution] = {
            name: parameter.distribution() for name, parameter in self._parameters
        }
        free = [parameter for _, parameter in self._parameters if not parameter.fixed]
        widths = [1 if parameter.ordered else len(parameter.choices or ()) for parameter in free]
        self.axis = np.repeat(np.arange(len(free)), widths)
        """Of each feature, the number of its parameter among those that have several values."""
        self._circles = [_circle(parameter) for parameter in free]

    def read(self, told: Sequence[Mapping[str, Any]]) -> Rows:
        """The rows of points as Optuna has them."""
        rows = np.full((len(told), len(self._parameters)), np.nan)
        for row, values in zip(rows, told, strict=True):
            for column, (name, parameter) in enumerate(self._parameters):
                if name in values:
                    internal = self.distributions[name].to_internal_repr(values[name])
                    row[column] = internal if parameter.choices else _placed(parameter, internal)
        return rows

    def told(self, row: Rows) -> dict[str, Any]:
        """A row's point as Optuna has it."""
        values = {}
        for code, (name, parameter) in zip(row, self._parameters, strict=True):
            if not np.isnan(code):
                value = code if parameter.choices else float(_values(parameter, code))
                values[name] = self.distributions[name].to_external_repr(value)
        return values

    def drawn(self, random: np.random.Generator, count: int) -> Rows:
        """So many points, each parameter evenly over its values."""
        return self._asked(self._evenly(random, count))

    def varied(self, random: np.random.Generator, rows: Rows) -> Rows:
        """The points with one parameter changed, and anything that is asked because of it."""
        filled = np.where(np.isnan(rows), self._evenly(random, len(rows)), rows)
        found = []
        for column, (_, parameter) in enumerate(self._parameters):
            if parameter.choices:
                changed: list[Any] = list(range(len(parameter.choices)))
            else:
                near = [random.normal(filled[:, column], NEAR) for _ in range(MOVES // 2)]
                changed = [*near, *random.random((MOVES // 2, len(rows)))]
                changed = [_snapped(parameter, np.clip(each, 0, 1)) for each in changed]
            for values in changed:
                copy = filled.copy()
                copy[:, column] = values
                found.append(copy)
        return self._asked(np.concatenate(found))

    def features(self, rows: Rows) -> Rows:
        """Coordinates whose squared distances tell points apart, at most 1 for each parameter.

        Choices that are numbers stand evenly, in their order; of others any two are 1 apart. Where it is not
        asked, a number stands in the middle.
        """
        blocks = []
        for column, (_, parameter) in enumerate(self._parameters):
            codes = rows[:, column, None]
            if parameter.fixed:
                continue
            if not parameter.ordered:
                blocks.append((codes == np.arange(len(parameter.choices or ()))) / np.sqrt(2))
                continue
            if parameter.choices:
                order = np.argsort(np.argsort(parameter.choices)) / (len(parameter.choices) - 1)
                codes = np.where(np.isnan(codes), np.nan, order[np.nan_to_num(codes).astype(int)])
            blocks.append(np.where(np.isnan(codes), 0.5, codes))
        return np.concatenate([np.zeros((len(rows), 0)), *blocks], axis=1)

    def apart(self, rows: Rows, others: Rows) -> Rows:
        """How far points are from others where each number's range is a circle: no end of it is far out.

        At most 1 for each parameter, squared. # [rows, others]
        """
        features, beside = self.features(rows), self.features(others)
        squared = np.zeros((len(rows), len(others)))
        for number, circle in enumerate(self._circles):
            columns = self.axis == number
            straight = cdist(features[:, columns], beside[:, columns])
            squared += (np.minimum(straight, circle - straight) / (circle / 2)) ** 2
        return np.asarray(np.sqrt(squared))

    def keys(self, rows: Rows) -> list[bytes]:
        """Equal for equal points."""
        return [row.tobytes() for row in np.nan_to_num(rows, nan=-1.0).round(9) + 0.0]

    def _needed(self, name: str) -> list[int]:
        """The columns that say whether a parameter is asked."""
        others = {*self._space.parameters[name].when, *switches(name)}
        return [column for column, (other, _) in enumerate(self._parameters) if other in others]

    def _asked(self, rows: Rows) -> Rows:
        """The rows without what is not to be asked."""
        for column, (name, _) in enumerate(self._parameters):
            needed = self._needs[column]
            if not needed:
                continue
            cases, case = np.unique(np.nan_to_num(rows[:, needed], nan=-1.0), axis=0, return_inverse=True)
            asked = [self._space.asked(name, self._point(needed, each)) for each in cases]
            rows[~np.array(asked)[case.ravel()], column] = np.nan
        return rows

    def _point(self, columns: Sequence[int], codes: Rows) -> dict[str, Any]:
        point: dict[str, Any] = {}
        for column, code in zip(columns, codes, strict=True):
            name, parameter = self._parameters[column]
            if code >= 0:
                point[name] = (
                    parameter.choices[int(code)] if parameter.choices else float(_values(parameter, code))
                )
        return point

    def _evenly(self, random: np.random.Generator, count: int) -> Rows:
        return np.stack([_drawn(parameter, random, count) for _, parameter in self._parameters], axis=1)


def _circle(parameter: Parameter) -> float:
    """How long the circle is on which a parameter's values stand, where a number's range is 1.

    From the last of evenly spaced numbers to the first it is as far as from one to the next.
    """
    if parameter.choices:
        return 1 + 1 / (len(parameter.choices) - 1) if parameter.ordered else 2.0
    return 1.0 if parameter.log or _step(parameter) is None else 1 + 1 / _steps(parameter)


def _drawn(parameter: Parameter, random: np.random.Generator, count: int) -> Rows:
    if parameter.choices:
        return random.integers(len(parameter.choices), size=count).astype(np.float64)
    if parameter.log or _step(parameter) is None:
        return _snapped(parameter, random.random(count))
    steps = random.integers(_steps(parameter) + 1, size=count)
    return np.asarray(_placed(parameter, parameter.low + _step(parameter) * steps))


def _snapped(parameter: Parameter, codes: Rows) -> Rows:
    """Codes of the nearest values that the parameter takes."""
    return np.asarray(_placed(parameter, _values(parameter, codes)))


def _placed(parameter: Parameter, values: Any) -> Any:
    """Where in its range a number stands."""
    low, high = parameter.low, parameter.high
    if parameter.log:
        return np.log(values / low) / np.log(high / low)
    return (values - low) / (high - low)


def _values(parameter: Parameter, codes: Any) -> Any:
    """The numbers at places in the range."""
    low, high = parameter.low, parameter.high
    values = low * (high / low) ** codes if parameter.log else low + codes * (high - low)
    step = _step(parameter)
    if step is not None:
        values = low + step * np.clip(np.round((values - low) / step), 0, _steps(parameter))
    return np.clip(values, low, high)


def _step(parameter: Parameter) -> Any:
    return parameter.step or (1 if parameter.whole else None)


def _steps(parameter: Parameter) -> int:
    """How many steps the range holds."""
    return int((parameter.high - parameter.low) / _step(parameter) + 1e-9)
