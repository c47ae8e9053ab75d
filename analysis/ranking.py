"""The best configurations: runs grouped over their seeds, by the mean of what was asked for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis.stats import mean_over_seeds
from analysis.store.errors import StoreError
from analysis.store.spread import differing, identity
from analysis.store.state import RunState, State

BESIDE = ("score", "trainable", "total", "tokens", "seconds_training", "seconds_evaluation", "peak_memory")
"""What a run may be judged by beside the metrics of its tasks."""


@dataclass(frozen=True)
class RankedConfiguration:
    """A configuration over its seeds.

    Attributes:
        rank: from 1 on; those with a run that has no value come after those without, and of each those with a
            single run after those with several: one run is the higher the more were tried.
        runs: how many runs have a value.
        without: completed runs whose value is undefined, and diverged ones.
        failed: runs that ended without saying anything about the configuration.
        mean, std, low, high: of the value over the runs that have one; std needs two.
        metrics: means over the completed runs, by name.
        seconds: mean of training and evaluation together.
        fields: by dotted name, those in which the ranked configurations differ from each other.
        run_ids: the runs with a value, best first.
        by_seed: their values.
        breaks: the constraints of its sweep that it does not keep, as `ranked_within` finds them.
    """

    rank: int
    config_id: str
    by: str
    runs: int
    without: int
    failed: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    metrics: Mapping[str, float | None]
    trainable: int | None
    seconds: float | None
    fields: Mapping[str, Any]
    run_ids: tuple[str, ...]
    by_seed: Mapping[int, float]
    breaks: tuple[str, ...] = ()

    @property
    def half_width(self) -> float | None:
        """Of the 95% interval of the mean over seeds; None for a single run, which has none."""
        found = mean_over_seeds(list(self.by_seed.values()))
        return None if found is None else found.half_width


def ranked(
    state: State, sweep: str | None = None, by: str | None = None, lowest_first: bool = False
) -> list[RankedConfiguration]:
    """The configurations of all ended runs, best first.

    Args:
        sweep: only its runs; all for None.
        by: `score`, a metric such as `sst.accuracy`, or a number beside them such as `seconds_training`;
            None for the sweep's objective, which is the score unless it names another.
        lowest_first: the smallest value is the best.

    Raises:
        StoreError: no such sweep; no run has ended; no run has such a metric.
    """
    runs = ended_runs(state, sweep)
    by = by or objective(state, sweep)
    check_metric(runs, by)
    groups: dict[str, list[RunState]] = {}
    for run in runs:
        groups.setdefault(run.config_id, []).append(run)
    identities = {config_id: identity(group[0].run, group[0].settings) for config_id, group in groups.items()}
    names = differing(identities.values())
    rows = [
        _row(config_id, group, by, lowest_first, {name: identities[config_id].get(name) for name in names})
        for config_id, group in groups.items()
    ]

    def order(row: RankedConfiguration) -> tuple[bool, bool, bool, float, str]:
        mean = 0.0 if row.mean is None else row.mean if lowest_first else -row.mean
        return row.mean is None, row.without > 0, row.runs == 1, mean, row.config_id

    return [replace(row, rank=rank) for rank, row in enumerate(sorted(rows, key=order), 1)]


def ended_runs(state: State, sweep: str | None) -> list[RunState]:
    """The runs with a final ending, of a sweep or of all; a StoreError where there is none."""
    runs = state.runs_of(sweep)
    ended = [run for run in runs if run.final]
    if not ended:
        where = "in these results" if sweep is None else f"in sweep {sweep!r}"
        running = sum(run.status == "running" for run in runs)
        raise StoreError(
            f"no run has ended yet {where}: {len(runs)} known, {running} begun; "
            "`runs` shows how far they are, and the same sweep command goes on with them"
        )
    return ended


def objective(state: State, sweep: str | None) -> str:
    """What the sweep is judged by: the metric that it names, or the score."""
    named = None if sweep is None else state.sweep(sweep).objective
    return named if isinstance(named, str) else "score"


def value(run: RunState, by: str) -> float | None:
    """The value of a completed run; None where it is undefined, and for any other ending."""
    if run.status != "completed" or run.ended is None:
        return None
    beside = run.ended.get(by) if by in BESIDE else None
    found = (run.ended.get("metrics") or {}).get(by, beside)
    return None if found is None or not math.isfinite(found) else float(found)


def seconds(run: RunState) -> float | None:
    """Of training and evaluation of a completed run."""
    parts = [value(run, "seconds_training"), value(run, "seconds_evaluation")]
    return None if None in parts else sum(each or 0.0 for each in parts)


def cost(run: RunState, of: str) -> float | None:
    """What a completed run cost, as a search may weigh it: `seconds`, or `parameters` that were trained."""
    return seconds(run) if of == "seconds" else value(run, "trainable")


def check_metric(runs: Iterable[RunState], by: str) -> None:
    """Raises StoreError where no run knows the metric; names those there are."""
    known = {name for run in runs for name in ((run.ended or {}).get("metrics") or {})}
    if by not in known and by not in BESIDE:
        names = ", ".join([*sorted(known), *BESIDE])
        raise StoreError(f"no run has a metric {by!r}; known are {names}")


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not null; null where none is."""
    present = [each for each in values if each is not None]
    return statistics.fmean(present) if present else None


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation; null for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def _row(
    config_id: str, group: list[RunState], by: str, lowest_first: bool, fields: dict[str, Any]
) -> RankedConfiguration:
    found = [(each, run) for run in group if (each := value(run, by)) is not None]
    found.sort(key=lambda pair: (pair[0] if lowest_first else -pair[0], pair[1].run_id))
    values = [each for each, _ in found]
    records = [run.ended or {} for run in group if run.status == "completed"]
    metrics = dict.fromkeys(name for record in records for name in record.get("metrics") or {})
    times = [
        (record.get("seconds_training") or 0.0) + (record.get("seconds_evaluation") or 0.0)
        for record in records
    ]
    trainable = [(run.ended or {}).get("trainable") for run in group]
    failed = sum(run.status == "failed" for run in group)
    return RankedConfiguration(
        rank=0,
        config_id=config_id,
        by=by,
        runs=len(values),
        without=len(group) - len(values) - failed,
        failed=failed,
        mean=mean(values),
        std=deviation(values),
        low=min(values, default=None),
        high=max(values, default=None),
        metrics={
            name: mean([(record.get("metrics") or {}).get(name) for record in records]) for name in metrics
        },
        trainable=next((each for each in trainable if each is not None), None),
        seconds=mean(times),
        fields=fields,
        run_ids=tuple(run.run_id for _, run in found),
        by_seed={run.seed: each for each, run in found},
    )
