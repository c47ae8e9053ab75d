"""What a search may use up, and what it has used: pure functions of the ledger, with what is in flight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from analysis.store.state import Begin, Occupied, RunState, State
from mtbert.schema import ConfigError, constrained


class Spent(NamedTuple):
    """What was used, in hours.

    Attributes:
        hours: wall-clock, of this call of the search's command.
        cores, gpus: occupied by the search's runs, over all calls.
        paid: what a price applies to: of a trial that has GPUs their hours, of any other its cores'.
    """

    hours: float = 0.0
    cores: float = 0.0
    gpus: float = 0.0
    paid: float = 0.0

    @property
    def spoken(self) -> str:
        """What the runs occupied, in words."""
        gpus = f" and {amount(self.gpus)} GPU-hours" if self.gpus else ""
        return f"{amount(self.cores)} core-hours{gpus}"


class Limit(NamedTuple):
    """One of a budget's limits: what it allows, what is used of it, and how it is said: "{} hours"."""

    words: str
    allowed: float
    used: float

    @property
    def left(self) -> float:
        return max(0.0, self.allowed - self.used)

    @property
    def spoken(self) -> str:
        return self.words.format(amount(self.allowed))


@dataclass(frozen=True)
class Budget:
    """What a search may use up; it ends at whichever comes first.

    Attributes:
        points: how many are tried, each with seed 0.
        hours: wall-clock, of each call of the search's command.
        core_hours, gpu_hours: what the search's runs may occupy, over all calls of its command.
        cost: what that may come to at `price`, which is of an hour of a GPU where a run occupies any, else of
            a core.
    """

    points: int = constrained(16, at_least=1)
    hours: float | None = constrained(None, above=0)
    core_hours: float | None = constrained(None, above=0)
    gpu_hours: float | None = constrained(None, above=0)
    cost: float | None = constrained(None, above=0)
    price: float | None = constrained(None, above=0)

    def __post_init__(self) -> None:
        if (self.cost is None) != (self.price is None):
            given, lacking = ("cost", "price") if self.price is None else ("price", "cost")
            raise ConfigError(f".{lacking}: expected a number beside a {given}, got none")

    def limits(self, used: Spent) -> list[Limit]:
        """The limits beside the number of points, and what is used of each."""
        all_of_them = (
            ("{} hours", self.hours, used.hours),
            ("{} core-hours", self.core_hours, used.cores),
            ("{} GPU-hours", self.gpu_hours, used.gpus),
            (f"{{}} at {amount(self.price or 0)} an hour", self.cost, used.paid * (self.price or 0)),
        )
        return [Limit(words, allowed, used) for words, allowed, used in all_of_them if allowed is not None]

    def over(self, used: Spent) -> Limit | None:
        """The limit that is reached, if any."""
        return next((limit for limit in self.limits(used) if not limit.left), None)

    def bill(self, used: Spent) -> str:
        """What the runs occupied, in words, and what that comes to where there is a price."""
        return used.spoken + ("" if self.price is None else f", which cost {amount(used.paid * self.price)}")

    def enough_for(self, used: Spent, each: Spent) -> int | None:
        """For how many runs that use so much each it is enough; None where there is no limit to that."""
        pairs = zip(self.limits(used), self.limits(each), strict=True)
        return min((int(limit.left / of_run.used) for limit, of_run in pairs if of_run.used), default=None)


class Stay(NamedTuple):
    """From when until when something was occupied, in seconds since 1970."""

    first: float
    last: float
    occupied: Occupied

    @property
    def hours(self) -> float:
        return max(0.0, self.last - self.first) / 3600

    def with_other(self, other: Stay) -> Stay:
        """Of two runs of one trial."""
        return Stay(min(self.first, other.first), max(self.last, other.last), self.occupied)


def spent(state: State, sweep: str, now: float, alive: Callable[[str], bool], hours: float = 0.0) -> Spent:
    """What the runs that were given out for a sweep have occupied, from there until they were given back.

    Stopped, lost and failed ones count, those of a killed driver up to their last sign of life. What was
    trained for another sweep does not. The runs of a trial occupy the same, once.

    Args:
        now: until when those count that a driver holds, in seconds since 1970.
        alive: whether a driver, by name, lives.
        hours: how long this call of the command has been going on.
    """
    trials: dict[tuple[str, str], Stay] = {}
    living: dict[str, bool] = {}
    for run in state.runs.values():
        for begin in run.begins.values():
            if begin.sweep != sweep or begin.occupied is None:
                continue
            if begin.driver not in living:
                living[begin.driver] = alive(begin.driver)
            stay = Stay(begin.time, _until(run, begin, now, living[begin.driver]), begin.occupied)
            key = begin.driver, begin.occupied.trial
            trials[key] = stay.with_other(trials.get(key, stay))
    stays = trials.values()
    return Spent(
        hours,
        sum(stay.hours * stay.occupied.cores for stay in stays),
        sum(stay.hours * stay.occupied.gpus for stay in stays),
        sum(stay.hours * (stay.occupied.gpus or stay.occupied.cores) for stay in stays),
    )


def _until(run: RunState, begin: Begin, now: float, alive: bool) -> float:
    """Until when an attempt held its place."""
    open_still = begin.attempt == run.attempt and begin.attempt not in run.closed
    return max(begin.last, now) if open_still and alive else begin.last


def amount(number: float) -> str:
    """A number with as many digits as a person wants: 0.000278, 0.25, 12."""
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"
