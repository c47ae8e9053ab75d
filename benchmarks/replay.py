"""Searches replayed over recorded learning curves, without training: a worker's time is counted in steps.

Each yields `Offer`s, what it would hand over if it ended there, while the steps of its workers add up.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

from analysis.store.evaluations import Evaluations
from analysis.store.records import EvaluationText
from analysis.store.state import Ending, RunState, State, SweepState
from benchmarks.learning_curves import AXES, BASE, EVERY, STEPS, Curve
from sweeps.declare import DeclaredRun, Search
from sweeps.plan import choose, outlook
from sweeps.search.budget import Budget
from sweeps.search.quest import Quest
from sweeps.search.rungs import Rungs
from sweeps.search.space import Parameter, parse_space
from sweeps.search.study import Sampler

GRACES, REDUCTION = (3 * EVERY, 9 * EVERY), 3
"""Where the first rung may be: this project takes the earlier one, the others are shown with each."""
SCOPES = ("by the last result", "by any result", "of those at their ends")


class Offer(NamedTuple):
    """What a search would hand over: the steps spent by then, those that it needs to its end, its point."""

    spent: int
    finish: int
    point: str


class Table:
    """The recorded curves by point."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = {named(curve.point): curve for curve in curves}
        self.best = max(map(self.final, self.curves))
        self.worst = min(map(self.final, self.curves))

    def final(self, point: str) -> float:
        """What a point comes to at its end; nothing where it diverged."""
        curve = self.curves[point]
        score = curve.scores.get(STEPS) if curve.status == "completed" else None
        return 0.0 if score is None else score

    def regret(self, point: str) -> float:
        """How much less that is than the best."""
        return self.best - self.final(point)

    def axes(self) -> dict[str, list[Any]]:
        """The values that occur on each axis."""
        held = [curve.point for curve in self.curves.values()]
        return {
            axis: [value for value in values if any(point[axis] == value for point in held)]
            for axis, values in AXES.items()
        }


def named(point: dict[str, Any]) -> str:
    """A point as a key."""
    return json.dumps([point[axis] for axis in AXES])


class Workers:
    """So many at once, each at a job for as many steps as it takes."""

    def __init__(self, count: int) -> None:
        self._count, self.now, self._done, self._number = count, 0, 0, 0
        self._jobs: list[tuple[int, int, int, Any]] = []

    @property
    def free(self) -> bool:
        return len(self._jobs) < self._count

    @property
    def spent(self) -> int:
        """The steps of all workers until now."""
        return self._done + sum(self.now - begun for _, _, begun, _ in self._jobs)

    @property
    def jobs(self) -> list[Any]:
        return [job for *_, job in self._jobs]

    def start(self, job: Any, steps: int) -> None:
        self._number += 1
        heapq.heappush(self._jobs, (self.now + steps, self._number, self.now, job))

    def wait(self) -> Any:
        """The next job to end, ended."""
        self.now, _, begun, job = heapq.heappop(self._jobs)
        self._done += self.now - begun
        return job


class Ledger:
    """The state that the keeper's ledger would have."""

    def __init__(self, table: Table, sweep: str) -> None:
        self._table, self._sweep = table, sweep
        self._runs: dict[str, RunState] = {}
        self._points: dict[str, dict[str, Any]] = {}

    @property
    def state(self) -> State:
        return State(self._runs, {self._sweep: SweepState({"sweep": self._sweep}, self._points)})

    def declare(self, each: DeclaredRun) -> None:
        self._runs.setdefault(each.run.run_id, RunState(each.run.as_json()))
        self._points[each.run.run_id] = dict(each.point)

    def begin(self, run_id: str, time: int) -> None:
        run = self._runs[run_id]
        begun = time + len(self._runs) / 1e6 if run.begun is None else run.begun
        self._runs[run_id] = replace(
            run, status="running", ending=None, driver="replay", attempt=run.attempt + 1, begun=begun
        )

    def step(self, run_id: str) -> int:
        return self._runs[run_id].step

    def last(self, run_id: str) -> int:
        """The step at which a run ends by itself."""
        return max(self._curve(run_id).scores)

    def reach(self, run_id: str, step: int) -> None:
        """The run was stopped at a step, or ended there."""
        run, curve = self._runs[run_id], self._curve(run_id)
        texts = tuple(
            EvaluationText(run_id, 1, at, score, 0.0, b"") for at, score in curve.scores.items() if at <= step
        )
        status = curve.status if step == self.last(run_id) else "stopped"
        record = {"status": status, "step": step, "score": curve.scores[step], "metrics": {}}
        self._runs[run_id] = replace(
            run,
            status=status,
            driver=None,
            evaluations=Evaluations(texts),
            ending=Ending(run.attempt, 0.0, record),
        )

    def _curve(self, run_id: str) -> Curve:
        return self._table.curves[named(self._points[run_id])]

    def point(self, run_id: str) -> str:
        return named(self._points[run_id])


def declared(table: Table, seed: int, rungs: Rungs | None) -> Search:
    """The search, over the values that the table holds."""
    space = parse_space({axis: {"choices": values} for axis, values in table.axes().items()})
    return Search(
        "replay",
        BASE,
        space,
        Budget(len(table.curves)),
        Sampler("kriging", seed),
        rungs=rungs,
        top_k=1,
        seeds_at_end=1,
    )


