"""Answers for machines: CSV, JSON and Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.store.errors import StoreError, told


def written(table: pa.Table, style: str) -> bytes:
    """The table as CSV (with a head line, null as nothing), JSON (a list of objects) or Parquet."""
    if style == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())
    columns = {name: values(table[name]) for name in table.column_names}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if style == "json":
        return (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode()
    if style != "csv":
        raise StoreError(f"format: expected table, csv, json or parquet, got {style!r}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows([_csv_cell(value) for value in row.values()] for row in rows)
    return text.getvalue().encode()


def save(data: bytes, path: Path) -> None:
    """Writes a file whole or not at all."""
    if path.is_dir():
        raise StoreError(f"{path}: is a folder; name a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with told(path, "write"):
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def values(array: pa.ChunkedArray[Any]) -> list[Any]:
    """The values as JSON has them: maps as objects, times as ISO text, null for what is not finite."""
    return [_plain(value) for value in array.to_pylist(maps_as_pydicts="lossy")]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (dict, list)) else value
