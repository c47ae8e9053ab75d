"""Predictions and examples: columns of many rows, each set a small Parquet file in the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.store import schema
from analysis.store.errors import StoreError
from analysis.store.files import Layout, checked_name, write_whole


def write_predictions(
    layout: Layout, run_id: str, attempt: int, columns: Mapping[str, Sequence[Any]], writer: str
) -> str | None:
    """Stores an ending's predictions, to be named in its record next; returns the file's name.

    Args:
        columns: task, example_id, prediction, label, of one length; what is not finite becomes null.

    Returns:
        None where there are no rows.
    """
    names = ("task", "example_id", "prediction", "label")
    rows = _checked(columns, names, f"predictions of run {run_id}")
    if rows == 0:
        return None
    values = {name: list(columns[name]) for name in names}
    for name in ("prediction", "label"):
        values[name] = [_finite(value) for value in values[name]]
    values["run_id"] = [run_id] * rows
    path = layout.predictions / f"{run_id}@{attempt}.parquet"
    _write(path, schema.PREDICTIONS, values, writer)
    return path.name


def write_examples(
    layout: Layout, fingerprint: str, columns: Mapping[str, Sequence[Any]], writer: str
) -> None:
    """Stores the examples of a data set once.

    Args:
        columns: id, task, split, first, second, label, of one length.
    """
    path = layout.examples / f"{checked_name(fingerprint, 'data fingerprint')}.parquet"
    if path.exists():
        return
    names = ("id", "task", "split", "first", "second", "label")
    rows = _checked(columns, names, f"examples of data {fingerprint}")
    values = {name: list(columns[name]) for name in names}
    values["example_id"] = values.pop("id")
    values["label"] = [_finite(value) for value in values["label"]]
    values["data"] = [fingerprint] * rows
    _write(path, schema.EXAMPLES, values, writer)


def _checked(columns: Mapping[str, Sequence[Any]], names: tuple[str, ...], what: str) -> int:
    """The number of rows, once the columns are the expected ones and of one length."""
    if not columns:
        return 0
    if sorted(columns) != sorted(names):
        raise StoreError(f"{what}: expected the columns {', '.join(names)}, got {', '.join(columns)}")
    lengths = {name: len(columns[name]) for name in names}
    if len(set(lengths.values())) != 1:
        raise StoreError(f"{what}: expected columns of one length, got {lengths}")
    return lengths[names[0]]


def _write(path: Path, table_schema: pa.Schema, values: dict[str, list[Any]], writer: str) -> None:
    try:
        table = schema.table(table_schema, values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StoreError(f"{path}: a value does not fit its column: {error}") from None
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(path, sink.getvalue().to_pybytes(), writer=writer, durable=True)


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