def this_project(table: Table, workers: int, seed: int) -> Iterator[Offer]:
    """The search as it is carried out here: what is wanted next is asked of `Quest` and `plan`."""
    quest = Quest(declared(table, seed, Rungs(GRACES[0], REDUCTION)), "data", "model", lambda _: STEPS)
    ledger, floor = Ledger(table, "replay"), Workers(workers)
    while True:
        while floor.free and (run_id := _next(quest, ledger, [each for each, _ in floor.jobs])) is not None:
            until = min(quest.aims(ledger.state).targets[run_id], ledger.last(run_id))
            floor.start((run_id, until), until - ledger.step(run_id))
            ledger.begin(run_id, floor.now)
        if not floor.jobs:
            return
        ledger.reach(*floor.wait())
        chosen = f"{quest.finalists(ledger.state)[0].config_id}-0"
        yield Offer(floor.spent, ledger.last(chosen) - ledger.step(chosen), ledger.point(chosen))


def _next(quest: Quest, ledger: Ledger, in_flight: Sequence[str]) -> str | None:
    """The run that a free worker is given; None where there is none now."""
    for _ in range(2):
        state = ledger.state
        view = outlook(quest.aims(state).targets, state, in_flight, lambda _: False)
        if view.open:
            return choose(view, state, 1)[0]
        for each in quest.more(state, 1):
            ledger.declare(each)
    return None


def random_search(table: Table, workers: int, seed: int) -> Iterator[Offer]:
    """Points in random order, each trained to its end; the best of those there, or the best shown so far."""
    order = random.Random(seed).sample(sorted(table.curves), len(table.curves))
    floor, shown = Workers(workers), dict.fromkeys(order, 0)
    waiting, ended = iter(order), list[str]()
    while True:
        while floor.free and (point := next(waiting, None)) is not None:
            floor.start(point, EVERY)
        if not floor.jobs:
            return
        point = floor.wait()
        shown[point] += EVERY
        if shown[point] < STEPS:
            floor.start(point, EVERY)
        else:
            ended.append(point)
        begun = [each for each in order if shown[each]]
        best = max(ended or begun, key=lambda each: _shown(table.curves[each], shown[each]))
        yield Offer(floor.spent, STEPS - shown[best], best)


def one_rung(table: Table, grace: int, budget: int, seed: int) -> str:
    """Half of the steps take random points to the first rung, and the other half the best to their ends."""
    order = random.Random(seed).sample(sorted(table.curves), len(table.curves))
    begun = order[: max(1, budget // 2 // grace)]
    ranked = sorted(begun, key=lambda point: -_shown(table.curves[point], grace))
    full = ranked[: max(1, (budget - len(begun) * grace) // (STEPS - grace))]
    return max(full, key=table.final)


def stock(table: Table, grace: int, workers: int, seed: int) -> Iterator[tuple[Offer, ...]]:
    """OptunaSearch and AsyncHyperBandScheduler, told what Tune tells them; an offer for each of `SCOPES`.

    Numbers are told by their places in their order.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution, IntDistribution
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    axes = table.axes()
    space = {
        axis: IntDistribution(0, len(values) - 1)
        if Parameter(choices=tuple(values)).ordered
        else CategoricalDistribution(values)
        for axis, values in axes.items()
    }
    searcher = OptunaSearch(space, metric="score", mode="max", seed=seed)
    asha = AsyncHyperBandScheduler(
        metric="score",
        mode="max",
        max_t=STEPS // EVERY,
        grace_period=grace // EVERY,
        reduction_factor=REDUCTION,
    )
    floor, seen = Workers(workers), {}
    while True:
        while floor.free:
            trial = SimpleNamespace(trial_id=str(len(seen)), shown=[])
            config = searcher.suggest(trial.trial_id)
            told = {axis: config[axis] for axis in AXES}
            trial.point = named(
                {axis: axes[axis][each] if isinstance(each, int) else each for axis, each in told.items()}
            )
            seen[trial.trial_id] = trial
            asha.on_trial_add(None, trial)
            floor.start(trial, EVERY)
        trial = floor.wait()
        iteration = len(trial.shown) + 1
        trial.shown.append(_shown(table.curves[trial.point], iteration * EVERY))
        result = {"score": trial.shown[-1], "training_iteration": iteration}
        if asha.on_trial_result(None, trial, result) == "STOP":
            searcher.on_trial_complete(trial.trial_id, result)
        else:
            searcher.on_trial_result(trial.trial_id, result)
            floor.start(trial, EVERY)
        yield _offers(floor.spent, [trial for trial in seen.values() if trial.shown])


def _offers(spent: int, trials: Sequence[Any]) -> tuple[Offer, ...]:
    """As `get_best_result` has it with scope last and with scope all; and of those at their ends, if any."""
    ended = [trial for trial in trials if len(trial.shown) == STEPS // EVERY] or trials
    chosen = (
        max(trials, key=lambda trial: trial.shown[-1]),
        max(trials, key=lambda trial: max(trial.shown)),
        max(ended, key=lambda trial: trial.shown[-1]),
    )
    return tuple(Offer(spent, STEPS - len(trial.shown) * EVERY, trial.point) for trial in chosen)


def _shown(curve: Curve, step: int) -> float:
    score = curve.scores.get(step)
    return -math.inf if score is None else score
