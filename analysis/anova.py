"""Two measures of how much hangs on each axis, over points that are placed among all, by Optuna's evaluators.

- fANOVA (Hutter, Hoos & Leyton-Brown 2014): the share of the variance of the places over the whole space
  that an axis explains by itself, under a random forest; what the shares leave is joint effects and noise;
- PED-ANOVA (Watanabe, Bansal & Hutter 2023): how far an axis's values among the best points differ from those
  of all points.

An axis that is asked at some points only (a LoRA's rank) is judged among those: its share there counts as
much as the variance among them is of the whole, by the law of total variance.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import pvariance
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.importance import BaseImportanceEvaluator

FEWEST = 10
"""Points from which anything is said, and at which an axis must be asked for fANOVA to say any of it."""
BEST, FEWEST_BEST = 0.1, 5
"""The share of the points that PED-ANOVA calls the best, and how many these are at least."""
TREES, TREES_OF_DRAWS = 32, 4
"""Of a forest: each tree has shares of its own, so that fewer give the same in the mean."""

Space: TypeAlias = "Mapping[str, BaseDistribution]"


@dataclass(frozen=True)
class Point:
    """A configuration as a study has it: its values by axis, and its place among all."""

    values: Mapping[str, Any]
    place: float


def variance_shares(points: Sequence[Point], space: Space, draw: int | None = None) -> dict[str, float]:
    """fANOVA's share of the variance of the places by axis, of the axes that enough points ask."""
    from optuna.importance import FanovaImportanceEvaluator

    trees = TREES if draw is None else TREES_OF_DRAWS

    whole = len(points) * pvariance([point.place for point in points])
    asked = {axis: tuple(at for at, point in enumerate(points) if axis in point.values) for axis in space}
    found: dict[str, float] = {}
    for where in dict.fromkeys(asked.values()):
        here = [points[at] for at in where]
        own = len(here) * pvariance([point.place for point in here]) if here else 0.0
        mine = [axis for axis in space if asked[axis] == where]
        if len(here) < FEWEST:
            continue
        if not own:  # what all came to the same, nothing explains
            found |= dict.fromkeys(mine, 0.0)
            continue
        always = {axis: space[axis] for axis in space if all(axis in point.values for point in here)}
        fractions = _evaluated(FanovaImportanceEvaluator(n_trees=trees, seed=draw or 0), here, always)
        found |= {axis: own / whole * fractions[axis] for axis in mine}
    return found


def differences_of_best(points: Sequence[Point], space: Space, _: int | None = None) -> dict[str, float]:
    """PED-ANOVA's divergence of the best points' values from those of all, by axis."""
    from optuna.importance import PedAnovaImportanceEvaluator

    share = count_best(len(points)) / len(points)
    asked = {axis: each for axis, each in space.items() if any(axis in point.values for point in points)}
    return _evaluated(PedAnovaImportanceEvaluator(target_quantile=share), points, asked)


def count_best(points: int) -> int:
    return max(round(BEST * points), FEWEST_BEST)


def _evaluated(evaluator: BaseImportanceEvaluator, points: Sequence[Point], space: Space) -> dict[str, float]:
    """What an evaluator of Optuna's says of the axes at these points."""
    import optuna
    from optuna.trial import create_trial

    study = optuna.create_study(direction="maximize")
    for point in points:
        values = {axis: each for axis, each in point.values.items() if axis in space}
        distributions = {axis: space[axis] for axis in values}
        study.add_trial(create_trial(value=point.place, params=values, distributions=distributions))
    return {axis: float(each) for axis, each in evaluator.evaluate(study).items()}


def even(given: BaseDistribution) -> BaseDistribution:
    """A logarithmic range as the range of its logarithms: Optuna's fANOVA would weigh its upper end alone."""
    from optuna.distributions import FloatDistribution

    return FloatDistribution(math.log(given.low), math.log(given.high)) if _logarithmic(given) else given  # type: ignore[attr-defined]


def laid(values: Mapping[str, Any], space: Space) -> dict[str, Any]:
    return {axis: math.log(each) if _logarithmic(space[axis]) else each for axis, each in values.items()}


def _logarithmic(given: BaseDistribution) -> bool:
    return bool(getattr(given, "log", False))


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Optuna says of each study, and of regimes with few points, which the intervals show."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
