"""Interquartile mean and probability of improvement over several tasks, with their stratified bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.stats.estimates import LEVEL

RESAMPLES = 2000
Strata = Sequence[Sequence[float]]
"""For each task, or whatever else is not to be mixed, its values over runs."""


class Interval(NamedTuple):
    """A value between two ends, which need not be equally far from it."""

    value: float
    low: float
    high: float


def interquartile_mean(strata: Strata) -> float:
    """The mean of the middle half of all values (Agarwal et al. 2021, §4.3): less moved by a stray run.

    A quarter of the values, rounded down, is left out at either end, as by `scipy.stats.trim_mean`.
    """
    return float(_middle(np.concatenate([np.asarray(values, dtype=float) for values in strata])))


def interquartile_interval(strata: Strata, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The interquartile mean with its 95% percentile interval, runs resampled within each stratum.

    Agarwal et al. 2021, §4.1. It needs many runs of each task. With few it is too narrow, over thirty tasks
    as over one: `benchmarks/interval_coverage.py` measures how far, and no command shows it by default.
    """
    draws = [_resampled(values, resamples, seed, at) for at, values in enumerate(strata)]
    found = _middle(np.concatenate(draws, axis=1))
    return Interval(interquartile_mean(strata), *percentiles(found))


def probability_of_improvement(one: Strata, other: Strata) -> float:
    """How often a run of one beats a run of the other, ties as halves: the mean over strata of U/(n·m).

    Agarwal et al. 2021, §4.3, after Mann and Whitney 1947.
    """
    pairs = zip(one, other, strict=True)
    return float(np.mean([_wins(np.asarray([a]), np.asarray([b]))[0] for a, b in pairs]))


def improvement_interval(one: Strata, other: Strata, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The probability of improvement with its 95% percentile interval, runs resampled within strata.

    Too narrow for few runs, and of no width where all runs of one beat all of the other.
    """
    found = [
        _wins(_resampled(a, resamples, seed, 2 * at), _resampled(b, resamples, seed, 2 * at + 1))
        for at, (a, b) in enumerate(zip(one, other, strict=True))
    ]
    return Interval(probability_of_improvement(one, other), *percentiles(np.mean(found, axis=0)))


def _middle(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half along the last axis."""
    count = values.shape[-1]
    cut = count // 4
    kept: np.ndarray = np.sort(values, axis=-1)[..., cut : count - cut].mean(axis=-1)
    return kept


def _wins(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The share of pairs that one wins. [resamples, n], [resamples, m] → [resamples]"""
    difference = one[:, :, None] - other[:, None, :]
    share: np.ndarray = (np.sign(difference) / 2 + 0.5).mean(axis=(1, 2))
    return share


def _resampled(values: Sequence[float], resamples: int, *seeds: int) -> np.ndarray:
    """Drawn with replacement. [resamples, n]"""
    generator = np.random.default_rng(seeds)
    found = np.asarray(values, dtype=float)
    return found[generator.integers(len(found), size=(resamples, len(found)))]


def percentiles(found: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
