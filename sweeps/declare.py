"""Declared sweeps: axes over a base, named configurations, one change at a time, or a space to search."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from mtbert.configuration import Configuration, parse, with_values, without
from mtbert.run import Run
from mtbert.schema import ConfigError, plain
from sweeps.search.budget import Budget
from sweeps.search.points import configuration_at, point_of
from sweeps.search.rungs import Rungs
from sweeps.search.space import Point, Space, spoken
from sweeps.search.study import WEIGHS, Sampler
from sweeps.search.terms import COSTS, Cost, Terms, parse_constraints

BASE = "base"
"""What an ablation calls its base among its changes."""


@dataclass(frozen=True)
class DeclaredRun:
    """A run and the point of the sweep's axes at which it stands, by dotted field name."""

    run: Run
    point: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The run by its point and seed: "rank 4, alpha 8, seed 0"."""
        return spoken({**self.point, "seed": self.run.seed})


@dataclass(frozen=True)
class Grid:
    """Every combination of the axes' values over a base configuration, each with the seeds 0 to seeds - 1.

    Attributes:
        base: a configuration as plain data.
        axes: values by dotted field name, `{"low_rank.rank": (1, 4)}`; the last one varies fastest.
    """

    kind: ClassVar = "grid"
    name: str
    base: Mapping[str, Any]
    axes: Mapping[str, Sequence[Any]]
    seeds: int
    objective: str = "score"

    def __post_init__(self) -> None:
        _check(self.name, self.seeds)
        _check_axes(self.axes)

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
        return _over_seeds(configurations, self.seeds, data, model)

    def as_json(self) -> dict[str, Any]:
        """What the ledger keeps of the declaration; the same declaration gives the same record."""
        axes = {axis: list(values) for axis, values in self.axes.items()}
        return _record(self, axes, plain(parse(self.base)))


@dataclass(frozen=True)
class RunList:
    """Named configurations that need not have anything in common, each with the seeds 0 to seeds - 1."""

    kind: ClassVar = "list"
    name: str
    configurations: Mapping[str, Configuration]
    seeds: int
    objective: str = "score"

    def __post_init__(self) -> None:
        _check(self.name, self.seeds)
        if not self.configurations:
            raise ConfigError(f"{self.name}: expected at least one configuration, got none")

    def points(self) -> list[dict[str, Any]]:
        """The names in order."""
        return [{"row": name} for name in self.configurations]

    def runs(self, data: str, model: str) -> list[DeclaredRun]:
        """As a grid's; of names with one configuration the first stands for all."""
        pairs = list(zip(self.points(), self.configurations.values(), strict=True))
        return _over_seeds(pairs, self.seeds, data, model)

    def as_json(self) -> dict[str, Any]:
        """As a grid's."""
        return _record(self, {"row": list(self.configurations)}, {})


@dataclass(frozen=True)
class Ablation:
    """A base configuration, and what it comes to with one thing changed at a time.

    Each with the seeds 0 to seeds - 1: the base as `base`, then the changes by their names.

    Attributes:
        base: a configuration as plain data.
        without: fields that the base sets, each put back to its default: "without smart".
        changes: by name, values by dotted field to lay over the base: `{"rank 1": {"low_rank.rank": 1}}`.
    """

    kind: ClassVar = "ablation"
    name: str
    base: Mapping[str, Any]
    seeds: int
    without: Sequence[str] = ()
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    objective: str = "score"

    def __post_init__(self) -> None:
        _check(self.name, self.seeds)
        if not self.without and not self.changes:
            raise ConfigError("without: expected at least one field, or changes, got neither")
        if BASE in self.changes:
            raise ConfigError(f"changes.{BASE}: expected another name, as this is the base's own")

    @cached_property
    def configurations(self) -> dict[str, Configuration]:
        """The base and what it comes to, by name.

        Raises:
            ConfigError: a change that cannot be, or that changes nothing.
        """
        base = parse(self.base)
        found = {BASE: base}
        told = {f"without {name}": without(plain(base), name) for name in self.without}
        told |= {name: with_values(self.base, values) for name, values in self.changes.items()}
        for name, settings in told.items():
            try:
                found[name] = parse(settings)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
            if found[name] == base:
                raise ConfigError(f"{name}: expected another configuration than the base, got the same")
        return found

    def points(self) -> list[dict[str, Any]]:
        """The names in order, the base first."""
        return [{"change": name} for name in self.configurations]

    def runs(self, data: str, model: str) -> list[DeclaredRun]:
        """As a grid's."""
        pairs = list(zip(self.points(), self.configurations.values(), strict=True))
        return _over_seeds(pairs, self.seeds, data, model)

    def as_json(self) -> dict[str, Any]:
        """As a grid's."""
        return _record(self, {"change": list(self.configurations)}, plain(parse(self.base)))


