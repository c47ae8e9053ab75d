"""Multi-fidelity: how far each run of a search may go, as a pure function of what the ledger says.

A run is stopped at a rung and keeps its checkpoint there. It goes on, as a new trial of the same run, once
what the others came to at that rung says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

from analysis.store.state import State
from mtbert.schema import ConfigError, constrained

FEWEST_FOR_A_MEDIAN = 4
WORST = float("-inf")


@dataclass(frozen=True)
class Rungs:
    """Where runs are stopped, and which of them go on.

    `halving`: of the n runs that reached a rung the best n // reduction go on to the next, which is
    `reduction` times as far; nobody waits for the others (Li et al. 2020, ASHA). `median`: rungs every
    `grace` steps; a run goes on unless it is below the median of those that reached the rung (Golovin et al.
    2017), and while there are fewer than four.
    """

    grace: int = constrained(100, at_least=1)
    reduction: int = constrained(3, at_least=2)
    rule: Literal["halving", "median"] = "halving"

    def steps(self, length: int) -> tuple[int, ...]:
        """The rungs of a run of so many steps, its end left out."""
        found: list[int] = []
        rung = self.grace
        while rung < length:
            found.append(rung)
            rung = rung * self.reduction if self.rule == "halving" else rung + self.grace
        return tuple(found)

    def check(self, every: int | None, unit: str) -> None:
        """Every rung is an evaluation: nothing is known of a run elsewhere.

        Raises:
            ConfigError: evaluations at other steps.
        """
        if every is None or unit != "steps" or self.grace % every:
            raise ConfigError(
                f"evaluation.every: expected a number of steps that divides the grace of {self.grace}, "
                f"at which runs are compared first, got {every!r} in {unit}; without rungs it may be any"
            )


def targets(rungs: Rungs, lengths: Mapping[str, int], state: State) -> dict[str, int]:
    """The step wanted of each run.

    Args:
        lengths: the runs' full lengths, by id.
    """
    shown = {run_id: _scores(state, run_id) for run_id in lengths}
    passing = _passing(rungs, lengths, shown)
    wanted = {}
    for run_id, length in lengths.items():
        held = (rung for rung in rungs.steps(length) if run_id not in passing.get(rung, ()))
        wanted[run_id] = next(held, length)
    return wanted


def _passing(
    rungs: Rungs, lengths: Mapping[str, int], shown: Mapping[str, Mapping[int, float]]
) -> dict[int, set[str]]:
    """Of each rung the runs that may go on from it."""
    reached: dict[int, list[tuple[float, str]]] = {}
    for run_id, length in lengths.items():
        for rung in rungs.steps(length):
            if rung in shown[run_id]:
                reached.setdefault(rung, []).append((shown[run_id][rung], run_id))
    return {rung: _best(rungs, found) for rung, found in reached.items()}


def _best(rungs: Rungs, found: list[tuple[float, str]]) -> set[str]:
    sound = [(score, run_id) for score, run_id in found if score > WORST]
    if rungs.rule == "halving":
        ordered = sorted(sound, key=lambda each: (-each[0], each[1]))
        return {run_id for _, run_id in ordered[: len(found) // rungs.reduction]}
    least = WORST if len(found) < FEWEST_FOR_A_MEDIAN else median(score for score, _ in found)
    return {run_id for score, run_id in sound if score >= least}


def _scores(state: State, run_id: str) -> dict[int, float]:
    """A run's scores by step; an undefined one, or any of a run that came to nothing, is the worst."""
    run = state.runs.get(run_id)
    if run is None:
        return {}
    broken = run.status in ("diverged", "failed")
    return {step: WORST if broken or score is None else score for step, score in run.scores}
