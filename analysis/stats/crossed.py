"""A difference of two configurations over seeds and dev examples, both of which might have been others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.stats.bootstrap import Interval, percentiles
from analysis.stats.estimates import Estimate
from analysis.stats.weighted import TaskPredictions, weighted

RESAMPLES = 1000
LEAST_SEEDS = 3
_CHUNK = 50  # resamples whose weights are held at a time: 16 MB for 40,000 examples


@dataclass(frozen=True, eq=False)
class Crossed:
    """A difference by seed, as it is and under resampled examples.

    Attributes:
        by_seed: the difference on all of dev. float64 [seeds]
        resampled: the same with the examples of each task drawn anew. float64 [resamples, seeds]
    """

    by_seed: np.ndarray
    resampled: np.ndarray

    @property
    def estimate(self) -> Estimate:
        """The mean difference with an error of both sources; see `of_both`."""
        count = len(self.by_seed)
        means = self.resampled.mean(axis=1)
        own = (self.resampled - means[:, None]).var(axis=0, ddof=1).mean() / (count - 1)
        error, freedom = of_both(self.by_seed.var(ddof=1) / count, means.var(ddof=1), own, count)
        return Estimate(float(self.by_seed.mean()), float(error), float(freedom))

    def percentile(self, seed: int = 0) -> Interval:
        """The 95% percentile interval with seeds resampled too (the pigeonhole bootstrap of Owen 2007).

        For comparison: with few seeds it is too narrow, and `estimate` is what is shown.
        """
        resamples, count = self.resampled.shape
        drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
        found = np.take_along_axis(self.resampled, drawn, axis=1).mean(axis=1)
        return Interval(float(self.by_seed.mean()), *percentiles(found))


def of_both(
    seeds: np.ndarray | float, examples: np.ndarray | float, own: np.ndarray | float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of a mean over seeds and examples, and its degrees of freedom.

    In a mean of crossed random effects (Cornfield and Tukey 1956) the seeds' part a/S, the examples' part b/E
    and that of each seed on each example c/(S·E) add up. The variance among seeds holds the first and the
    last, that under resampled examples the second and the last: their sum V, less the last once.

    The examples' own part is known well where examples are many; how uncertain V is depends on the share s of
    it that is estimated among seeds. Satterthwaite's (1946) degrees of freedom, (S - 1)/s², take the
    estimated share for the true one and make intervals that hold the truth as seldom as 92.2% of the time at
    three seeds. Here s² becomes 3s² - 2s³, which is the same at both ends: 94.3% to 95.6% at three, five or
    ten seeds, whatever the shares (`benchmarks/interval_coverage.py`).

    Args:
        seeds: s²/S of the differences by seed. [...]
        examples: variance of the mean over seeds under resampled examples. [...]
        own: of it, what is each seed's on each example, c/(S·E). [...]
        count: seeds.
    """
    both = np.add(seeds, np.maximum(np.subtract(examples, own), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(both > 0, np.divide(seeds, both), 0.0)
        return np.sqrt(both), (count - 1) / (share**2 * (3 - 2 * share))


def crossed_difference(
    one: Sequence[TaskPredictions],
    other: Sequence[TaskPredictions],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Crossed:
    """One minus other, paired by seed and example: the mean over tasks of the difference in its metric.

    Args:
        one, other: of each task the predictions of at least three runs, in the order of the same seeds, on
            the same examples.

    Raises:
        ValueError: they are not of the same tasks, examples and number of seeds; fewer than three seeds, with
            two of which the interval would hold as seldom as 90.0% of the time.
    """
    _check(one, other)
    by_seed = np.mean(
        [
            weighted(a, np.ones((1, len(a.ids))))[0] - weighted(b, np.ones((1, len(b.ids))))[0]
            for a, b in zip(one, other, strict=True)
        ],
        axis=0,
    )
    resampled = np.zeros((resamples, len(by_seed)))
    for at, (a, b) in enumerate(zip(one, other, strict=True)):
        for rows, weights in _weights(len(a.ids), resamples, (seed, at)):
            resampled[rows] += (weighted(a, weights) - weighted(b, weights)) / len(one)
    return Crossed(by_seed, resampled[np.isfinite(resampled).all(axis=1)])


def _weights(examples: int, resamples: int, seeds: tuple[int, ...]) -> Iterator[tuple[slice, np.ndarray]]:
    """How often each example is drawn, some resamples at a time. float64 [rows, examples]"""
    generator = np.random.default_rng(seeds)
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        drawn = generator.integers(examples, size=(rows, examples)) + np.arange(rows)[:, None] * examples
        counts = np.bincount(drawn.ravel(), minlength=rows * examples).reshape(rows, examples)
        yield slice(start, start + rows), counts.astype(float)


def _check(one: Sequence[TaskPredictions], other: Sequence[TaskPredictions]) -> None:
    alike = [(a.task, a.metric, len(a.values)) for a in one] == [
        (b.task, b.metric, len(b.values)) for b in other
    ]
    if not alike or not all(np.array_equal(a.ids, b.ids) for a, b in zip(one, other, strict=True)):
        raise ValueError("crossed difference: expected the same tasks, seeds and examples on both sides")
    if not one or len(one[0].values) < LEAST_SEEDS:
        raise ValueError("crossed difference: expected a task, and three seeds or more")
