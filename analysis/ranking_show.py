"""The ranking as a table, and under it how sure it is that the first is the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.console import RenderableType

from analysis.leader import Behind, Leader, verdict
from analysis.ranking import RankedConfiguration
from analysis.show import Column, cell, is_loss, laid_out, shortened
from analysis.store.spread import column


def ranking_table(
    rows: Sequence[RankedConfiguration], width: int | None = None, leader: Leader | None = None
) -> RenderableType:
    """The ranking for a terminal: what tells the configurations apart beside what they reached.

    Args:
        leader: of the whole ranking, of which these are rows.
    """
    fields = list(rows[0].fields) if rows else []
    metrics = sorted(dict.fromkeys(name for row in rows for name in row.metrics), key=is_loss)
    by = rows[0].by if rows else "score"
    headers = shortened(fields, beside=(by, *metrics, "runs", "trainable", "seconds", "configuration"))
    columns = [
        Column("#", [str(row.rank) for row in rows], 0, True),
        Column(by, [_with_interval(row) for row in rows]),
        Column("runs", [_counted(row) for row in rows], 1),
        *_broken(rows),
        *_behind(rows, leader),
        *(
            Column(
                header, [cell(row.fields[name]) for row in rows], _telling(rows, name), _numeric(rows, name)
            )
            for name, header in zip(fields, headers, strict=True)
        ),
        *(
            Column(name, [cell(row.metrics.get(name)) for row in rows], 7 if is_loss(name) else 4, True)
            for name in metrics
        ),
        Column("min..max", [_range(row) for row in rows], 6),
        Column("trainable", [cell(row.trainable) for row in rows], 5, True),
        Column("seconds", ["-" if row.seconds is None else f"{row.seconds:.1f}" for row in rows], 5, True),
        Column("configuration", [row.config_id for row in rows], 2),
    ]
    title = f"{by}: mean ± half-width of its 95% interval over seeds"
    said = None if leader is None else f"\n{verdict(leader)}"
    if rows and all(row.breaks for row in rows):
        said = "\nNone keeps every constraint of the sweep, so that none is the best"
    return laid_out(columns, width, title if rows else None, said)


def ranking_rows(rows: Sequence[RankedConfiguration], leader: Leader | None) -> pa.Table:
    """The ranking as a table for machines, everything in it under its full name (docs/statistics.md)."""
    plain = (
        "rank",
        "config_id",
        "by",
        "mean",
        "half_width",
        "std",
        "low",
        "high",
        "runs",
        "without",
        "failed",
    )
    values = {name: column([getattr(row, name) for row in rows]) for name in plain}
    behind = [None if leader is None else leader.behind.get(row.config_id) for row in rows]
    differences = [None if each is None else each.difference for each in behind]
    values |= {
        "behind": _reals([None if each is None else each.value for each in differences]),
        "behind_half_width": _reals([None if each is None else each.half_width for each in differences]),
        "paired_seeds": pa.array([each and each.paired for each in behind], pa.int64()),
        "p": _reals([None if each is None else each.p for each in behind]),
        "told_apart": pa.array([each and each.told_apart for each in behind], pa.bool_()),
    }
    values |= {name: column([getattr(row, name) for row in rows]) for name in ("trainable", "seconds")}
    for name in dict.fromkeys(name for row in rows for name in row.metrics):
        values[name] = column([row.metrics.get(name) for row in rows])
    for name in rows[0].fields if rows else ():
        values.setdefault(name, column([row.fields[name] for row in rows]))
    values["breaks"] = pa.array([list(row.breaks) for row in rows], type=pa.list_(pa.string()))
    values["run_ids"] = pa.array([list(row.run_ids) for row in rows], type=pa.list_(pa.string()))
    return pa.table(values)


def _numeric(rows: Sequence[RankedConfiguration], name: str) -> bool:
    return all(isinstance(row.fields[name], (int, float, type(None))) for row in rows)


def _telling(rows: Sequence[RankedConfiguration], name: str) -> int:
    """The priority of a field: higher where it is the same in all configurations that have it."""
    return 1 if len({cell(row.fields[name]) for row in rows if row.fields[name] is not None}) > 1 else 3


def _counted(row: RankedConfiguration) -> str:
    """How many runs have a value, of how many, and how many failed."""
    whole = f"{row.runs} of {row.runs + row.without}" if row.without else str(row.runs)
    return f"{whole} (+{row.failed} failed)" if row.failed else whole


def _range(row: RankedConfiguration) -> str:
    return "-" if row.low is None else f"{cell(row.low)}..{cell(row.high)}"


def _with_interval(row: RankedConfiguration) -> str:
    if row.mean is None or row.half_width is None:
        return cell(row.mean) + ("" if row.mean is None else " ± none")
    return _spread(row.mean, row.half_width)


def _broken(rows: Sequence[RankedConfiguration]) -> list[Column]:
    """Which constraints of the sweep are broken, where any is."""
    found = [", ".join(row.breaks) for row in rows]
    return [Column("breaks", found, 1)] if any(found) else []


def _behind(rows: Sequence[RankedConfiguration], leader: Leader | None) -> list[Column]:
    """How far each is behind the leader, and whether it is told apart from it."""
    found = [None if leader is None else leader.behind.get(row.config_id) for row in rows]
    if not any(found):
        return []
    return [
        Column("behind", ["" if each is None else _distance(each) for each in found], 3),
        Column("told apart", ["" if each is None else _told_apart(each) for each in found], 2),
    ]


def _distance(behind: Behind) -> str:
    found = behind.difference
    return "-" if found is None else _spread(found.value, found.half_width)


def _told_apart(behind: Behind) -> str:
    if behind.difference is None:
        return "a single run"
    if behind.p is None:
        return "no spread"
    return f"{'yes' if behind.told_apart else 'no'}, p {'<0.001' if behind.p < 0.001 else f'{behind.p:.3f}'}"


def _reals(found: Sequence[float | None]) -> pa.Array[Any]:
    return pa.array(found, type=pa.float64())


def _spread(value: float, width: float) -> str:
    return f"{cell(value)} ± {width:.4f}" if abs(value) < 1e4 else f"{cell(value)} ± {width:.3g}"
