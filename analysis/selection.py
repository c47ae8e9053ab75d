"""What it does to a dev score that it is the best of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.stats.weighted import TaskPredictions, weighted

SPLITS = 100


@dataclass(frozen=True)
class ExpectedBest:
    """The best score to be expected of a random search, by its number of points from 1 on.

    Attributes:
        unbiased: of n points drawn without replacement (Tang et al. 2020, eq. 3).
        plug_in: of n points drawn from the observed ones with replacement (Dodge et al. 2019, eq. 5), which
            is too low, the more so the nearer n comes to the number of points.
    """

    unbiased: tuple[float, ...]
    plug_in: tuple[float, ...]


def expected_best(scores: Sequence[float], sampler: str, stopped: int = 0) -> ExpectedBest:
    """The expected best of 1, 2, … points of a random search, up to as many as it has.

    Args:
        scores: of its points, in any order; a point that came to nothing counts as its worst is told.
        sampler: what proposed them. The curve speaks of points drawn independently from one distribution;
            where each was proposed by what the others came to there is no such distribution, nor for
            points that are spread evenly.
        stopped: how many points were stopped before their ends, whose scores nobody knows.

    Raises:
        ValueError: any sampler but random; points that were stopped; none at all.
    """
    if sampler != "random":
        raise ValueError(
            f"expected best of n: only for points drawn at random, and these were proposed by {sampler!r}; "
            "its curve would speak of no search that anybody could run"
        )
    if stopped:
        raise ValueError(
            f"expected best of n: {stopped} points were stopped before their ends; without rungs none is"
        )
    if not scores:
        raise ValueError("expected best of n: no points")
    ordered = np.sort(np.asarray(scores, dtype=float))
    count = len(ordered)
    draws = np.arange(1, count + 1)
    upper = (np.arange(1, count + 1)[:, None] / count) ** draws  # [scores, draws]: at or below a score
    plug_in = np.diff(upper, axis=0, prepend=0.0).T @ ordered
    return ExpectedBest(tuple(_unbiased(ordered)), tuple(float(each) for each in plug_in))


def _unbiased(ordered: np.ndarray) -> list[float]:
    """Σᵢ x₍ᵢ₎ C(i - 1, n - 1)/C(B, n) for each n.

    C(i - 1, n - 1)/C(B, n), the chance that the i-th is the best of n, is had from that for n - 1 by the
    factor n/(n - 1)·(i - n + 1)/(B - n + 1), which neither overflows nor cancels.
    """
    count = len(ordered)
    rank = np.arange(1, count + 1)
    chance = np.full(count, 1 / count)
    means = [float(chance @ ordered)]
    for n in range(2, count + 1):
        chance = chance * np.maximum(rank - n + 1, 0) / (count - n + 1) * n / (n - 1)
        means.append(float(chance @ ordered))
    return means


@dataclass(frozen=True)
class HalfAndHalf:
    """What the winner scores on examples that had no part in its choice.

    Attributes:
        chosen: by configuration, the share of the splits in which it was the best of the half that chooses.
        winner: that which is the best on all of dev.
        on_all: its score there, which is flattered by the choice.
        reported: the mean over splits of what the best of one half scores on the other.
        optimism: the mean over splits of what it scored on its own half above that.
    """

    chosen: tuple[float, ...]
    winner: int
    on_all: float
    reported: float
    optimism: float


def half_and_half(
    configurations: Sequence[Sequence[TaskPredictions]], splits: int = SPLITS, seed: int = 0
) -> HalfAndHalf:
    """Half of dev to choose the best by its mean over seeds, the other half to report it, again and again.

    It takes away what the choice owes to the dev examples. What it owes to lucky seeds stays: further seeds
    take that away, which a search's finalists have. Estimates speak of half as many examples, on which the
    choice is a little worse than on all; so `reported` errs towards too low. (Repeated split sampling:
    Dietterich 1998 on why one split is not enough.)

    Args:
        configurations: of each its tasks' predictions, over the same examples. The halves are drawn over the
            example ids of each task in their order, so that they depend on no order of rows.

    Raises:
        ValueError: fewer than two configurations, or not over the same tasks and examples.
    """
    _check(configurations)
    halves = [_halves(len(task.ids), splits, (seed, at)) for at, task in enumerate(configurations[0])]
    choosing = np.stack([_scores(tasks, [half for half, _ in halves]) for tasks in configurations])
    reporting = np.stack([_scores(tasks, [half for _, half in halves]) for tasks in configurations])
    whole = [_scores(tasks, [np.ones((1, len(task.ids))) for task in tasks])[0] for tasks in configurations]
    best = choosing.argmax(axis=0)  # [splits]
    at = np.arange(len(best))
    winner = int(np.argmax(whole))
    return HalfAndHalf(
        chosen=tuple(float((best == which).mean()) for which in range(len(configurations))),
        winner=winner,
        on_all=float(whole[winner]),
        reported=float(reporting[best, at].mean()),
        optimism=float((choosing[best, at] - reporting[best, at]).mean()),
    )


def _halves(examples: int, splits: int, seeds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """One and the other half as weights of 0 and 1; each split is used both ways. [2·splits, examples]"""
    generator = np.random.default_rng(seeds)
    order = generator.permuted(np.tile(np.arange(examples), (splits, 1)), axis=1)
    half = (order < examples // 2).astype(float)
    return np.concatenate([half, 1 - half]), np.concatenate([1 - half, half])


def _scores(tasks: Sequence[TaskPredictions], weights: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over tasks and runs. [weightings]"""
    found: np.ndarray = np.mean(
        [weighted(t, w).mean(axis=1) for t, w in zip(tasks, weights, strict=True)], axis=0
    )
    return found


def _check(configurations: Sequence[Sequence[TaskPredictions]]) -> None:
    if len(configurations) < 2:
        raise ValueError(f"half and half: expected two configurations or more, got {len(configurations)}")
    first = configurations[0]
    for tasks in configurations[1:]:
        same = [task.task for task in tasks] == [task.task for task in first]
        if not same or not all(np.array_equal(a.ids, b.ids) for a, b in zip(tasks, first, strict=True)):
            raise ValueError("half and half: expected the same tasks and examples for all configurations")
