"""Multi-fidelity: how far each run of a search may go, as a pure function of what the ledger says.

A run is stopped at a rung and keeps its checkpoint there. It goes on, as a new trial of the same run, once
what the others came to at that rung says so.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import correlation, median
from typing import Literal

from analysis.store.state import State
from mtbert.schema import ConfigError, constrained

FEWEST = 4
"""Runs that a median, or a correlation, is taken of."""
ROUNDING = 1e-9
WORST = float("-inf")


@dataclass(frozen=True)
class Rungs:
    """Where runs are stopped, and which of them go on.

    `halving`: of the n runs that reached a rung the best n / reduction^trust go on to the next, which is
    `reduction` times as far; nobody waits for the others (Li et al. 2020, ASHA, where the trust is 1).
    `median`: rungs every `grace` steps; a run goes on unless it is below the median of those that reached
    the rung (Golovin et al. 2017), and while there are fewer than four.
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


def targets(
    rungs: Rungs, lengths: Mapping[str, int], state: State, expected: Mapping[str, float]
) -> dict[str, int]:
    """The step wanted of each run.

    Args:
        lengths: the runs' full lengths, by id.
        expected: what runs are expected to come to; the others stand by their scores at the rung.
    """
    shown = {run_id: _scores(state, run_id) for run_id in lengths}
    passing = _passing(rungs, lengths, shown, expected)
    wanted = {}
    for run_id, length in lengths.items():
        held = (rung for rung in rungs.steps(length) if run_id not in passing.get(rung, ()))
        wanted[run_id] = next(held, length)
    return wanted


def trust(foretold: Sequence[tuple[float, float]], along: float) -> float:
    """How far a rung is to be believed: the rank correlation of scores there and at the end, at least 0.

    Args:
        foretold: the scores of each run that has both.
        along: how far along a run the rung is, as a part of its length: believed of it while there are fewer
            than four such runs.
    """
    if len(foretold) < FEWEST:
        return along
    there, end = (_ranks(scores) for scores in zip(*foretold, strict=True))
    if len(set(there)) == 1 or len(set(end)) == 1:
        return 0.0
    return max(0.0, correlation(there, end))


def _passing(
    rungs: Rungs,
    lengths: Mapping[str, int],
    shown: Mapping[str, Mapping[int, float]],
    expected: Mapping[str, float],
) -> dict[int, set[str]]:
    """Of each rung the runs that may go on from it."""
    reached: dict[int, list[str]] = {}
    for run_id, length in lengths.items():
        for rung in rungs.steps(length):
            if rung in shown[run_id]:
                reached.setdefault(rung, []).append(run_id)
    passing = {}
    for rung, runs in reached.items():
        scores = {run_id: shown[run_id][rung] for run_id in runs}
        ends = {run_id: shown[run_id].get(lengths[run_id]) for run_id in runs}
        foretold = [(scores[run_id], end) for run_id, end in ends.items() if end is not None]
        along = rung / max(lengths[run_id] for run_id in runs)
        passing[rung] = _best(rungs, scores, trust(foretold, along), expected)
    return passing


def _best(
    rungs: Rungs,
    scores: Mapping[str, float],
    trusted: float,
    expected: Mapping[str, float],
) -> set[str]:
    sound = [run_id for run_id, score in scores.items() if score > WORST]
    if rungs.rule == "median":
        least = WORST if len(scores) < FEWEST else median(scores.values())
        return {run_id for run_id in sound if scores[run_id] >= least}
    places = {run_id: expected.get(run_id, scores[run_id]) for run_id in sound}
    ordered = sorted(sound, key=lambda run_id: (-places[run_id], run_id))
    share = float(rungs.reduction) ** -trusted
    return set(ordered[: int(len(scores) * share + ROUNDING)])


def _ranks(scores: Sequence[float]) -> list[int]:
    """Twice the ranks, equal scores sharing theirs."""
    ordered = sorted(scores)
    return [bisect_left(ordered, score) + bisect_right(ordered, score) for score in scores]


def _scores(state: State, run_id: str) -> dict[int, float]:
    """A run's scores by step; an undefined one, or any of a run that came to nothing, is the worst."""
    run = state.runs.get(run_id)
    if run is None:
        return {}
    broken = run.status in ("diverged", "failed")
    return {step: WORST if broken or score is None else score for step, score in run.scores}
