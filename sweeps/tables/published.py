"""The published reports' tables as declared runs beside their figures: `published.yaml`, read and checked."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from mtbert.configuration import Configuration
from mtbert.schema import ConfigError, build
from sweeps.tables.provenance import Settings, configuration_of, lines_of, overlay, read_settings

FILE = Path(__file__).with_name("published.yaml")
CFIMDB = Literal["leave", "task", "join"]


class Figure(NamedTuple):
    """A printed number, and the standard deviation printed with it, if any."""

    value: float
    deviation: float | None = None


@dataclass(frozen=True)
class RowRun:
    """One of the runs that a row stands for; without a name where it is the only one."""

    name: str
    settings: Settings
    where: str

    @cached_property
    def configuration(self) -> Configuration:
        """As the report had it, at full length."""
        return configuration_of(self.settings, self.where)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        number: from 1 on, in the table's order.
        lines: of the report's text that print it.
        figures: by column; a cell that is blank or illegible is missing.
        merge: kind and weights of the model that is merged from the runs' (report 002); empty for none.
        pretrained: whether it starts from a further pretrained model (report 003).
        same_as: an earlier row of the table that has the same settings.
        count_differs: why the printed number of parameters is not what the description gives.
    """

    number: int
    label: str
    lines: tuple[int, ...]
    figures: Mapping[str, Figure]
    runs: tuple[RowRun, ...]
    merge: Settings
    pretrained: bool = False
    same_as: str | None = None
    count_differs: str = ""
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """What a text says of its figures, as a comparison of rows; rows by label, with * for any text.

    One of: the mean of `better` beats that of `than`; that of `alike` is within `within` of that of `to`;
    `best` beats each of `among`; `rising` get better from each to the next; of `none_best` none is the
    best by all of `metrics`.
    """

    says: str
    lines: tuple[int, ...]
    metric: str = ""
    metrics: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    than: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    within: float = 0.0
    best: str = ""
    among: tuple[str, ...] = ()
    rising: tuple[str, ...] = ()
    none_best: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        forms = {
            "better": bool(self.better and self.than),
            "alike": bool(self.alike and self.to and self.within > 0),
            "best": bool(self.best and self.among),
            "rising": len(self.rising) > 1,
            "none_best": bool(self.none_best and self.metrics),
        }
        given = [name for name in forms if getattr(self, name)]
        if len(given) != 1 or not forms[given[0]] or (given[0] != "none_best") != bool(self.metric):
            raise ConfigError(
                ": expected a metric with better and than, alike, to and within, best and among, or rising; "
                f"or metrics with none_best; got {', '.join(given) or 'none of them'}"
            )

    @property
    def rows(self) -> tuple[str, ...]:
        """All that it names."""
        best = (self.best,) if self.best else ()
        named = (*self.better, *self.than, *self.alike, *self.to)
        return (*named, *best, *self.among, *self.rising, *self.none_best)


@dataclass(frozen=True)
class Table:
    """A table, or an experiment without one.

    Attributes:
        id: `004/3`.
        columns: metrics in the printed order; where nothing is printed, what the experiment is about.
        examples: how many training examples the report had, by task, as far as it says so.
        cfimdb: how CFIMDB enters: not, as a task, or joined to SST.
    """

    id: str
    report: str
    title: str
    lines: tuple[int, ...]
    note: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    examples: Mapping[str, int]
    cfimdb: CFIMDB

    @property
    def printed(self) -> bool:
        """Whether any figure can be read."""
        return any(row.figures for row in self.rows)

    def matching(self, patterns: Sequence[str]) -> list[Row]:
        """The rows that a claim names, in the order of its patterns.

        Raises:
            ConfigError: a pattern that fits none.
        """
        found: dict[int, Row] = {}
        for pattern in patterns:
            fitting = [row for row in self.rows if fnmatch.fnmatchcase(row.label, pattern)]
            if not fitting:
                raise ConfigError(f"{self.id}: no row is labelled {pattern!r}")
            found |= {row.number: row for row in fitting}
        return list(found.values())


@dataclass(frozen=True)
class _RawRow:
    label: str
    lines: tuple[int, ...]
    figures: tuple[Any, ...] = ()
    settings: tuple[Any, ...] = ()
    runs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    pretrained: bool = False
    same_as: str | None = None
    count_differs: str = ""
    note: str = ""


@dataclass(frozen=True)
class _RawTable:
    title: str
    lines: tuple[int, ...]
    columns: tuple[str, ...]
    rows: tuple[_RawRow, ...]
    note: str = ""
    settings: tuple[Any, ...] = ()
    runs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    cfimdb: CFIMDB | None = None


