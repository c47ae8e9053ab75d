"""What runs predicted for dev, as far as it comes to the values that they are ranked by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.leader import Leader
from analysis.query import Sources
from analysis.ranking import RankedConfiguration
from analysis.selection import HalfAndHalf, half_and_half
from analysis.stats import Estimate, Metric, TaskPredictions, crossed_difference, weighted
from analysis.stats.crossed import LEAST_SEEDS

MOST = 10
"""Configurations among which the best is chosen again by halves; those further down are never chosen."""
_ROUNDING = 1e-6


def in_words(sources: Sources, leader: Leader) -> list[str]:
    """What the leader's place owes to the dev examples, as far as predictions tell."""
    said = []
    lead = over_examples(sources, leader)
    if lead is not None:
        beyond = "beyond chance" if lead.low > 0 else "not beyond chance"
        said.append(
            f"on other seeds and dev examples: a lead of {lead.value:.4f} ± {lead.half_width:.4f}, {beyond}"
        )
    halves = chosen_by_halves(sources, leader)
    if halves is not None:
        said.append(
            f"chosen on one half of dev, the best has {halves.reported:.4f} on the other: "
            f"{halves.optimism:.4f} less than where it was chosen"
        )
    return said


def over_examples(sources: Sources, leader: Leader) -> Estimate | None:
    """The leader's lead over the next where seeds and dev examples might both have been others.

    None with fewer than three shared seeds, or where predictions do not come to what is ranked by.
    """
    if not leader.others:
        return None
    one, other = leader.row, leader.others[0]
    seeds = sorted(one.by_seed.keys() & other.by_seed.keys())
    if len(seeds) < LEAST_SEEDS:
        return None
    sides = [outcomes(sources, row, seeds) for row in (one, other)]
    if sides[0] is None or sides[1] is None or not _alike(sides[0], sides[1]):
        return None
    return crossed_difference(sides[0], sides[1]).estimate


def chosen_by_halves(sources: Sources, leader: Leader) -> HalfAndHalf | None:
    """What the best scores on dev examples that had no part in its choice among the first ten."""
    rows = [leader.row, *leader.others][:MOST]
    found = [outcomes(sources, row, sorted(row.by_seed)) for row in rows]
    tasks = [each for each in found if each is not None]
    if len(tasks) < max(2, len(rows)) or not all(_alike(tasks[0], each) for each in tasks):
        return None
    return half_and_half(tasks)


def outcomes(
    sources: Sources, row: RankedConfiguration, seeds: Sequence[int]
) -> list[TaskPredictions] | None:
    """The predictions of a configuration's runs of these seeds, by task, in their order.

    None where they are not there, or do not come to what it is ranked by: that is neither the score nor an
    accuracy or a correlation.
    """
    run_ids = [f"{row.config_id}-{seed}" for seed in seeds]
    frame = _predictions(sources, run_ids)
    only, _, metric = row.by.rpartition(".")
    frame = frame[frame["task"] == only] if only else frame
    recorded = [row.by_seed[seed] for seed in seeds]
    correlations: tuple[Metric, ...] = ("pearson",) if only else ("half_up", "pearson")
    for correlation in correlations:
        tasks = [_task(str(name), own, run_ids, row, correlation) for name, own in frame.groupby("task")]
        known = [task for task in tasks if task is not None]
        if known and len(known) == len(tasks) and metric in ("score", *(each.metric for each in known)):
            reached = np.mean([weighted(each, np.ones((1, len(each.ids))))[0] for each in known], axis=0)
            if np.allclose(reached, recorded, rtol=0, atol=_ROUNDING):
                return known
    return None


def _predictions(sources: Sources, run_ids: Sequence[str]) -> pd.DataFrame:
    quoted = ", ".join("'" + run_id.replace("'", "''") + "'" for run_id in run_ids)
    return sources.ask(
        "select run_id, task, example_id, prediction, label from predictions "
        f"where label is not null and run_id in ({quoted}) order by task, example_id"
    ).to_pandas()


def _task(
    name: str, frame: pd.DataFrame, run_ids: Sequence[str], row: RankedConfiguration, correlation: Metric
) -> TaskPredictions | None:
    """One task's predictions; None where a run lacks any, or the task has no metric that is known."""
    wide = frame.pivot(index="example_id", columns="run_id", values="prediction")
    if set(wide.columns) != set(run_ids) or wide.isna().to_numpy().any():
        return None
    labels = frame.drop_duplicates("example_id").set_index("example_id")["label"].loc[wide.index]
    metric: Metric = "accuracy" if f"{name}.accuracy" in row.metrics else correlation
    if metric != "accuracy" and f"{name}.pearson" not in row.metrics:
        return None
    ids, values = wide.index.to_numpy(), wide[list(run_ids)].to_numpy().T
    return TaskPredictions(name, metric, ids, values, labels.to_numpy())


def _alike(one: Sequence[TaskPredictions], other: Sequence[TaskPredictions]) -> bool:
    """Whether both are over the same tasks and examples."""
    return [task.task for task in one] == [task.task for task in other] and all(
        np.array_equal(a.ids, b.ids) for a, b in zip(one, other, strict=True)
    )
