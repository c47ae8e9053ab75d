"""Grid axes outside and a sampler inside: a search for each cell of a grid, over one budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from analysis.store.state import State
from mtbert.configuration import Configuration
from mtbert.run import Run
from mtbert.schema import ConfigError
from sweeps.declare import DeclaredRun, Search
from sweeps.plan import Aims
from sweeps.search.finalists import Finalist
from sweeps.search.quest import Quest
from sweeps.search.space import NONE, Parameter, Point, Space, same, spoken, switches

if TYPE_CHECKING:
    from mtbert.counts import Counts


def cells(search: Search) -> list[tuple[dict[str, Any], Search]]:
    """Each cell of the search's grid with the search in it, which has its even share of the points.

    The cell's values are fixed parameters of its space: so only its own runs are comparable. A start point
    that names none of the axes is tried in every cell.

    Raises:
        ConfigError: fewer points than cells, or a cell whose values are left out together with their place.
    """
    grid = [dict(zip(search.axes, each, strict=True)) for each in itertools.product(*search.axes.values())]
    points = search.budget.points
    if points < len(grid):
        raise ConfigError(f"budget.points: expected at least one for each of {len(grid)} cells, got {points}")
    share, more = divmod(points, len(grid))
    return [
        (
            cell,
            replace(
                search,
                axes={},
                space=_within(search.space, cell),
                budget=replace(search.budget, points=share + (at < more)),
                start=[{**point, **cell} for point in search.start if _stands_in(point, cell)],
            ),
        )
        for at, cell in enumerate(grid)
    ]


class Quests:
    """A search's cells, in turn; a search without axes is one cell."""

    def __init__(
        self,
        search: Search,
        data: str,
        model: str,
        steps: Callable[[Run], int],
        count: Callable[[Configuration], Counts],
        driver: str = "",
    ) -> None:
        self.search = search
        self.cells = [
            (cell, Quest(inner, data, model, steps, count, driver)) for cell, inner in cells(search)
        ]
        self._quests = [quest for _, quest in self.cells]

    def listed(self, state: State) -> list[DeclaredRun]:
        """The runs of all cells so far."""
        found = {each.run.run_id: each for quest in self._quests for each in quest.listed(state)}
        return list(found.values())

    def tried(self, state: State) -> int:
        """How many points the search has tried, or is trying."""
        return sum(quest.tried(state) for quest in self._quests)

    def more(self, state: State, count: int) -> list[DeclaredRun]:
        """Runs beside those listed, of the cells that have tried the fewest first: an early look sees all."""
        share = -(-count // len(self._quests))
        found: dict[str, DeclaredRun] = {}
        for quest in sorted(self._quests, key=lambda each: each.tried(state)):
            if len(found) < count:
                found |= {each.run.run_id: each for each in quest.more(state, share)}
        return list(found.values())

    def aims(self, state: State) -> Aims:
        """The step wanted of each run, by its own cell."""
        targets: dict[str, int] = {}
        early: set[str] = set()
        for aims in (quest.aims(state) for quest in self._quests):
            targets |= aims.targets
            early |= aims.early
        return Aims(targets, frozenset(early))

    def sample(self, count: int) -> list[Run]:
        """Runs at random points of the cells: for what must be known before any is proposed."""
        share = -(-count // len(self._quests))
        return [run for quest in self._quests for run in quest.sample(share)]

    def finalists(self, state: State) -> list[Finalist]:
        """Those of all cells."""
        return [each for quest in self._quests for each in quest.finalists(state)]

    def all_tried(self, state: State) -> bool:
        """Whether every point of every cell has come as far as is wanted of it."""
        return all(quest.all_tried(state) for quest in self._quests)

    def best(self, state: State) -> Finalist | None:
        """The best of the cells' winners, by its mean."""
        winners = [each for quest in self._quests if (each := quest.winner(state)) is not None]
        return max(winners, key=lambda each: each.mean, default=None)


def _within(space: Space, cell: Point) -> Space:
    """The space with the cell's values fixed, and without what would leave them out."""
    hung = {switch: axis for axis in cell for switch in switches(axis)}
    within = {}
    beside = [axis for axis in cell if axis not in space.parameters]
    for name in (*beside, *space.parameters):
        parameter = Parameter(choices=(cell[name],)) if name in cell else space.parameters[name]
        if name in hung and parameter.choices is not None:
            kept = tuple(choice for choice in parameter.choices if choice not in (None, NONE))
            if not kept:
                raise ConfigError(
                    f"axes: {hung[name]} is left out where {name} is none, as in the cell with "
                    f"{spoken(cell)}: search that by itself"
                )
            parameter = replace(parameter, choices=kept)
        within[name] = parameter
    return Space(within)


def _stands_in(point: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
    return all(axis not in point or same(point[axis], each) for axis, each in cell.items())
