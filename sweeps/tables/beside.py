"""A published table and what it came to here, as one value, and as tables for machines."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pyarrow as pa

from analysis.ranking import deviation
from analysis.stats import mean_over_seeds
from analysis.store.spread import column
from sweeps.tables.counts import COLUMNS as COUNTED
from sweeps.tables.counts import counted
from sweeps.tables.measured import PARTS, Measured
from sweeps.tables.plan import TablePlan
from sweeps.tables.published import Row
from sweeps.tables.verdicts import Comparison, Verdict, compared, judged


@dataclass(frozen=True)
class Beside:
    """A table's columns and claims, published and measured.

    Attributes:
        unlabelled: columns of test sets that have no labels here.
    """

    plan: TablePlan
    measured: Measured
    comparisons: Mapping[str, Comparison]
    verdicts: tuple[Verdict, ...]
    unlabelled: tuple[str, ...]

    @staticmethod
    def of(plan: TablePlan, measured: Measured, labelled: Collection[str]) -> Beside:
        """Everything that the table asks for.

        Args:
            labelled: the tasks whose test sets have labels.
        """
        table = plan.table
        columns = [name for name in table.columns if name not in COUNTED]
        return Beside(
            plan,
            measured,
            {name: compared(table, name, measured.values) for name in columns},
            tuple(judged(claim, table, measured.values) for claim in table.claims),
            tuple(name for name in columns if name.startswith("test.") and not _needs(name) <= set(labelled)),
        )

    def why_not_run(self, row: Row) -> str:
        """Why a row's runs, or some of them, are not run; empty where all are."""
        said = self.plan.reasons(row)
        return "; ".join(f"{name}: {reason}" if name else reason for name, reason in said.items())


def _needs(column: str) -> set[str]:
    """The tasks whose labels a column of test needs."""
    parts = PARTS if column == "test.score" else (column.removeprefix("test."),)
    return {part.split(".")[0] for part in parts}


def row_table(beside: Beside) -> pa.Table:
    """A row per row of the published table."""
    table = beside.plan.table
    columns: dict[str, Any] = {
        "table": pa.array([table.id] * len(table.rows)),
        "number": pa.array([row.number for row in table.rows]),
        "row": pa.array([row.label for row in table.rows]),
        "lines": pa.array([list(row.lines) for row in table.rows], pa.list_(pa.int64())),
        "not_run": pa.array([beside.why_not_run(row) or None for row in table.rows], pa.string()),
        "run_ids": pa.array([_run_ids(beside, row) for row in table.rows], pa.list_(pa.string())),
        "scale": pa.array([beside.plan.options.scale] * len(table.rows)),
    }
    for name in table.columns:
        columns |= _counts(table.rows, name) if name in COUNTED else _metric(beside, name)
    columns["settings"] = pa.array([_settings(row) for row in table.rows])
    return pa.table(columns)


def claim_table(beside: Beside) -> pa.Table:
    """A row per claim."""
    verdicts = beside.verdicts
    differences = [each.difference for each in verdicts]
    return pa.table(
        {
            "table": pa.array([beside.plan.table.id] * len(verdicts), pa.string()),
            "claim": pa.array([each.claim.says for each in verdicts], pa.string()),
            "lines": pa.array([list(each.claim.lines) for each in verdicts], pa.list_(pa.int64())),
            "metric": pa.array([each.claim.metric or None for each in verdicts], pa.string()),
            "holds": pa.array([each.answer for each in verdicts], pa.string()),
            "difference": pa.array([each and each.value for each in differences], pa.float64()),
            "half_width": pa.array([each and each.half_width for each in differences], pa.float64()),
            "why": pa.array([each.why or None for each in verdicts], pa.string()),
        }
    )


def _run_ids(beside: Beside, row: Row) -> list[str]:
    seeds = range(beside.plan.options.seeds)
    return [run_id for seed in seeds for run_id in beside.measured.run_ids(row, seed)]


def _counts(rows: tuple[Row, ...], name: str) -> dict[str, Any]:
    published = [row.figures[name].value if name in row.figures else None for row in rows]
    return {
        f"{name}.published": column(published),
        f"{name}.counted": column([counted(row, name) for row in rows]),
    }


def _metric(beside: Beside, name: str) -> dict[str, Any]:
    rows, found = beside.plan.table.rows, beside.comparisons[name]
    numbers = [row.number for row in rows]
    figures = [found.published.get(number) for number in numbers]
    samples = [found.samples[number] for number in numbers]
    reals = {
        "published": [figure and figure.value for figure in figures],
        "published_deviation": [figure and figure.deviation for figure in figures],
        "mean": [fmean(values) if values else None for values in samples],
        "half_width": [_half_width(values) for values in samples],
        "deviation": [deviation(values) for values in samples],
    }
    ranks = {"rank_in_paper": found.paper, "rank_here": found.here}
    beyond = [list(found.beyond.get(number, ())) for number in numbers]
    return {
        **{f"{name}.{part}": pa.array(values, pa.float64()) for part, values in reals.items()},
        f"{name}.runs": pa.array([len(values) for values in samples], pa.int64()),
        **{
            f"{name}.{part}": pa.array([of.get(number) for number in numbers], pa.int64())
            for part, of in ranks.items()
        },
        f"{name}.beyond_noise_of": pa.array(beyond, pa.list_(pa.int64())),
    }


def _half_width(values: tuple[float, ...]) -> float | None:
    found = mean_over_seeds(values)
    return None if found is None else found.half_width


def _settings(row: Row) -> str:
    """Every setting with its mark, by run, as JSON."""
    by_run = {
        run.name: {
            name: {
                "value": each.value,
                each.mark: list(each.lines),
                **({"why": each.why} if each.why else {}),
            }
            for name, each in {**run.settings, **_of_merge(row)}.items()
        }
        for run in row.runs
    }
    return json.dumps(by_run, ensure_ascii=False)


def _of_merge(row: Row) -> dict[str, Any]:
    return {f"merge.{name}": each for name, each in row.merge.items()}
