"""What a search looks at beside its objective: constraints that bind it, and a cost to weigh it against.

A constraint is declared as a short text: `trainable<=1%`, `para.accuracy>=0.80`. Trainable parameters are
known before a point is trained, as a count or a share of all; metrics, score and seconds when it has ended.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal, get_args

from analysis.ranking import cost, mean, seconds, value
from analysis.store.state import RunState
from mtbert.schema import ConfigError

if TYPE_CHECKING:
    from mtbert.counts import Counts

Cost = Literal["parameters", "seconds"]
COSTS: tuple[Cost, ...] = get_args(Cost)
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

    def counted(self, counts: Counts) -> float:
        """The value of a configuration before it is trained."""
        return counts.trainable / counts.total if self.share else float(counts.trainable)

    def measured(self, run: RunState) -> float | None:
        """The value of a completed run; None where it is undefined."""
        if self.name == TRAINABLE:
            trainable = value(run, "trainable")
            total = value(run, "total") if self.share else 1.0
            return None if trainable is None or not total else trainable / total
        return seconds(run) if self.name == SECONDS else value(run, self.name)


@dataclass(frozen=True)
class Terms:
    """The constraints of a search, and what its objective is weighed against, if anything."""

    constraints: tuple[Constraint, ...] = ()
    against: Cost | None = None

    def excesses(self, runs: Iterable[RunState]) -> dict[str, float]:
        """By how much a configuration's completed runs break each constraint in the mean; inf: undefined."""
        completed = [run for run in runs if run.status == "completed"]
        return {each.text: _mean_excess(each, completed) for each in self.constraints}

    def kept(self, runs: Iterable[RunState]) -> bool:
        """Whether a configuration's completed runs keep every constraint in the mean."""
        return all(excess <= 0 for excess in self.excesses(runs).values())

    def allows(self, counts: Counts) -> bool:
        """Whether a configuration may be trained, by what is known before."""
        return all(each.excess(each.counted(counts)) <= 0 for each in self.constraints if each.before)

    @property
    def before(self) -> bool:
        """Whether any constraint is known before a point is trained."""
        return any(each.before for each in self.constraints)

    def cost(self, runs: Iterable[RunState]) -> float | None:
        """What a configuration's completed runs cost in the mean; None where nothing is weighed."""
        if self.against is None:
            return None
        return mean([cost(run, self.against) for run in runs])

    @property
    def after(self) -> bool:
        """Whether any constraint binds a task's metric, which tasks have or have not."""
        return any("." in each.name for each in self.constraints)

    def check(self, metrics: Collection[str]) -> None:
        """Raises ConfigError where a constraint binds a metric that is none of these."""
        for each in self.constraints:
            if "." in each.name and each.name not in metrics:
                names = ", ".join([*BESIDE, *metrics])
                raise ConfigError(f"constraint {each.text!r}: expected one of {names}, got {each.name!r}")


PLAIN = Terms()


def parse_constraints(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """The constraints that texts declare, each once.

    Raises:
        ConfigError: a text that is none; names it and what is taken.
    """
    return tuple(dict.fromkeys(map(_parse, texts)))


def _parse(text: str) -> Constraint:
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    try:
        bound = float(found[3]) if found else math.nan
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise ConfigError(
            "constraint: expected a name, <= or >=, and a number, as trainable<=1% or para.accuracy>=0.80, "
            f"got {text!r}"
        )
    name, relation, percent = found[1], found[2], found[4]
    if "." not in name and name not in BESIDE:
        names = ", ".join(BESIDE)
        raise ConfigError(f"constraint {text!r}: expected one of {names}, or TASK.METRIC, got {name!r}")
    if percent and name == SECONDS:
        raise ConfigError(f"constraint {text!r}: expected seconds as a number, got per cent")
    if name == TRAINABLE and not percent and bound < 1:
        raise ConfigError(f"constraint {text!r}: expected a count, or a share with %, got {bound:g}")
    bound = bound / 100 if percent else bound
    share = name == TRAINABLE and bool(percent)
    return Constraint("".join(text.split()), name, relation == "<=", bound, share)


def _mean_excess(constraint: Constraint, completed: Sequence[RunState]) -> float:
    found = [constraint.measured(run) for run in completed]
    known = [each for each in found if each is not None]
    return constraint.excess(fmean(known)) if known and len(known) == len(found) else math.inf
