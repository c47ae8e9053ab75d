"""How often intervals hold the truth, and tests find what is not there, with few seeds.

    python benchmarks/interval_coverage.py

By simulation where the truth is known: means over seeds of normal, skewed and broken runs; the interquartile
mean; differences over seeds and dev examples; the leader of equal configurations; almost stochastic order.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from scipy import stats

from analysis.stats import almost_stochastic_order, holm
from analysis.stats.crossed import of_both
from benchmarks.common import table

SEEDS = (3, 5, 10)
RESAMPLES = 400
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISE: dict[str, Draw] = {
    "normal": lambda random, size: random.normal(0, 1, size),
    "skewed: exponential, the tail below": lambda random, size: 1 - random.exponential(1, size),
    "a run in ten is 5 deviations lower": lambda random, size: (
        random.normal(0, 1, size) - 5 * (random.uniform(size=size) < 0.1) + 0.5
    ),
}
"""All have mean zero."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table for each question."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20_000, help="simulations of each figure")
    rounds = parser.parse_args(argv).rounds
    header = ["", *(f"{seeds} seeds" for seeds in SEEDS)]
    for title, rows in (
        ("95% intervals of a mean over seeds: how often they hold it", means(rounds)),
        ("95% percentile intervals of an interquartile mean", interquartile(rounds // 10)),
        (
            "95% intervals of a difference over seeds and examples: least and most over all mixes",
            mixes(rounds),
        ),
        ("the best of equal configurations: how often it is told apart from any other", leaders(rounds // 2)),
        ("one of two configurations without an order comes out as almost dominant", orders(rounds // 20)),
    ):
        print(f"\n{title}\n\n{table(header, list(rows))}", flush=True)
    return 0


def means(rounds: int) -> Iterator[list[str]]:
    """Student's t beside the bootstrap's percentiles."""
    for noise, draw in NOISE.items():
        for name, holds in (("Student's t", _t), ("bootstrap, percentile", _percentile)):
            yield [
                f"{name}; {noise}",
                *(_share(holds(draw(_random(seeds), (rounds, seeds))).mean()) for seeds in SEEDS),
            ]


def interquartile(rounds: int) -> Iterator[list[str]]:
    """Runs resampled within tasks, all tasks of one distribution."""
    for tasks in (1, 3, 30):
        shares = []
        for seeds in SEEDS:
            random = _random(seeds)
            values = random.normal(0, 1, (rounds, tasks, seeds))
            drawn = random.integers(seeds, size=(RESAMPLES, 1, tasks, seeds))
            held = 0
            for one in values:
                resampled = np.take_along_axis(one[None, None], drawn, axis=3).reshape(RESAMPLES, -1)
                low, high = np.quantile(stats.trim_mean(resampled, 0.25, axis=1), [0.025, 0.975])
                held += low <= 0 <= high
            shares.append(_share(held / rounds))
        yield [f"{tasks} task{'s' * (tasks > 1)}", *shares]


def mixes(rounds: int) -> Iterator[list[str]]:
    """Normal effects of seeds a, examples b, and of each seed on each example c, as parts of the variance."""
    shares = np.linspace(0, 1, 11)
    for own, said in (
        (0.0, "none of it each seed's on each example"),
        (0.5, "half of it"),
        (0.8, "80% of it"),
    ):
        parts = [(share * (1 - own), (1 - share) * (1 - own), own) for share in shares]
        for name, holds in (
            ("shown: V, with (S - 1)/(3s² - 2s³) degrees of freedom", _shown),
            ("Satterthwaite's (S - 1)/s²", _satterthwaite),
            ("S - 1 degrees of freedom", _few),
            ("bootstrap of seeds and examples, percentile", _two_way_percentile),
            ("seeds alone", _seeds_alone),
        ):
            yield [
                f"{name}; {said}",
                *(_range([holds(rounds, seeds, of) for of in parts]) for seeds in SEEDS),
            ]


def leaders(rounds: int) -> Iterator[list[str]]:
    """Paired t tests of the one with the highest mean; the noise pooled where it is said."""
    for count in (2, 8, 20):
        for wide in (1.0, 4.0):
            spread = "" if wide == 1 else ", one of which scatters four times as far"
            for name, wrong in (
                ("Holm over the others", _over_others),
                ("Holm over all pairs (shown)", _over_pairs),
                ("Holm over all pairs, the noise of all pooled", _pooled_over_pairs),
            ):
                shares = []
                for seeds in SEEDS:
                    runs = _random(seeds).normal(0, 1, (rounds, count, seeds))
                    runs[:, 0] *= wide
                    shares.append(_share(wrong(runs).mean()))
                yield [f"{name}; {count} equal{spread}", *shares]


def orders(rounds: int) -> Iterator[list[str]]:
    """Two equal ones, and two of one mean of which one scatters three times as far."""
    for wide, which in ((1.0, "equal"), (3.0, "three times as wide")):
        bounds = [_bounds(rounds, seeds, wide) for seeds in SEEDS]
        for threshold in (0.5, 0.2, 0.1):
            yield [f"ε < {threshold:g}; {which}", *(_share((found < threshold).mean()) for found in bounds)]


def _bounds(rounds: int, seeds: int, wide: float) -> np.ndarray:
    random = _random(seeds)
    pairs = [(random.normal(0, 1, seeds), random.normal(0, wide, seeds)) for _ in range(rounds)]
    return np.array([almost_stochastic_order(one, other, 200).bound for one, other in pairs])


def _t(values: np.ndarray) -> np.ndarray:
    count = values.shape[1]
    width = stats.t.ppf(0.975, count - 1) * values.std(axis=1, ddof=1) / count**0.5
    held: np.ndarray = np.abs(values.mean(axis=1)) <= width
    return held


def _percentile(values: np.ndarray) -> np.ndarray:
    drawn = _random(1).integers(values.shape[1], size=(RESAMPLES, values.shape[1]))
    counts = np.stack([np.bincount(row, minlength=values.shape[1]) for row in drawn])
    low, high = np.quantile(values @ counts.T / values.shape[1], [0.025, 0.975], axis=1)
    held: np.ndarray = (low <= 0) & (high >= 0)
    return held


Parts = tuple[float, float, float]


def _drawn(rounds: int, seeds: int, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """The mean difference, and the variance of the mean as that among seeds shows it."""
    a, b, c = parts
    random = _random(seeds)
    mean = random.normal(0, (a + b + c) ** 0.5, rounds)
    return mean, (a + c) * random.chisquare(seeds - 1, rounds) / (seeds - 1)


def _shown(rounds: int, seeds: int, parts: Parts) -> float:
    _, b, c = parts
    mean, among = _drawn(rounds, seeds, parts)
    error, freedom = of_both(among, np.full(rounds, b + c), np.full(rounds, c), seeds)
    return _held(mean, error, freedom)


def _satterthwaite(rounds: int, seeds: int, parts: Parts) -> float:
    _, b, c = parts
    mean, among = _drawn(rounds, seeds, parts)
    error, _ = of_both(among, np.full(rounds, b + c), np.full(rounds, c), seeds)
    share = np.maximum(among / error**2, 1e-9)
    return _held(mean, error, (seeds - 1) / share**2)


def _few(rounds: int, seeds: int, parts: Parts) -> float:
    _, b, c = parts
    mean, among = _drawn(rounds, seeds, parts)
    error, _ = of_both(among, np.full(rounds, b + c), np.full(rounds, c), seeds)
    return _held(mean, error, np.full(rounds, seeds - 1.0))


def _two_way_percentile(rounds: int, seeds: int, parts: Parts) -> float:
    """In its limit of many resamples and examples: normal, the seeds' variance short by 1/S of itself."""
    _, b, c = parts
    mean, among = _drawn(rounds, seeds, parts)
    error = (among * (seeds - 1) / seeds + b + c) ** 0.5
    return _held(mean, error, np.full(rounds, np.inf))


def _seeds_alone(rounds: int, seeds: int, parts: Parts) -> float:
    mean, among = _drawn(rounds, seeds, parts)
    return _held(mean, among**0.5, np.full(rounds, seeds - 1.0))


def _held(mean: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> float:
    return float((np.abs(mean) <= stats.t.ppf(0.975, freedom) * error).mean())


def _over_others(runs: np.ndarray) -> np.ndarray:
    return _least(runs, _paired(runs), runs.shape[1] - 1)


def _over_pairs(runs: np.ndarray) -> np.ndarray:
    return _least(runs, _paired(runs), runs.shape[1] * (runs.shape[1] - 1) // 2)


def _pooled_over_pairs(runs: np.ndarray) -> np.ndarray:
    """With one deviation for all: what the configurations and the seeds leave of the variance."""
    count, seeds = runs.shape[1:]
    left = runs - runs.mean(axis=2, keepdims=True) - runs.mean(axis=1, keepdims=True)
    left += runs.mean(axis=(1, 2), keepdims=True)
    freedom = (count - 1) * (seeds - 1)
    error = ((left**2).sum(axis=(1, 2)) / freedom * 2 / seeds) ** 0.5
    means = runs.mean(axis=2)
    t = (means.max(axis=1, keepdims=True) - means) / error[:, None]
    return _least(runs, 2 * stats.t.sf(t, freedom), count * (count - 1) // 2)


def _paired(runs: np.ndarray) -> np.ndarray:
    """Of the leader against each; 1 against itself. [rounds, configurations]"""
    best = runs.mean(axis=2).argmax(axis=1)
    difference = runs[np.arange(len(runs)), best][:, None] - runs
    error = difference.std(axis=2, ddof=1) / runs.shape[2] ** 0.5
    error[np.arange(len(runs)), best] = np.inf
    p: np.ndarray = 2 * stats.t.sf(np.abs(difference.mean(axis=2)) / error, runs.shape[2] - 1)
    return p


def _least(runs: np.ndarray, p: np.ndarray, family: int) -> np.ndarray:
    """Whether any comparison is called significant: the least decides."""
    return np.array([holm([least], of=family)[0] <= 0.05 for least in p.min(axis=1)]).reshape(len(runs))


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _share(found: float) -> str:
    return f"{100 * found:.1f}%"


def _range(found: Sequence[float]) -> str:
    return f"{_share(min(found))} to {_share(max(found))}"


if __name__ == "__main__":
    sys.exit(main())
