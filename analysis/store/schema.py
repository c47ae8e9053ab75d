"""The tables' columns: the one place that fixes them.

Raise `VERSION` with every change. A change here changes no run id, and the tables of any version can be
made anew from the ledger.

Times are UTC without a zone, seconds are wall-clock, memory is in bytes. `metrics` maps names such as
`sst.accuracy` to values at the kept step; it and `configuration` (JSON) are spread into dotted columns
where somebody asks (`analysis.query`).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

VERSION = 2

_TIME = pa.timestamp("us")


def _schema(columns: list[tuple[str, Any]]) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns])


RUNS: pa.Schema = _schema(
    [
        ("run_id", pa.string()),
        ("config_id", pa.string()),
        ("seed", pa.int64()),
        (
            "status",
            pa.string(),
        ),  # waiting (declared, or given back), running, stopped, completed, diverged, failed
        ("score", pa.float64()),
        ("metrics", pa.map_(pa.string(), pa.float64())),
        ("steps", pa.int64()),
        ("kept_step", pa.int64()),
        ("attempt", pa.int32()),
        ("trainable", pa.int64()),
        ("total", pa.int64()),
        ("tokens", pa.int64()),
        ("seconds_training", pa.float64()),
        ("seconds_evaluation", pa.float64()),
        ("seconds_startup", pa.float64()),
        ("peak_memory", pa.int64()),
        ("device", pa.string()),
        ("host", pa.string()),
        ("driver", pa.string()),  # who holds a running run
        ("git_commit", pa.string()),
        ("git_dirty", pa.bool_()),
        ("versions", pa.string()),  # JSON: library → version
        ("data", pa.string()),  # fingerprints
        ("model", pa.string()),
        ("method_version", pa.int32()),
        ("error_kind", pa.string()),
        ("error_message", pa.string()),
        ("error_traceback", pa.string()),
        ("begun", _TIME),  # of the first attempt
        ("ended", _TIME),
        ("weights_bytes", pa.int64()),
        ("pruned", _TIME),  # when the weights were deleted to free their room
        ("tags", pa.list_(pa.string())),  # the run's own and its sweeps'
        ("configuration", pa.string()),  # JSON
    ]
)

SWEEPS: pa.Schema = _schema(
    [
        ("sweep", pa.string()),
        ("kind", pa.string()),
        ("objective", pa.string()),  # text as it is, anything else as JSON
        ("declared", _TIME),
        ("axes", pa.string()),  # JSON
        ("run_id", pa.string()),
        ("point", pa.string()),  # JSON: axis → value
    ]
)

EVALUATIONS: pa.Schema = _schema(
    [
        ("run_id", pa.string()),
        ("attempt", pa.int32()),
        ("step", pa.int64()),
        ("epoch", pa.float64()),
        ("split", pa.string()),  # train or dev
        ("task", pa.string()),  # empty for what is of all tasks
        ("metric", pa.string()),
        ("value", pa.float64()),  # null: undefined
        ("tokens", pa.int64()),
        ("seconds_training", pa.float64()),
        ("seconds_evaluation", pa.float64()),
        ("time", _TIME),
    ]
)

PREDICTIONS: pa.Schema = _schema(
    [
        ("run_id", pa.string()),
        ("task", pa.string()),
        ("example_id", pa.string()),
        ("prediction", pa.float64()),
        ("label", pa.float64()),
    ]
)

EXAMPLES: pa.Schema = _schema(
    [
        ("data", pa.string()),  # fingerprint
        ("task", pa.string()),
        ("split", pa.string()),
        ("example_id", pa.string()),
        ("first", pa.string()),
        ("second", pa.string()),
        ("label", pa.float64()),
    ]
)

TABLES: dict[str, pa.Schema] = {
    "runs": RUNS,
    "sweeps": SWEEPS,
    "evaluations": EVALUATIONS,
    "predictions": PREDICTIONS,
    "examples": EXAMPLES,
}


def table(schema: pa.Schema, columns: dict[str, list[Any]]) -> pa.Table:
    """A table of this schema from columns of Python values.

    Raises:
        pa.ArrowInvalid: a value that its column cannot hold.
    """
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
