"""How far chance alone moves a result: intervals over seeds, noise pooled over configurations, contrasts.

All by Student's t at 95% (Student 1908), none corrected for how many are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, variance

LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A difference and the half-width of its interval."""

    value: float
    half_width: float

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width


@dataclass(frozen=True)
class Noise:
    """The standard deviation of single runs of one configuration, and its degrees of freedom."""

    deviation: float
    freedom: int

    def between_runs(self) -> float:
        """The least significant difference of two single runs: t·s·√(1/1 + 1/1)."""
        return t_quantile((1 + LEVEL) / 2, self.freedom) * self.deviation * math.sqrt(2)

    def contrast(self, one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Difference:
        """The mean of some configurations' means minus that of others'.

        Its standard error is s·√(Σ cᵢ²/nᵢ), cᵢ being the weight of a configuration's mean in the
        difference and nᵢ its runs.

        Args:
            one, other: for each configuration its values over seeds, at least one; none on both sides.
        """
        sides = ((one, 1 / len(one)), (other, -1 / len(other)))
        value = sum(weight * fmean(values) for side, weight in sides for values in side)
        squares = sum(weight**2 / len(values) for side, weight in sides for values in side)
        quantile = t_quantile((1 + LEVEL) / 2, self.freedom)
        return Difference(value, quantile * self.deviation * math.sqrt(squares))


def pooled(groups: Sequence[Sequence[float]]) -> Noise | None:
    """The deviation within groups, s² = Σ (nᵢ - 1) sᵢ² / Σ (nᵢ - 1); None where no group has two values.

    Takes the groups' spreads to be alike, which buys degrees of freedom where seeds are few.
    """
    several = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    if not freedom:
        return None
    squares = sum((len(group) - 1) * variance(group) for group in several)
    return Noise(math.sqrt(squares / freedom), freedom)


def half_width(values: Sequence[float]) -> float | None:
    """Of the interval of the mean, t·s/√n; None for fewer than two values."""
    if len(values) < 2:
        return None
    quantile = t_quantile((1 + LEVEL) / 2, len(values) - 1)
    return quantile * math.sqrt(variance(values) / len(values))


@cache
def t_quantile(probability: float, freedom: float) -> float:
    """Where Student's t distribution function reaches the probability, which is above one half."""
    low, high = 0.0, 1.0
    while _t_distribution(high, freedom) < probability:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if _t_distribution(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_distribution(t: float, freedom: float) -> float:
    """P(T ≤ t) for t ≥ 0: 1 - I_x(ν/2, 1/2)/2 at x = ν/(ν + t²)."""
    return 1 - _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # beyond, the fraction of the mirror image converges faster
        return 1 - _incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    fraction = 1.0
    for m in range(200, 0, -1):  # from the inside out
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        fraction = 1 + odd / (1 + even / fraction)
    return math.exp(logarithm) / (a * fraction)
