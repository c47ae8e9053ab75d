"""Answers as tables on a terminal of any width."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.formats import values

MOST_ROWS = 200
"""Rows of a table on a terminal; the other formats have all."""
_GAP = 3  # characters between columns
_WIDEST = 60  # characters of a cell
_UNLIMITED = 10_000  # characters of a line that goes to a file or a pipe


@dataclass(frozen=True)
class Column:
    """A column as a terminal shows it. Those of a high priority number are dropped first."""

    header: str
    cells: Sequence[str]
    priority: int = 0
    right: bool = False

    @property
    def width(self) -> int:
        """Characters that it takes, the gap before the next included."""
        return max(cell_len(text) for text in (self.header, *self.cells)) + _GAP


def laid_out(
    columns: Sequence[Column], width: int | None = None, title: str | None = None, note: str | None = None
) -> RenderableType:
    """The columns that fit the width, under the title, as a table; the rest are named below it.

    Args:
        width: characters; None for what standard output has.
        note: a last line.
    """
    room = (terminal_width() if width is None else width) + _GAP  # none after the last
    kept: set[int] = set()
    for index in sorted(range(len(columns)), key=lambda at: (columns[at].priority, at)):
        if not kept or columns[index].width <= room:
            kept.add(index)
            room -= columns[index].width
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index in sorted(kept):
        each = columns[index]
        table.add_column(Text(each.header), justify="right" if each.right else "left", overflow="fold")
    for cells in zip(*(columns[index].cells for index in sorted(kept)), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    left_out = [each.header for index, each in enumerate(columns) if index not in kept]
    more = f", and {len(left_out) - 8} more" if len(left_out) > 8 else ""
    dropped = f"not shown for want of width: {', '.join(left_out[:8])}{more} (--format csv has all)"
    lines = [title, table, dropped if left_out else None, note]
    return Group(*(Text(each) if isinstance(each, str) else each for each in lines if each is not None))


def plain_table(table: pa.Table, width: int | None = None, title: str | None = None) -> RenderableType:
    """Any table for a terminal: its first columns that fit, its first rows."""
    shown = table.slice(0, MOST_ROWS)
    columns = [
        Column(
            name,
            [cell(value) for value in values(shown.column(at))],
            at,
            pa.types.is_floating(shown.schema.field(at).type)
            or pa.types.is_integer(shown.schema.field(at).type),
        )
        for at, name in enumerate(shown.column_names)
    ]
    more = table.num_rows - MOST_ROWS
    return laid_out(
        columns, width, title, f"and {more} more rows (--format csv has all)" if more > 0 else None
    )


def errors_shown(table: pa.Table, fields: Sequence[str]) -> RenderableType:
    """Failed runs one below the other, each with what tells it apart and its traceback.

    Args:
        fields: the columns that tell the runs apart.
    """
    short = shortened(fields)
    told = []
    for row in table.to_pylist():
        apart = [
            f"{name} {cell(row[field])}"
            for name, field in zip(short, fields, strict=True)
            if row[field] is not None
        ]
        text = row["error_traceback"] or row["error_message"] or ""
        told.append(Text(f"{row['run_id']} ({', '.join(apart)}): {row['error_kind']}\n{text.rstrip()}\n"))
    return Group(*told) if told else Text("no run has failed")


def as_text(shown: RenderableType, width: int | None = None) -> str:
    """What a terminal would show, as text without colours."""
    room = width or terminal_width()
    console = Console(width=room, file=io.StringIO(), color_system=None, force_jupyter=False)
    console.print(shown)
    output: io.StringIO = console.file  # type: ignore[assignment]
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def terminal_width() -> int:
    """Characters of a line: the terminal's (or what COLUMNS says), without end for a file or a pipe."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return _UNLIMITED


def cell(value: Any) -> str:
    """A value in a table's cell: four decimals are enough to tell scores apart."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return f"{value:.0f}" if abs(value) > 1 else f"{value:.1f}"
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return cell(", ".join(value) or None)
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split())
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def shortened(names: Sequence[str], beside: Sequence[str] = ()) -> list[str]:
    """Each dotted name from its last part on, or from as far before as tells it from the others.

    Args:
        beside: names that stand beside these, as they are.
    """
    short = []
    for name in names:
        parts = name.split(".")
        ends = [".".join(parts[at:]) for at in range(len(parts) - 1, -1, -1)]
        others = [other for other in (*names, *beside) if other != name]
        free = (end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others))
        short.append(next(free, name))
    return short


def is_loss(metric: str) -> bool:
    """Whether a metric is what is minimised, which a reader wants after the others."""
    return metric.endswith((".loss", ".mse"))
