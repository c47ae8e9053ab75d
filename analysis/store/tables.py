"""The tables as Arrow, made from a state of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.store import schema
from analysis.store.collector import uncollected
from analysis.store.errors import StoreError
from analysis.store.records import canonical, dumps
from analysis.store.state import RunState, State

_OF_ROW = ("split", "task", "metric", "value")
_OF_RUN = ("data", "model", "method_version")
_OF_ENDING = ("score", "kept_step", "trainable", "total", "seconds_startup", "peak_memory", "device", "host")
_OF_PROGRESS = ("tokens", "seconds_training", "seconds_evaluation")
_BATCH = 1000  # runs whose evaluations are held in memory at a time


def runs_table(state: State, sweep: str | None = None) -> pa.Table:
    """A row per run, of a sweep or of all: what it is, and its standing ending or how far it has come."""
    with uncollected():
        rows = [_run_row(run, state.labels.get(run.run_id, ())) for run in state.runs_of(sweep)]
        return _table(schema.RUNS, rows)


def sweeps_table(state: State, sweeps: Iterable[str] | None = None) -> pa.Table:
    """A row per sweep and run of it; of the sweeps named, or of all."""
    chosen = state.sweeps.values() if sweeps is None else [state.sweep(name) for name in sweeps]
    rows = [
        {
            "sweep": sweep.name,
            "kind": sweep.kind,
            "objective": _text(sweep.objective),
            "declared": _time(sweep.declaration.get("declared")),
            "axes": canonical(sweep.declaration.get("axes")),
            "run_id": run_id,
            "point": canonical(point),
        }
        for sweep in chosen
        for run_id, point in sweep.points.items()
    ]
    return _table(schema.SWEEPS, rows)


def evaluation_tables(runs: Iterable[RunState]) -> Iterator[pa.Table]:
    """A row per evaluation, split, task and metric, in tables of many runs each."""
    remaining = iter(runs)
    while batch := list(islice(remaining, _BATCH)):
        with uncollected():
            table = _evaluations(batch)
        yield table


def _evaluations(runs: Sequence[RunState]) -> pa.Table:
    """The evaluations of some runs: what is said once per evaluation is repeated for its rows."""
    heads: list[dict[str, Any]] = []
    rows: list[Sequence[Any]] = []
    counts: list[int] = []
    for run in runs:
        for text in run.evaluations.texts:
            record = text.record
            heads.append(record | {"run_id": run.run_id, "attempt": text.attempt, "time": _time(text.time)})
            rows.extend(record.get("rows", ()))
            counts.append(len(record.get("rows", ())))
    head_schema = pa.schema([field for field in schema.EVALUATIONS if field.name not in _OF_ROW])
    indices = np.repeat(np.arange(len(heads), dtype=np.int64), counts)
    repeated = _table(head_schema, heads).take(indices)
    row_schema = pa.schema([schema.EVALUATIONS.field(name) for name in _OF_ROW])
    own = _columns(row_schema, {name: [row[at] for row in rows] for at, name in enumerate(_OF_ROW)})
    columns = [(own if name in _OF_ROW else repeated)[name] for name in schema.EVALUATIONS.names]
    return pa.Table.from_arrays(columns, schema=schema.EVALUATIONS)


def _run_row(run: RunState, labels: Sequence[str]) -> dict[str, Any]:
    record = run.ended or {}
    progress = record or (run.evaluations[-1] if run.evaluations else {})
    begin = run.begins.get(run.ending.attempt if run.ending else run.attempt)
    error = record.get("error") or {}
    versions = record.get("versions")
    return {
        **{name: run.run.get(name) for name in _OF_RUN},
        **{name: record.get(name) for name in _OF_ENDING},
        **{name: progress.get(name) for name in _OF_PROGRESS},
        "run_id": run.run_id,
        "config_id": run.config_id,
        "seed": run.seed,
        "status": run.status or "waiting",
        "metrics": list((record.get("metrics") or {}).items()),
        "steps": run.step,
        "attempt": run.attempt,
        "driver": run.driver,
        "git_commit": begin.commit if begin else None,
        "git_dirty": begin.dirty if begin else None,
        "versions": None if versions is None else canonical(versions),
        "error_kind": error.get("kind"),
        "error_message": error.get("message"),
        "error_traceback": error.get("traceback"),
        "begun": _time(run.begun),
        "ended": _time(run.ending.time) if run.ending else None,
        "weights_bytes": run.ending.weights if run.ending and run.ending.pruned is None else None,
        "pruned": _time(run.ending.pruned) if run.ending else None,
        "tags": list(labels),
        "configuration": dumps(run.settings).decode(),
    }


def _table(table_schema: pa.Schema, rows: Sequence[dict[str, Any]]) -> pa.Table:
    return _columns(table_schema, {name: [row.get(name) for row in rows] for name in table_schema.names})


def _columns(table_schema: pa.Schema, columns: dict[str, list[Any]]) -> pa.Table:
    try:
        return schema.table(table_schema, columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        bad = next(name for name in table_schema.names if not _fits(columns[name], table_schema.field(name)))
        raise StoreError(f"the ledger holds a value that does not fit the column {bad!r}: {error}") from None


def _fits(values: list[Any], field: pa.Field[Any]) -> bool:
    try:
        pa.array(values, type=field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def _time(value: Any) -> datetime | None:
    """UTC without a zone, from seconds since 1970 or ISO text; null for anything else."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC).replace(tzinfo=None)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else canonical(value)
