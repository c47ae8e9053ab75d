"""The lines that make a sweep and its runs known, as far as the ledger does not know them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from analysis.store.errors import StoreError
from analysis.store.facts import fullest
from analysis.store.files import checked_name
from analysis.store.records import encode
from analysis.store.state import State

_NEEDED = ("run_id", "config_id", "seed", "configuration")


def sweep_line(state: State, sweep: Mapping[str, Any]) -> list[bytes]:
    """The sweep's declaration, unless the same stands already, whenever it was declared."""
    name = checked_name(sweep.get("sweep"), "sweep")
    known = state.sweeps.get(name)
    if known is not None and _undated(known.declaration) == _undated(sweep):
        return []
    return [encode({"kind": "sweep", "sweep": dict(sweep), "time": time.time()})]


def introduction(
    state: State, run: Mapping[str, Any], sweep: str | None, point: Mapping[str, Any]
) -> list[bytes]:
    """What the run is, and that it belongs to the sweep at this point of its axes."""
    missing = [name for name in _NEEDED if name not in run]
    if missing:
        raise StoreError(f"a run needs {', '.join(_NEEDED)}: {', '.join(missing)} missing in {dict(run)!r}")
    run_id, lines = checked_name(run["run_id"], "run_id"), []
    known = state.runs.get(run_id)
    if known is None or (known.run != run and fullest(dict(run)) < fullest(known.run)):
        lines.append(encode({"kind": "run", "run_id": run_id, "run": dict(run)}))
    if sweep is not None:
        declared = state.sweeps.get(checked_name(sweep, "sweep"))
        there = None if declared is None else declared.points.get(run_id)
        if there is None or (point and there != point):
            record = {"kind": "point", "sweep": sweep, "run_id": run_id, "point": dict(point)}
            lines.append(encode(record | {"time": time.time()}))
    return lines


def _undated(declaration: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in declaration.items() if name != "declared"}
