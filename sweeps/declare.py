"""A declared sweep: axes over a base configuration, replicated over seeds, as a list of runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtbert.configuration import parse, with_values
from mtbert.run import Run
from mtbert.schema import ConfigError, plain


@dataclass(frozen=True)
class DeclaredRun:
    """A run and the point of the sweep's axes at which it stands, by dotted field name."""

    run: Run
    point: Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """Every combination of the axes' values over a base configuration, each with the seeds 0 to seeds - 1.

    Attributes:
        base: a configuration as plain data.
        axes: values by dotted field name, `{"low_rank.rank": (1, 4)}`; the last one varies fastest.
    """

    name: str
    base: Mapping[str, Any]
    axes: Mapping[str, Sequence[Any]]
    seeds: int
    objective: str = "score"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]{1,100}", self.name):
            raise ConfigError(
                f"name: expected 1 to 100 letters, digits, dots, dashes or underscores, got {self.name!r}"
            )
        if self.seeds < 1:
            raise ConfigError(f"seeds: expected a count of at least 1, got {self.seeds!r}")
        for axis, values in self.axes.items():
            if not values:
                raise ConfigError(f"{axis}: expected at least one value, got none")

    def points(self) -> list[dict[str, Any]]:
        """The grid's points in order, each a value by axis."""
        return [
            dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())
        ]

    def runs(self, data: str, model: str) -> list[DeclaredRun]:
        """The sweep's runs on data and base model of these fingerprints, each id once.

        All points come with their first seed before any has its second, so that an early look at the
        results sees the whole grid.

        Raises:
            ConfigError: a point whose configuration cannot be.
        """
        configurations = [(point, parse(with_values(self.base, point))) for point in self.points()]
        declared: dict[str, DeclaredRun] = {}
        for seed in range(self.seeds):
            for point, configuration in configurations:
                run = Run(configuration, seed, data, model)
                declared.setdefault(run.run_id, DeclaredRun(run, point))
        return list(declared.values())

    def as_json(self) -> dict[str, Any]:
        """What the ledger keeps of the declaration; the same declaration gives the same record."""
        return {
            "sweep": self.name,
            "kind": "grid",
            "axes": {axis: list(values) for axis, values in self.axes.items()},
            "objective": self.objective,
            "base": plain(parse(self.base)),
            "seeds": self.seeds,
        }
