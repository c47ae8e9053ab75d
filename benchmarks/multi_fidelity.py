"""Multi-fidelity over recorded learning curves: this project, random search, one rung, and stock Ray parts.

    python benchmarks/multi_fidelity.py --at-once 2

At equal training steps of all workers together, the regret of what each search would hand over: how much less
that comes to at its end than the best of the curves. What this project hands over has been trained to its end
within the steps; of the stock parts, OptunaSearch with AsyncHyperBandScheduler, this is not asked, and of the
ways to ask them for their best (by the last result, by any result, of those at their ends) all are shown.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.common import describe_machine, table
from benchmarks.learning_curves import STEPS, load
from benchmarks.replay import GRACES, SCOPES, Offer, Table, one_rung, random_search, stock, this_project

BUDGETS = tuple(STEPS * length for length in (2, 4, 6, 8, 12, 16, 20, 24))
"""In full trainings, by their steps."""
RESAMPLES = 4000
Regrets = dict[str, list[float]]


def regrets(workers: int, seed: int) -> tuple[Regrets, float]:
    """By search the regret at every budget, and the seconds of CPU that all took."""
    begun, curves = time.process_time(), Table(load())
    found = {
        "this project": _of(
            curves, [each for (each,) in _until(_alone(this_project(curves, workers, seed)))]
        ),
        "random search": _of(
            curves, [each for (each,) in _until(_alone(random_search(curves, workers, seed)))]
        ),
    }
    for grace in GRACES:
        chosen = [one_rung(curves, grace, budget, seed) for budget in BUDGETS]
        found[f"one rung at {grace}"] = list(map(curves.regret, chosen))
    for grace in GRACES:
        plain = list(_until(stock(curves, grace, workers, seed)))
        for at, scope in enumerate(SCOPES):
            found[f"stock from {grace}, {scope}"] = _of(curves, [each[at] for each in plain])
    return found, time.process_time() - begun


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean and its 95% bootstrap interval."""
    draw = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[draw].mean(axis=1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def _alone(offers: Iterator[Offer]) -> Iterator[tuple[Offer, ...]]:
    return ((offer,) for offer in offers)


def _until(offers: Iterator[tuple[Offer, ...]]) -> Iterator[tuple[Offer, ...]]:
    """A search's offers up to the largest budget."""
    for each in offers:
        yield each
        if each[0].spent >= BUDGETS[-1]:
            return


def _of(curves: Table, offers: Sequence[Offer]) -> list[float]:
    """The regret at each budget: of the last offer within it, or of the worst point where there is none."""
    within = [[each for each in offers if each.spent + each.finish <= budget] for budget in BUDGETS]
    return [curves.regret(some[-1].point) if some else curves.best - curves.worst for some in within]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table for each number of workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--at-once", type=int, default=1, help="processes of this benchmark")
    given = parser.parse_args(argv)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    machine = describe_machine(["ray", "optuna"])
    print(f"{len(load())} curves of {STEPS} steps, seeds {seeds[0]} to {seeds[-1]}; {machine}")
    with ProcessPoolExecutor(given.at_once) as pool:
        for workers in given.workers:
            results = list(pool.map(partial(regrets, workers), seeds))
            _print(workers, [found for found, _ in results], sum(seconds for _, seconds in results))
    return 0


def _print(workers: int, results: Sequence[Regrets], seconds: float) -> None:
    rows = []
    for name in results[0]:
        found = [interval(np.array([each[name][at] for each in results])) for at in range(len(BUDGETS))]
        rows.append(
            [name, *(f"{100 * mean:.2f} [{100 * low:.2f}, {100 * high:.2f}]" for mean, low, high in found)]
        )
    at_once = f"{workers} at once" if workers > 1 else "one after the other"
    print(f"\n{at_once}: 100 × mean regret [95% interval]; {seconds:.0f} s of CPU\n")
    print(table(["training steps in all", *map(str, BUDGETS)], rows), flush=True)


if __name__ == "__main__":
    sys.exit(main())
