"""From rows of any source to examples: what is missing, what is skipped, what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mtbert.data.errors import DataError
from mtbert.data.examples import Example
from mtbert.tasks import Columns, Task

Cells = Mapping[str, Any]
"""A row's cells by the names of their columns: text, numbers, or None."""

_SKIPPED_AT_MOST = 1  # of a hundred rows
_LISTED = 20
_DECIMALS = 6  # of a regression's label: no trace is left of the source's float32 or of another scale


@dataclass(frozen=True)
class Source:
    """One file or one split on the hub, and how its rows are read.

    Attributes:
        name: as messages name it.
        unit: what its rows are counted in.
        prefix: of the ids, where no column holds them.
        labelled: whether a row without a label is skipped.
    """

    name: str
    unit: Literal["line", "row"]
    task: Task
    columns: Columns
    labels: Mapping[str, float]
    prefix: str
    labelled: bool

    @property
    def wanted(self) -> list[str]:
        """The columns that must be there."""
        columns = self.columns
        label = columns.label if self.labelled else None
        return [name for name in (columns.id, columns.first, columns.second, label) if name is not None]

    def error(self, number: int, column: str, text: str) -> DataError:
        return DataError(f"{self.name}, {self.unit} {number}, column {column!r}: {text}")


@dataclass(frozen=True)
class Collected:
    """A source's examples, and a notice of the rows that were skipped."""

    examples: list[Example]
    notices: list[str]


def collect(source: Source, rows: Iterable[tuple[int, Cells]]) -> Collected:
    """The examples of all rows, each with its line or row number.

    Rows without a sentence, or without a label where there must be one, are skipped and told.

    Raises:
        DataError: a label that cannot be, an id that is missing or repeated, no rows at all, or more than
            one in a hundred to skip.
    """
    examples: list[Example] = []
    skipped: list[str] = []
    seen: dict[str, int] = {}
    count = 0
    for number, cells in rows:
        count += 1
        example, missing = _example(source, number, count, cells)
        if missing:
            skipped.append(f"{source.unit} {number} (no {', no '.join(missing)})")
            continue
        if example.example_id in seen:
            raise source.error(
                number,
                source.columns.id or "",
                f"id {example.example_id!r} stands on {source.unit} {seen[example.example_id]} already; "
                "expected each id once",
            )
        seen[example.example_id] = number
        examples.append(example)
    if not count:
        raise DataError(f"{source.name}: has no rows")
    return Collected(examples, _notice(source, skipped, count))


def is_missing(source: Source, cell: object) -> bool:
    """Empty, not a number, or what the task declares to stand for no label."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in ("", "nan")):
        return True
    value = _number(cell)
    return value is not None and (math.isnan(value) or value == source.task.unlabelled)


def label(source: Source, cell: object) -> float:
    """The label as the model sees it.

    Raises:
        ValueError: saying what was expected instead.
    """
    task = source.task
    value = _number(cell)
    if source.labels:
        text = str(cell).strip()
        for name in (text, text if value is None else f"{value:g}"):
            if name in source.labels:
                return source.labels[name]
        raise ValueError(f"expected one of {', '.join(source.labels)}")
    if task.kind != "regression":
        last = (task.classes or 2) - 1
        if value is None or value not in range(last + 1):
            raise ValueError("expected 0 or 1" if last == 1 else f"expected a whole number from 0 to {last}")
        return value
    return _on_scale(task, value)


def _on_scale(task: Task, value: float | None) -> float:
    """A regression's label, moved from its source's range to the task's."""
    low, high = task.label_range
    lowest, highest = task.source_range or (low, high)
    if value is None or not lowest <= value <= highest:
        raise ValueError(f"expected a number from {lowest:g} to {highest:g}")
    share = (value - lowest) / (highest - lowest)
    return round(low + share * (high - low), _DECIMALS)


def _example(source: Source, number: int, count: int, cells: Cells) -> tuple[Example, list[str]]:
    """A row's example, and the names of the columns that it lacks."""
    columns = source.columns
    texts = [columns.first] if columns.second is None else [columns.first, columns.second]
    sentences = [_text(source, number, name, cells[name]) for name in texts]
    missing = [name for name, sentence in zip(texts, sentences, strict=True) if not sentence]
    value, cell = None, cells.get(columns.label)
    if not is_missing(source, cell):
        try:
            value = label(source, cell)
        except ValueError as error:
            raise source.error(number, columns.label, f"{error}, got {cell!r}") from None
    elif source.labelled:
        missing.append(columns.label)
    example_id = f"{source.prefix}-{count}"
    if columns.id is not None and not missing:
        example_id = "" if cells[columns.id] is None else str(cells[columns.id]).strip()
        if not example_id:
            raise source.error(number, columns.id, "expected an id, got nothing")
    second = sentences[1] if columns.second is not None else None
    return Example(example_id, sentences[0], second, value), missing


def _text(source: Source, number: int, column: str, cell: object) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        raise source.error(number, column, f"expected text, got {cell!r}")
    return cell.strip()


def _notice(source: Source, skipped: list[str], count: int) -> list[str]:
    if not skipped:
        return []
    listed = "; ".join(skipped[:_LISTED])
    if len(skipped) > _LISTED:
        listed += f"; and {len(skipped) - _LISTED} more"
    said = f"{source.name}: {len(skipped)} of {count} rows lack a sentence or a label"
    if 100 * len(skipped) > _SKIPPED_AT_MOST * count:
        raise DataError(f"{said}, more than {_SKIPPED_AT_MOST}%: {listed}")
    return [f"{said} and are skipped: {listed}"]


def _number(cell: object) -> float | None:
    if isinstance(cell, (int, float, str)):
        try:
            return float(cell)
        except ValueError:
            return None
    return None