@dataclass(frozen=True)
class _RawReport:
    title: str
    text: str
    tables: Mapping[str, _RawTable]
    settings: tuple[Any, ...] = ()
    examples: Mapping[str, int] = field(default_factory=dict)
    examples_line: int | None = None
    cfimdb: CFIMDB = "leave"
    cfimdb_line: int | None = None


@dataclass(frozen=True)
class _RawFile:
    reports: Mapping[str, _RawReport]
    shared: Any = None


def read_tables(path: Path = FILE) -> dict[str, Table]:
    """All tables by id, in the file's order.

    Raises:
        ConfigError: naming table and row, a setting without its mark, a configuration that cannot be, a
            figure too many.
    """
    raw = build(_RawFile, yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    return {
        f"{number}/{name}": _table(f"{number}/{name}", report, table)
        for number, report in raw.reports.items()
        for name, table in report.tables.items()
    }


def find(tables: Mapping[str, Table], table_id: str) -> Table:
    """The table of this id; a ConfigError that names those of the report where there is none."""
    if table_id not in tables:
        near = [each for each in tables if each.split("/")[0] == table_id.split("/")[0]] or list(tables)
        raise ConfigError(f"table: expected one of {', '.join(near)}, got {table_id!r}; --list shows all")
    return tables[table_id]


def _table(table_id: str, report: _RawReport, raw: _RawTable) -> Table:
    base = overlay(read_settings(report.settings, table_id), read_settings(raw.settings, table_id))
    rows = tuple(_row(table_id, number, row, raw, base) for number, row in enumerate(raw.rows, 1))
    labels = [row.label for row in rows]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"{table_id}: two rows are labelled {label!r}")
    made = Table(
        id=table_id,
        report=report.title,
        title=raw.title,
        lines=raw.lines,
        note=raw.note,
        columns=raw.columns,
        rows=rows,
        claims=raw.claims,
        examples=report.examples,
        cfimdb=raw.cfimdb or report.cfimdb,
    )
    for claim in raw.claims:
        made.matching(claim.rows)
        _check_apart(made, (claim.better, claim.than), (claim.alike, claim.to))
    return made


def _check_apart(table: Table, *sides: tuple[Sequence[str], Sequence[str]]) -> None:
    """No row stands on both sides of a comparison."""
    for one, other in sides:
        others = table.matching(other)
        for row in table.matching(one):
            if row in others:
                raise ConfigError(f"{table.id}: a claim compares {row.label!r} with itself")


def _row(table_id: str, number: int, raw: _RawRow, table: _RawTable, base: Settings) -> Row:
    where = f"{table_id}, row {number} ({raw.label})"
    if raw.figures and len(raw.figures) != len(table.columns):
        raise ConfigError(f"{where}: expected {len(table.columns)} figures, got {len(raw.figures)}")
    figures = {
        column: _figure(cell, where)
        for column, cell in zip(table.columns, raw.figures, strict=False)
        if cell is not None
    }
    settings = overlay(base, read_settings(raw.settings, where))
    common = {name: each for name, each in settings.items() if not name.startswith("merge.")}
    merge = {name.removeprefix("merge."): settings[name] for name in settings.keys() - common.keys()}
    runs = raw.runs or table.runs or {"": ()}
    return Row(
        number=number,
        label=raw.label,
        lines=lines_of(raw.lines, where),
        figures=figures,
        runs=tuple(
            RowRun(name, overlay(common, read_settings(own, where)), f"{where}{', ' * bool(name)}{name}")
            for name, own in runs.items()
        ),
        merge=merge,
        pretrained=raw.pretrained,
        same_as=raw.same_as,
        count_differs=raw.count_differs,
        note=raw.note,
    )


def _figure(cell: Any, where: str) -> Figure:
    """A number, [mean, deviation], or a time as h:mm:ss in seconds."""
    if isinstance(cell, str):
        parts = cell.split(":")
        if len(parts) == 3 and all(part.isdigit() for part in parts):
            hours, minutes, seconds = (int(part) for part in parts)
            return Figure(hours * 3600.0 + minutes * 60 + seconds)
    if isinstance(cell, (list, tuple)) and len(cell) == 2:
        return Figure(float(cell[0]), float(cell[1]))
    if isinstance(cell, (int, float)) and not isinstance(cell, bool):
        return Figure(float(cell))
    raise ConfigError(f"{where}: expected a number, [mean, deviation] or h:mm:ss, got {cell!r}")
