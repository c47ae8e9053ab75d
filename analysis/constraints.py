"""Constraints that a search declares: short texts such as `trainable<=1%` and `para.accuracy>=0.80`.

Trainable parameters are bound as a count or as a share of all; metrics, score and seconds as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from analysis.ranking import RankedConfiguration, ranked, seconds, value
from analysis.store.errors import StoreError
from analysis.store.state import RunState, State

TRAINABLE, SECONDS = "trainable", "seconds"
BESIDE = (TRAINABLE, SECONDS, "score")
"""What may be bound beside the metrics of tasks, whose names have a dot."""
_FORM = re.compile(r"\s*([\w.-]+)\s*(<=|>=)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(%?)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Constraint:
    """A name, which way it is bound, and where; `share` of trainable parameters is of all parameters."""

    text: str
    name: str
    at_most: bool
    bound: float
    share: bool = False

    @property
    def before(self) -> bool:
        """Whether it is known before anything is trained."""
        return self.name == TRAINABLE

    def excess(self, found: float) -> float:
        """By how much of the bound it is broken; 0 or less where it is kept."""
        over = found - self.bound if self.at_most else self.bound - found
        return over / (abs(self.bound) or 1.0)

    def counted(self, trainable: int, total: int) -> float:
        """The value of a configuration before it is trained, by its parameters."""
        return trainable / total if self.share else float(trainable)

    def measured(self, run: RunState) -> float | None:
        """The value of a completed run; None where it is undefined."""
        if self.name == TRAINABLE:
            trainable = value(run, "trainable")
            total = value(run, "total") if self.share else 1.0
            return None if trainable is None or not total else trainable / total
        return seconds(run) if self.name == SECONDS else value(run, self.name)


def ranked_within(
    state: State, sweep: str | None = None, by: str | None = None, lowest_first: bool = False
) -> list[RankedConfiguration]:
    """As `ranked`, but what breaks a constraint of the sweep comes after all that keeps them."""
    rows = ranked(state, sweep, by, lowest_first)
    texts = () if sweep is None else state.sweep(sweep).declaration.get("constraints") or ()
    constraints = [parse_constraint(text) for text in texts]
    if not constraints:
        return rows
    judged = [
        replace(row, breaks=_broken(constraints, [state.runs[each] for each in row.run_ids])) for row in rows
    ]
    judged.sort(key=lambda row: bool(row.breaks))
    return [replace(row, rank=rank) for rank, row in enumerate(judged, 1)]


def excesses(constraints: Iterable[Constraint], runs: Iterable[RunState]) -> dict[str, float]:
    """By how much a configuration's completed runs break each constraint in the mean; inf: undefined."""
    completed = [run for run in runs if run.status == "completed"]
    return {each.text: _mean_excess(each, completed) for each in constraints}


def parse_constraint(text: object) -> Constraint:
    """The constraint that a text declares.

    Raises:
        StoreError: a text that is none; names it and what is taken.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    try:
        bound = float(found[3]) if found else math.nan
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise StoreError(
            "constraint: expected a name, <= or >=, and a number, as trainable<=1% or para.accuracy>=0.80, "
            f"got {text!r}"
        )
    name, relation, percent = found[1], found[2], found[4]
    if "." not in name and name not in BESIDE:
        names = ", ".join(BESIDE)
        raise StoreError(f"constraint {text!r}: expected one of {names}, or TASK.METRIC, got {name!r}")
    if percent and name == SECONDS:
        raise StoreError(f"constraint {text!r}: expected seconds as a number, got per cent")
    if name == TRAINABLE and not percent and bound < 1:
        raise StoreError(f"constraint {text!r}: expected a count, or a share with %, got {bound:g}")
    bound = bound / 100 if percent else bound
    share = name == TRAINABLE and bool(percent)
    return Constraint("".join(str(text).split()), name, relation == "<=", bound, share)


def _broken(constraints: Iterable[Constraint], runs: Iterable[RunState]) -> tuple[str, ...]:
    return tuple(text for text, excess in excesses(constraints, runs).items() if excess > 0)


def _mean_excess(constraint: Constraint, completed: Sequence[RunState]) -> float:
    found = [constraint.measured(run) for run in completed]
    known = [each for each in found if each is not None]
    return constraint.excess(fmean(known)) if known and len(known) == len(found) else math.inf
