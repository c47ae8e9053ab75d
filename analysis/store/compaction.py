"""Whole files made from the ledger: the snapshot and the Parquet tables, each replaced atomically.

Every table carries a stamp of the ledger it was made from, so that a reader knows whether it is up to
date; a table that is not is made from the ledger instead.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.store import schema
from analysis.store.errors import StoreError, told
from analysis.store.files import Layout, sync_folder, temporary_name
from analysis.store.locks import driver_alive, locked
from analysis.store.reader import Reader
from analysis.store.segments import segment_sizes
from analysis.store.snapshot import write_snapshot
from analysis.store.state import RunState, State
from analysis.store.tables import evaluation_tables, runs_table, sweeps_table

_ROWS = 250_000  # rows to gather before a row group is written


def compact(layout: Layout, reader: Reader, writer: str) -> None:
    """Writes the snapshot and the tables, unless they are up to date, and clears what the dead have left.

    Raises:
        StoreError: the disk is full or read-only; every file is still whole, the old or the new.
    """
    with locked(layout.compaction_lock, wait=600.0):
        state = reader.refresh()
        stamp = _stamp(layout, reader.sizes)
        if any(table_stamp(table_path(layout, name)) != stamp for name in schema.TABLES):
            write_snapshot(layout, reader.replay, reader.positions, writer)
            for name in schema.TABLES:
                _write_table(layout, name, _parts(layout, state, name), stamp, writer)
        _clear(layout, reader)


def table_path(layout: Layout, name: str) -> Path:
    return layout.tables / f"{name}.parquet"


def current_stamp(layout: Layout) -> str:
    """What a table that is up to date carries at this moment."""
    return _stamp(layout, segment_sizes(layout.segments))


def table_stamp(path: Path) -> str | None:
    """The stamp of a table; None where there is none, a damaged one, or one of another schema version."""
    with told(path, "read"):
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
    if metadata.get(b"schema_version") != str(schema.VERSION).encode():
        return None
    return metadata.get(b"ledger", b"").decode()


def prediction_files(layout: Layout, runs: Iterable[RunState]) -> list[Path]:
    """The files that the standing endings of these runs name."""
    endings = (run.ending for run in runs)
    names = [ending.predictions for ending in endings if ending is not None and ending.predictions]
    return [layout.predictions / name for name in names]


def example_files(layout: Layout) -> list[Path]:
    return sorted(path for path in layout.examples.glob("*.parquet") if not path.name.startswith("."))


def _parts(layout: Layout, state: State, name: str) -> Iterator[pa.Table]:
    if name == "runs":
        yield runs_table(state)
    elif name == "sweeps":
        yield sweeps_table(state)
    elif name == "evaluations":
        yield from evaluation_tables(state.runs_of(None))
    else:
        files = (
            prediction_files(layout, state.runs_of(None)) if name == "predictions" else example_files(layout)
        )
        yield from gathered(files, schema.TABLES[name])


def gathered(files: Iterable[Path], table_schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of many small files, in tables of many rows each."""
    parts, rows = [], 0
    for path in files:
        with told(path, "read"):
            try:
                parts.append(pq.ParquetFile(path).read().select(table_schema.names).cast(table_schema))
            except pa.ArrowInvalid as error:
                raise StoreError(f"{path}: damaged ({error}); put a good copy in its place") from None
        rows += parts[-1].num_rows
        if rows >= _ROWS:
            yield pa.concat_tables(parts)
            parts, rows = [], 0
    if parts:
        yield pa.concat_tables(parts)


def _write_table(layout: Layout, name: str, parts: Iterable[pa.Table], stamp: str, writer: str) -> None:
    path = table_path(layout, name)
    temporary = temporary_name(path, writer)
    metadata = {"schema_version": str(schema.VERSION), "ledger": stamp}
    with told(path, "write"):
        try:
            with open(temporary, "wb") as file:
                stamped = schema.TABLES[name].with_metadata(metadata)
                with pq.ParquetWriter(file, stamped, compression="zstd") as parquet:
                    for part in parts:
                        parquet.write_table(part.replace_schema_metadata(metadata))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def _stamp(layout: Layout, sizes: dict[str, int]) -> str:
    parts = [sorted(sizes.items()), [path.name for path in example_files(layout)]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _clear(layout: Layout, reader: Reader) -> None:
    """Deletes what writers left that died in the middle: half-written files, checkpoints of ended runs."""
    with locked(layout.lock), told(layout.results, "delete from"):  # nobody begins a run meanwhile
        state = reader.refresh()
        for path in layout.checkpoints.glob("[!.]*@*"):
            run = state.runs.get(path.name.split("@")[0])
            if run is not None and run.final:
                path.unlink(missing_ok=True)
        for folder in (*layout.folders, layout.ledger):
            for path in folder.glob(".*~*.tmp"):
                writer = path.name.rsplit("~", 1)[1].removesuffix(".tmp")
                if not driver_alive(layout.results, writer):
                    path.unlink(missing_ok=True)
