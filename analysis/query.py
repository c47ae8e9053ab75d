"""Any SQL over the tables, at any moment: from Parquet where it is up to date, else from the ledger.

The tables are `runs` (metrics and configuration spread into dotted columns, to be quoted in SQL:
"low_rank.rank"), `sweeps`, `evaluations`, `predictions` and `examples`. A query sees nothing else: no
files, no network; and what it creates is gone when it ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from analysis.store import schema
from analysis.store.compaction import (
    current_stamp,
    example_files,
    prediction_files,
    table_path,
    table_stamp,
)
from analysis.store.errors import StoreError, told
from analysis.store.files import Layout
from analysis.store.locks import driver_alive
from analysis.store.reader import read
from analysis.store.remote import remote_of
from analysis.store.spread import spread
from analysis.store.state import State
from analysis.store.tables import evaluation_tables, runs_table, sweeps_table


def checked_folder(results: str | Path) -> Layout:
    """The layout of a folder that must hold a ledger."""
    layout = Layout.of(results)
    if layout.uri is not None:
        remote_of(layout).follow()
    if not layout.results.is_dir():
        raise StoreError(f"{results}: no such folder; give the --results folder of a sweep")
    if not layout.ledger.is_dir():
        raise StoreError(f"{results}: no results in this folder; give the --results folder of a sweep")
    return layout


def query(results: str | Path, sql: str, sweep: str | None = None) -> pa.Table:
    """The answer to any SQL (DuckDB) over the tables by name.

    Args:
        sweep: narrows every table to the runs of this sweep.

    Raises:
        StoreError: a wrong statement, in one line; an unknown sweep; a folder without results.
    """
    return Sources(results, sweep).ask(sql)


class Sources:
    """The tables of a results folder as they are at the moment of asking, and SQL over them."""

    def __init__(self, results: str | Path, sweep: str | None = None) -> None:
        self.layout = checked_folder(results)
        self.sweep = sweep
        self._stamp = current_stamp(self.layout)
        self._tables: dict[str, pa.Table | ds.Dataset] = {}

    def ask(self, sql: str) -> pa.Table:
        """The answer to a statement; see `query`."""
        connection = duckdb.connect(":memory:")
        try:
            connection.execute("SET enable_external_access = false")
            for name, empty in schema.TABLES.items():
                mentioned = re.search(rf"\b{name}\b", sql, re.IGNORECASE) is not None
                connection.register(name, self.table(name) if mentioned else empty.empty_table())
            connection.execute("SET lock_configuration = true")
            answer = connection.sql(sql)
            table: pa.Table = pa.table({"done": [True]}) if answer is None else answer.to_arrow_table()
            return table.rename_columns(_apart(table.column_names))
        except duckdb.Error as error:
            raise StoreError(_told(error)) from None
        finally:
            connection.close()

    @cached_property
    def state(self) -> State:
        return read(self.layout.results)

    @cached_property
    def run_ids(self) -> list[str] | None:
        """The runs of the sweep that is asked for; None where all are."""
        if self.sweep is None:
            return None
        with _undamaged(table_path(self.layout, "sweeps")):
            table = self._source("sweeps").to_table(filter=pc.field("sweep") == self.sweep)
        found = [str(run_id) for run_id in table["run_id"].to_pylist()]
        return found or list(self.state.sweep(self.sweep).points)

    def table(self, name: str) -> pa.Table | ds.Dataset:
        """A table, narrowed to the sweep; `runs` with its dotted columns."""
        if name not in self._tables:
            self._tables[name] = self._table(name)
        return self._tables[name]

    def _table(self, name: str) -> pa.Table | ds.Dataset:
        source = self._source(name)
        if self.run_ids is not None and "sweep" in source.schema.names:
            source = source.filter(pc.field("sweep") == self.sweep)
        elif self.run_ids is not None and "run_id" in source.schema.names:
            source = source.filter(pc.field("run_id").isin(pa.array(self.run_ids, pa.string())))
        if name != "runs":
            return source
        with _undamaged(table_path(self.layout, name)):
            return spread(self._with_the_living(source.to_table()))

    def _source(self, name: str) -> ds.Dataset:
        """The Parquet file, or what it would hold were it made now."""
        path = table_path(self.layout, name)
        if table_stamp(path) == self._stamp:
            return _mapped(path)
        runs = self.state.runs_of(self.sweep)
        if name == "runs":
            return ds.dataset(runs_table(self.state, self.sweep))
        if name == "sweeps":
            return ds.dataset(sweeps_table(self.state))
        if name == "evaluations":
            return ds.dataset(pa.concat_tables([schema.EVALUATIONS.empty_table(), *evaluation_tables(runs)]))
        files = prediction_files(self.layout, runs) if name == "predictions" else example_files(self.layout)
        return _dataset(files, schema.TABLES[name])

    def _with_the_living(self, runs: pa.Table) -> pa.Table:
        """`interrupted` in place of `running` where the driver that holds the run is dead."""
        statuses, drivers = runs["status"].to_pylist(), runs["driver"].to_pylist()
        dead = {
            driver
            for driver in {driver for driver in drivers if driver is not None}
            if not driver_alive(self.layout.results, driver)
        }
        shown = [
            "interrupted" if status == "running" and driver in dead else status
            for status, driver in zip(statuses, drivers, strict=True)
        ]
        index = runs.column_names.index("status")
        return runs.set_column(index, "status", pa.array(shown, type=pa.string()))


def quoted(condition: str, columns: Iterable[str]) -> str:
    """The condition with double quotes around names that are dotted columns, as SQL wants them."""
    dotted = {name for name in columns if "." in name}

    def replace(match: re.Match[str]) -> str:
        return f'"{match[0]}"' if match[0] in dotted else match[0]

    return re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|[A-Za-z_]\w*(?:\.\w+)+", replace, condition)


def _mapped(path: Path) -> ds.Dataset:
    """A Parquet file as it is now: what another process puts in its place later is not looked at."""
    with told(path, "read"), _undamaged(path):
        form, bytes_of_it = ds.ParquetFileFormat(), pa.memory_map(str(path)).read_buffer()
        fragment = form.make_fragment(bytes_of_it)  # type: ignore[arg-type]  # the stubs know files alone
        return ds.FileSystemDataset([fragment], fragment.physical_schema, form)


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        said = str(error).splitlines()[0]
        raise StoreError(f"{path}: damaged ({said}); delete it: it is made anew from the ledger") from error


def _dataset(files: list[Path], table_schema: pa.Schema) -> ds.Dataset:
    for path in files:
        with told(path, "read"):
            path.stat()
    return ds.dataset([str(path) for path in files], schema=table_schema, format="parquet")


def _apart(names: Sequence[str]) -> list[str]:
    """The names, those that come up again numbered from 2 on, by numbers that no other has."""
    found: list[str] = []
    for at, name in enumerate(names):
        taken = {*found, *names[at + 1 :]}
        numbered = (f"{name}_{number}" for number in count(2))
        found.append(name if name not in found else next(each for each in numbered if each not in taken))
    return found


def _told(error: duckdb.Error) -> str:
    """DuckDB's message in one line, with what to do about it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = " ".join(line for line in lines if not line.startswith(("LINE ", "^")))
    if 'Referenced table "' in message:
        message += '; a dotted column is written in double quotes: "low_rank.rank"'
    if "Table with name" in message:
        message = re.sub(r'Did you mean ".*"\?', f"the tables are {', '.join(schema.TABLES)}", message)
    return f"SQL: {message}"
