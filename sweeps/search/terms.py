"""What a search looks at beside its objective: constraints that bind it, and a cost to weigh it against."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from analysis.constraints import BESIDE, Constraint, excesses, parse_constraint
from analysis.ranking import cost, mean
from analysis.store.errors import StoreError
from analysis.store.state import RunState
from mtbert.schema import ConfigError

if TYPE_CHECKING:
    from mtbert.counts import Counts

Cost = Literal["parameters", "seconds"]
COSTS: tuple[Cost, ...] = get_args(Cost)


@dataclass(frozen=True)
class Terms:
    """The constraints of a search, and what its objective is weighed against, if anything."""

    constraints: tuple[Constraint, ...] = ()
    against: Cost | None = None

    def excesses(self, runs: Iterable[RunState]) -> dict[str, float]:
        """By how much a configuration's completed runs break each constraint in the mean; inf: undefined."""
        return excesses(self.constraints, runs)

    def kept(self, runs: Iterable[RunState]) -> bool:
        """Whether a configuration's completed runs keep every constraint in the mean."""
        return all(excess <= 0 for excess in self.excesses(runs).values())

    def allows(self, counts: Counts) -> bool:
        """Whether a configuration may be trained, by what is known before."""
        before = (each for each in self.constraints if each.before)
        return all(each.excess(each.counted(counts.trainable, counts.total)) <= 0 for each in before)

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
    try:
        return tuple(dict.fromkeys(map(parse_constraint, texts)))
    except StoreError as error:
        raise ConfigError(str(error)) from None