@dataclass(frozen=True)
class Search:
    """A space over a base configuration, of which a sampler proposes points by what the others came to.

    Attributes:
        base: a configuration as plain data: what is fixed.
        start: points that are tried first.
        rungs: where points are stopped that are not among the best; None trains each to its end.
        budget: what it may use up, the number of points included.
        top_k: of the best, how many are trained with the seeds 0 to seeds_at_end - 1 when all else ended.
        constraints: texts such as `trainable<=1%` and `para.accuracy>=0.80`, which bind points and winner.
        against: what the objective is weighed against; the search then seeks a front.
        axes: as a grid's: each combination of their values is searched by itself, with an even share.
    """

    kind: ClassVar = "search"
    name: str
    base: Mapping[str, Any]
    space: Space
    budget: Budget = field(default_factory=Budget)
    sampler: Sampler = field(default_factory=Sampler)
    start: Sequence[Point] = ()
    rungs: Rungs | None = None
    top_k: int = 3
    seeds_at_end: int = 3
    objective: str = "score"
    constraints: Sequence[str] = ()
    against: Cost | None = None
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.name, self.seeds_at_end)
        if self.top_k < 1:
            raise ConfigError(f"top_k: expected a count of at least 1, got {self.top_k!r}")
        _check_axes(self.axes)
        _check_against(self.against, self.sampler, self.rungs)
        parse_constraints(self.constraints)
        if self.rungs is not None and self.objective != "score":
            raise ConfigError(f"objective: expected score where there are rungs, got {self.objective!r}")

    @cached_property
    def terms(self) -> Terms:
        """What is looked at beside the objective."""
        return Terms(parse_constraints(self.constraints), self.against)

    def run(self, point: Point, seed: int, data: str, model: str) -> DeclaredRun:
        """The run of a point.

        Raises:
            ConfigError: a point whose configuration cannot be, named; one that the rungs cannot compare.
        """
        configuration = configuration_at(self.base, point)
        if self.rungs is not None:
            self.rungs.check(configuration.evaluation.every, configuration.evaluation.unit)
        return DeclaredRun(Run(configuration, seed, data, model), point)

    def runs(self, data: str, model: str) -> list[DeclaredRun]:
        """The runs of the start points: all that is known before anything has been tried.

        Raises:
            ConfigError: a start point outside the space.
        """
        points = [self.complete(point) for point in self.start[: self.budget.points]]
        declared = [self.run(point, 0, data, model) for point in points]
        return list({each.run.run_id: each for each in declared}.values())

    def complete(self, point: Point) -> Point:
        """A start point with what the base says of the space's parameters that it does not name.

        Raises:
            ConfigError: it is outside the space.
        """
        found = point_of(self.space, self.base, configuration_at(self.base, point))
        if found is None:
            raise ConfigError(
                f"start: expected a point of the space, got one outside it ({spoken(point)}): give every "
                "parameter that is asked a value that it may take"
            )
        return found

    def as_json(self) -> dict[str, Any]:
        """As a grid's."""
        return {
            "sweep": self.name,
            "kind": self.kind,
            "axes": plain(self.space.parameters) | self._cells(),
            "objective": self.objective,
            "base": plain(parse(self.base)),
            "sampler": plain(self.sampler, defaults=True),
            "rungs": plain(self.rungs, defaults=True),
            "budget": plain(self.budget, defaults=True),
            "top_k": self.top_k,
            "constraints": list(self.constraints),
            "against": self.against,
            "seeds": self.seeds_at_end,
        }

    def _cells(self) -> dict[str, Any]:
        return {axis: {"choices": list(values)} for axis, values in self.axes.items()}


Sweep = Grid | RunList | Ablation | Search


def _check(name: str, seeds: int) -> None:
    if not re.fullmatch(r"[\w.-]{1,100}", name):
        raise ConfigError(
            f"name: expected 1 to 100 letters, digits, dots, dashes or underscores, got {name!r}"
        )
    if seeds < 1:
        raise ConfigError(f"seeds: expected a count of at least 1, got {seeds!r}")


def _record(sweep: Grid | RunList | Ablation, axes: Mapping[str, Any], base: Any) -> dict[str, Any]:
    return {
        "sweep": sweep.name,
        "kind": sweep.kind,
        "axes": axes,
        "objective": sweep.objective,
        "base": base,
        "seeds": sweep.seeds,
    }


def _check_axes(axes: Mapping[str, Sequence[Any]]) -> None:
    for axis, values in axes.items():
        if not values:
            raise ConfigError(f"{axis}: expected at least one value, got none")


def _check_against(against: str | None, sampler: Sampler, rungs: Rungs | None) -> None:
    if against is None:
        return
    if against not in COSTS:
        raise ConfigError(f"against: expected one of {', '.join(COSTS)}, got {against!r}")
    if sampler.name not in WEIGHS:
        raise ConfigError(
            f"sampler: expected one of {', '.join(WEIGHS)} with against {against}, got {sampler.name!r}"
        )
    if rungs is not None:
        raise ConfigError(
            f"rungs: expected none with against {against} (--rule none), as a rung compares scores alone"
        )


def _over_seeds(
    configurations: Sequence[tuple[Mapping[str, Any], Configuration]], seeds: int, data: str, model: str
) -> list[DeclaredRun]:
    declared: dict[str, DeclaredRun] = {}
    for seed in range(seeds):
        for point, configuration in configurations:
            run = Run(configuration, seed, data, model)
            declared.setdefault(run.run_id, DeclaredRun(run, point))
    return list(declared.values())
