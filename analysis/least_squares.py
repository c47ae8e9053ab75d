"""Effects over runs by least squares: which are blocks of columns, what is left is noise.

A balanced grid's effects are then the differences of its marginal means, and an unbalanced one's are what the
additive model says of them (Yates 1934). Each axis is coded to sum to zero over its levels, so that an effect
is that of the average level of every other axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.factors import Factor
from analysis.stats import Estimate, Noise

SAME = 1e-9
"""Relative to the largest: what is smaller is rounding."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear model of values.

    Attributes:
        design: float64 [runs, columns]
        inverse: of the design, Moore and Penrose's. float64 [columns, runs]
        coefficients: float64 [columns]
        squares: the sum of what is left, squared.
        freedom: runs less the rank of the design.
    """

    design: np.ndarray
    inverse: np.ndarray
    coefficients: np.ndarray
    squares: float
    freedom: int

    @staticmethod
    def of(design: np.ndarray, values: np.ndarray) -> Fit:
        inverse = np.linalg.pinv(design, rcond=SAME)
        coefficients = inverse @ values
        left = values - design @ coefficients
        rank = round(float(np.trace(inverse @ design)))
        left[np.abs(left) < SAME * np.abs(values).max()] = 0
        return Fit(design, inverse, coefficients, float(left @ left), len(values) - rank)

    @property
    def noise(self) -> Noise | None:
        """What is left of single runs; None where nothing can be."""
        if self.freedom < 1:
            return None
        return Noise(math.sqrt(self.squares / self.freedom), self.freedom)

    def knows(self, contrast: np.ndarray) -> bool:
        """Whether the runs determine this combination of coefficients, whatever the others are."""
        return bool(np.allclose(contrast @ self.inverse @ self.design, contrast, atol=1e-6))

    def estimate(self, contrast: np.ndarray, noise: Noise | None) -> Estimate | None:
        """A combination c with its error s·√(c′(X′X)⁻c), which is not a number without noise.

        None where the runs do not tell it.
        """
        if not self.knows(contrast):
            return None
        value = float(contrast @ self.coefficients)
        if noise is None:
            return Estimate(value, math.nan, 0)
        length = float(np.linalg.norm(contrast @ self.inverse))
        return Estimate(value, noise.deviation * length, noise.freedom)


def noise_of(configurations: np.ndarray, additive: Fit, values: np.ndarray) -> tuple[Noise | None, bool]:
    """What chance leaves of single runs, and whether that is of replicates.

    Of replicates, once what a seed does to all alike is taken off; without any, what the additive model
    leaves, joint effects included; None where that is nothing either.

    Args:
        configurations: a column for each configuration and for each seed. float64 [runs, columns]
    """
    pure = Fit.of(configurations, values)
    return (pure.noise, True) if pure.noise is not None else (additive.noise, False)


def against_average(levels: Sequence[int | None], count: int) -> np.ndarray:
    """A column for each level but the first: 1 at it, -1 at the first, 0 elsewhere and where there is none.

    Args:
        levels: of each run, from 0 on; None where it has no such axis.
    """
    columns = np.zeros((len(levels), count - 1))
    for row, level in enumerate(levels):
        if level == 0:
            columns[row] = -1
        elif level is not None:
            columns[row, level - 1] = 1
    return columns


def level_row(level: int, count: int) -> np.ndarray:
    """A level's effect in terms of the columns of `against_average`."""
    row: np.ndarray = against_average([level], count)[0]
    return row


def indicators(labels: Sequence[object]) -> np.ndarray:
    """A column for each label. float64 [runs, labels]"""
    known = list(dict.fromkeys(labels))
    return np.array([[float(label == each) for each in known] for label in labels])


@dataclass(frozen=True, eq=False)
class Model:
    """The additive model: a constant, then a block of columns for each factor, then the seeds'."""

    factors: Sequence[Factor]
    blocks: Sequence[np.ndarray]
    seeds: np.ndarray
    fit: Fit

    @staticmethod
    def of(factors: Sequence[Factor], seeds: Sequence[int], count: int, values: np.ndarray) -> Model:
        blocks = [against_average(factor.of, len(factor.levels)) for factor in factors]
        of_seeds = against_average(seeds, count)
        design = np.hstack([np.ones((len(values), 1)), *blocks, of_seeds])
        return Model(factors, blocks, of_seeds, Fit.of(design, values))

    def row(self, at: int, level: int) -> np.ndarray:
        """The effect of a factor's level as a combination of the coefficients."""
        row = np.zeros(self.fit.design.shape[1])
        start = 1 + sum(block.shape[1] for block in self.blocks[:at])
        row[start : start + self.blocks[at].shape[1]] = level_row(level, len(self.factors[at].levels))
        return row

    def mean(self, at: int, level: int) -> float | None:
        """What a level comes to where every other factor is at its average."""
        row = self.row(at, level)
        row[0] = 1
        parent = self.factors[at].parent
        if parent is not None:
            row += self.row(parent, 1)
        found = self.fit.estimate(row, None)
        return None if found is None else found.value
