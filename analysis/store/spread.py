"""A configuration as dotted columns: `{"low_rank": {"rank": 4}}` as `low_rank.rank` = 4."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from analysis.store.records import canonical


def flat(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration's fields by dotted name, nulls and empty places left out.

    A list of plain values becomes text, `query,value`; any other list becomes JSON.
    """
    fields: dict[str, Any] = {}
    for name, value in configuration.items():
        if isinstance(value, Mapping):
            fields |= {f"{name}.{inner}": each for inner, each in flat(value).items()}
        elif isinstance(value, (list, tuple)):
            if value:
                fields[name] = _listed(value)
        elif value is not None:
            fields[name] = value
    return fields


def identity(run: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that tells a run's configuration from others: its fields, and what it was trained from."""
    beside = {name: run[name] for name in ("data", "model", "method_version") if run.get(name) is not None}
    return flat(settings) | beside


def differing(configurations: Iterable[Mapping[str, Any]]) -> list[str]:
    """The fields in which some of these differ, in the order in which they come up."""
    seen = list(configurations)
    names = dict.fromkeys(name for each in seen for name in each)
    return [name for name in names if len({canonical(each.get(name)) for each in seen}) > 1]


def column(values: Sequence[Any]) -> pa.Array[Any]:
    """The values as one column: booleans, whole numbers, numbers, or text where they are mixed."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds <= {bool}:
        return pa.array(values, type=pa.bool_() if present else pa.string())
    if kinds <= {int} and all(-(2**63) <= value < 2**63 for value in present):
        return pa.array(values, type=pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], type=pa.float64())
    texts = [value if value is None or isinstance(value, str) else canonical(value) for value in values]
    return pa.array(texts, type=pa.string())


def spread(runs: pa.Table) -> pa.Table:
    """The table `runs` with a column per metric and per field of the configurations.

    A configuration's field that is named as an earlier column (SQL takes no notice of case) is found as
    `configuration.<field>`.
    """
    parsed: dict[str, dict[str, Any]] = {}
    texts = [str(text) for text in runs["configuration"].to_pylist()]
    for text in texts:
        if text not in parsed:
            parsed[text] = flat(json.loads(text))
    metrics = [dict(pairs or ()) for pairs in runs["metrics"].to_pylist()]
    taken = {name.lower() for name in runs.column_names}
    for name in sorted({name for each in metrics for name in each}):
        if name.lower() not in taken:
            runs = runs.append_column(name, column([each.get(name) for each in metrics]))
            taken.add(name.lower())
    for name in dict.fromkeys(name for fields in parsed.values() for name in fields):
        free = name if name.lower() not in taken else f"configuration.{name}"
        runs = runs.append_column(free, column([parsed[text].get(name) for text in texts]))
        taken.add(free.lower())
    return runs


def _listed(values: Sequence[Any]) -> str:
    if all(isinstance(value, (str, int, float)) for value in values):
        return ",".join(str(value) for value in values)
    return canonical(values)
