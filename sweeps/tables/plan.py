"""What of a published table can be run here: each row's configurations, shortened and fitted, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mtbert.configuration import Configuration, parse, with_values
from mtbert.run import Run
from mtbert.schema import ConfigError, plain
from mtbert.techniques import Orthogonal
from sweeps.declare import RunList
from sweeps.publish import Material
from sweeps.tables.published import Row, RowRun, Table
from sweeps.tables.shorten import shortened

WITHOUT_PRETRAINED = "needs --pretrained FOLDER, a further pretrained model"
LAYERS = 12
"""Of the reports' model, whose layers are named by number."""


@dataclass(frozen=True)
class Options:
    """What the command changes of every row.

    Attributes:
        values: fields set to a value, by dotted name.
    """

    seeds: int = 1
    scale: float = 1.0
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise ConfigError(f"--scale: expected a factor above 0 and at most 1, got {self.scale:g}")


@dataclass(frozen=True)
class Planned:
    """One of a row's runs as it is run here.

    Attributes:
        configuration: None where it cannot be run, for the `reason`.
        note: what had to be fitted to a smaller model.
    """

    row: Row
    run: RowRun
    configuration: Configuration | None
    reason: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        """What the sweep calls it."""
        return f"{self.row.label}, {self.run.name}" if self.run.name else self.row.label


class TablePlan:
    """A table over a base model and data; rows of a further pretrained model over that one.

    Args:
        pretrained: None where there is none.

    Raises:
        ConfigError: no row can be, because of a value that was set.
    """

    def __init__(
        self, table: Table, options: Options, material: Material, pretrained: Material | None = None
    ) -> None:
        self.table, self.options = table, options
        self.material, self.pretrained = material, pretrained
        self.planned = [self._plan(row, run) for row in table.rows for run in row.runs]
        if not any(each.configuration for each in self.planned) and options.values:
            raise ConfigError(f"--set: no row of {table.id} can be: {self.planned[0].reason}")

    def sweep(self, pretrained: bool) -> RunList | None:
        """The runs over one of the base models; None where there are none."""
        configurations = {
            each.name: each.configuration
            for each in self.planned
            if each.row.pretrained == pretrained and each.configuration is not None
        }
        if not configurations:
            return None
        scale = "" if self.options.scale == 1 else f"-scale-{self.options.scale:g}"
        name = f"published-{self.table.id.replace('/', '-')}{scale}{'-pretrained' if pretrained else ''}"
        return RunList(name, configurations, self.options.seeds)

    @cached_property
    def runs(self) -> dict[tuple[int, str, int], Run]:
        """Every run, by the row's number, the name of the row's run, and the seed."""
        found: dict[tuple[int, str, int], Run] = {}
        for each in self.planned:
            material = self._material(each.row)
            if each.configuration is not None and material is not None:
                for seed in range(self.options.seeds):
                    run = Run(each.configuration, seed, material.data, material.model)
                    found[each.row.number, each.run.name, seed] = run
        return found

    def reasons(self, row: Row) -> dict[str, str]:
        """Why some of a row's runs are not run, by their names."""
        return {each.run.name: each.reason for each in self.planned if each.row is row and each.reason}

    @property
    def notes(self) -> list[str]:
        """What was fitted to this model, row by row."""
        return list(dict.fromkeys(f"{each.row.label}: {each.note}" for each in self.planned if each.note))

    def _material(self, row: Row) -> Material | None:
        return self.pretrained if row.pretrained else self.material

    def _plan(self, row: Row, run: RowRun) -> Planned:
        material = self._material(row)
        if material is None:
            return Planned(row, run, None, WITHOUT_PRETRAINED)
        missing = [task for task in _named_tasks(run.configuration) if task not in material.sizes]
        if missing:
            return Planned(row, run, None, f"the data has no task {', '.join(missing)}")
        try:
            short = shortened(run.configuration, material.sizes, self.options.scale)
            changed = parse(with_values(plain(short), self.options.values))
            configuration, note = fitted(changed, material)
            material.count(configuration)
        except ConfigError as error:
            return Planned(row, run, None, str(error))
        return Planned(row, run, configuration, note=note)


def fitted(configuration: Configuration, material: Material) -> tuple[Configuration, str]:
    """What names a layer or fills a width of the reports' model, fitted to a smaller one; and what was."""
    changes: dict[str, Any] = {}
    said = []
    upper = None if configuration.parallel is None else configuration.parallel.upper
    low_rank = configuration.low_rank
    if upper is None and not isinstance(low_rank, Orthogonal):
        return configuration, ""
    work, tasks = material.workload(configuration), len(material.sizes)
    if upper is not None and upper.start >= work.layers:
        start = max(1, upper.start * work.layers // LAYERS)
        changes["parallel.upper.start"] = start
        said.append(f"its upper layers are those from {start} on, this model having {work.layers}")
    if isinstance(low_rank, Orthogonal):
        most = work.width // tasks
        if low_rank.rank > most:
            changes["low_rank.rank"] = most
            said.append(f"rank {most} for {low_rank.rank}, as {tasks} tasks share {work.width} columns")
    return parse(with_values(plain(configuration), changes)), "; ".join(said)


def _named_tasks(configuration: Configuration) -> list[str]:
    """The tasks that the stages name."""
    return list(dict.fromkeys(task for stage in configuration.stage_list() for task in stage.tasks or ()))
