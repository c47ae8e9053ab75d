"""What a table's rows came to: each metric's values over the seeds, from the ledger and its predictions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean

from analysis.query import query
from analysis.store import RunState, State
from sweeps.tables.plan import TablePlan
from sweeps.tables.published import Row

PARTS = ("sst.accuracy", "para.accuracy", "sts.pearson")
"""What the reports' overall score is the mean of, the correlation r as (1 + r)/2."""
FROM_PREDICTIONS = ("rmse", "mae", "r2")
SUMMED = ("seconds_training", "seconds")

Metrics = Mapping[str, float]
"""By name, `sst.accuracy`; what is undefined is missing."""


class Measured:
    """The values of a plan's rows.

    Args:
        beside: by run, metrics that its ending does not hold.
        merged: by row number and seed, the run that was merged from the row's.
    """

    def __init__(
        self,
        plan: TablePlan,
        state: State,
        beside: Mapping[str, Metrics],
        merged: Mapping[tuple[int, int], str],
    ) -> None:
        self._plan, self._state, self._beside, self._merged = plan, state, beside, merged
        self._known: dict[tuple[int, int], Metrics] = {}

    def values(self, row: Row, metric: str) -> tuple[float, ...]:
        """Over the seeds whose runs have the metric."""
        found = (self._of_seed(row, seed).get(metric) for seed in range(self._plan.options.seeds))
        return tuple(value for value in found if value is not None)

    def statuses(self, row: Row) -> Counter[str]:
        """How the runs that give the row's figures stand: completed, diverged, failed, or waiting."""
        runs = [run for seed in range(self._plan.options.seeds) for run in self.run_ids(row, seed)]
        known = [self._state.runs.get(run_id) for run_id in runs]
        return Counter("waiting" if run is None or not run.final else str(run.status) for run in known)

    def run_ids(self, row: Row, seed: int) -> list[str]:
        """The runs that give the row's figures."""
        if row.merge:
            merged = self._merged.get((row.number, seed))
            return [] if merged is None else [merged]
        keys = [(row.number, run.name, seed) for run in row.runs]
        return [self._plan.runs[key].run_id for key in keys if key in self._plan.runs]

    def _of_seed(self, row: Row, seed: int) -> Metrics:
        key = row.number, seed
        if key not in self._known:
            ids = self.run_ids(row, seed)
            complete = len(ids) == (1 if row.merge else len(row.runs))
            self._known[key] = self._together([self._state.runs[each] for each in ids if self._ended(each)])
            if not complete:  # part of the row's runs cannot be run: what takes all of them is not known
                self._known[key] = {
                    name: value for name, value in self._known[key].items() if name not in SUMMED
                }
        return self._known[key]

    def _ended(self, run_id: str) -> bool:
        return run_id in self._state.runs and self._state.runs[run_id].status == "completed"

    def _together(self, runs: list[RunState]) -> Metrics:
        """The metrics of a row's runs as one model's."""
        each = [{**of_ending(run), **self._beside.get(run.run_id, {})} for run in runs]
        found: dict[str, float] = {}
        for metrics in each:
            for name, value in metrics.items():
                found[name] = found.get(name, 0.0) + value if name in SUMMED else value
        for prefix in ("", "test."):
            parts = [found[f"{prefix}{part}"] for part in PARTS if f"{prefix}{part}" in found]
            if len(parts) == len(PARTS):
                found[f"{prefix}score"] = overall(*parts)
        return found


def overall(sst: float, para: float, sts: float) -> float:
    """The reports' average: the mean of both accuracies and the correlation, rescaled to 0 to 1."""
    return (sst + para + (1 + sts) / 2) / 3


def of_ending(run: RunState) -> dict[str, float]:
    """A completed run's own metrics, times, and what its evaluations say of training."""
    ended = run.ended or {}
    training, evaluation = ended.get("seconds_training"), ended.get("seconds_evaluation")
    found: dict[str, float | None] = {
        name: value for name, value in (ended.get("metrics") or {}).items() if name != "score"
    }
    found["seconds_training"] = training
    found["seconds"] = None if training is None else training + (evaluation or 0.0)
    found["gap"] = _gap(run, ended.get("metrics") or {}, ended.get("kept_step"))
    found["training_loss"] = _training_loss(run)
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def from_predictions(results: Path, runs: Iterable[str]) -> dict[str, dict[str, float]]:
    """RMSE, mean absolute error and R² = 1 - MSE/variance of dev, by run, of each task's predictions."""
    wanted = ", ".join(f"'{run_id}'" for run_id in runs)
    if not wanted:
        return {}
    rows = query(
        results,
        "select run_id, task, avg(pow(prediction - label, 2)) as mse, avg(abs(prediction - label)) as mae, "
        f"var_pop(label) as variance from predictions where run_id in ({wanted}) group by run_id, task",
    ).to_pylist()
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        values = {"rmse": math.sqrt(row["mse"]), "mae": row["mae"]}
        if row["variance"]:
            values["r2"] = 1 - row["mse"] / row["variance"]
        of_run = found.setdefault(row["run_id"], {})
        of_run |= {f"{row['task']}.{name}": value for name, value in values.items()}
    return found


def _gap(run: RunState, on_dev: Mapping[str, float | None], kept: int | None) -> float | None:
    """By how much train is better than dev at the kept step, over the tasks; None without train."""
    record = next((each for each in run.evaluations if each["step"] == kept), None)
    if record is None:
        return None
    gaps = []
    for split, task, metric, value in record["rows"]:
        dev = on_dev.get(f"{task}.{metric}")
        if split == "train" and metric in ("accuracy", "pearson") and None not in (value, dev):
            gaps.append(value - dev)
    return fmean(gaps) if gaps else None


def _training_loss(run: RunState) -> float | None:
    """The mean over the tasks of the loss since the evaluation before the last."""
    if not run.evaluations:
        return None
    losses = [
        value
        for split, _, metric, value in run.evaluations[-1]["rows"]
        if split == "train" and metric == "training_loss" and value is not None
    ]
    return fmean(losses) if losses else None
