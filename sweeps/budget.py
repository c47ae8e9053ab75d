"""What a search may use up."""

from __future__ import annotations

from dataclasses import dataclass

from mtbert.schema import ConfigError, constrained


@dataclass(frozen=True)
class Budget:
    """What a search may use up; it ends at whichever comes first.

    Attributes:
        points: how many are tried, each with seed 0.
        hours: wall-clock, of each call of the search's command.
        core_hours, gpu_hours: what the search's runs may occupy, over all calls of its command.
        cost: what that may come to at `price`, which is of an hour of a GPU where runs occupy any, else of a
            core.
    """

    points: int = constrained(24, at_least=1)
    hours: float | None = constrained(None, above=0)
    core_hours: float | None = constrained(None, above=0)
    gpu_hours: float | None = constrained(None, above=0)
    cost: float | None = constrained(None, above=0)
    price: float | None = constrained(None, above=0)

    def __post_init__(self) -> None:
        if (self.cost is None) != (self.price is None):
            given, lacking = ("cost", "price") if self.price is None else ("price", "cost")
            raise ConfigError(f".{lacking}: expected a number beside a {given}, got none")
