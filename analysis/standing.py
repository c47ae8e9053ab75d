"""How a run stands among the seeds of its configuration, and where it came from: what a model card says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.ranking import mean, value
from analysis.stats import mean_over_seeds
from analysis.store.errors import StoreError
from analysis.store.state import RunState, State


@dataclass(frozen=True)
class Measure:
    """A metric on a split: of one run, and of its configuration over seeds.

    Attributes:
        own: the run's; null where it is undefined.
        mean: over the seeds that have a value; `half_width` of its 95% interval, null for fewer than two.
        seeds: those that have a value.
    """

    split: str
    name: str
    own: float | None
    mean: float | None
    half_width: float | None
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Standing:
    """
    Attributes:
        measures: on dev, the score first.
        sweeps: that the run belongs to.
        commit: of the code that trained it, and `dirty`: whether that differed; null where nobody knows.
        versions: of libraries.
    """

    measures: tuple[Measure, ...]
    sweeps: tuple[str, ...]
    commit: str | None
    dirty: bool | None
    versions: Mapping[str, str]


def standing(state: State, run_id: str) -> Standing:
    """The standing of a completed run.

    Raises:
        StoreError: it is not completed.
    """
    run = state.find(run_id)
    if run.status != "completed" or run.ending is None:
        raise StoreError(f"run {run.run_id} is {run.status or 'waiting'}; expected a completed run")
    seeds = {each.seed: each for each in replicates(state, run.config_id)}
    metrics = run.ending.record.get("metrics") or {}
    begin = run.begins.get(run.ending.attempt)
    return Standing(
        measures=tuple(
            measure("dev", name, {seed: value(each, name) for seed, each in seeds.items()}, run.seed)
            for name in ("score", *metrics)
        ),
        sweeps=tuple(sorted(name for name, sweep in state.sweeps.items() if run.run_id in sweep.points)),
        commit=None if begin is None else begin.commit,
        dirty=None if begin is None else begin.dirty,
        versions=run.ending.record.get("versions") or {},
    )


def measure(split: str, name: str, by_seed: Mapping[int, float | None], own: int) -> Measure:
    """A metric from its values by seed, `own` being that of the run in question."""
    values = {seed: each for seed, each in sorted(by_seed.items()) if each is not None}
    found = list(values.values())
    estimate = mean_over_seeds(found)
    width = None if estimate is None else estimate.half_width
    return Measure(split, name, by_seed.get(own), mean(found), width, tuple(values))


def best_replicate(state: State, config_id: str, by: str) -> RunState:
    """The completed run of a configuration with the highest value, the lowest seed among equals.

    A lone run needs no value.

    Raises:
        StoreError: no run of the configuration is completed, or there are several and none has a value.
    """
    runs = replicates(state, config_id)
    if not runs:
        raise StoreError(f"configuration {config_id}: no completed run in these results; train it first")
    values = {run.run_id: each for run in runs if (each := value(run, by)) is not None}
    if len(runs) > 1 and not values:
        raise StoreError(
            f"configuration {config_id}: none of its runs has a {by} to choose by; name one of "
            f"{', '.join(run.run_id for run in runs)}"
        )
    return max(runs, key=lambda run: (values.get(run.run_id, float("-inf")), -run.seed))


def replicates(state: State, config_id: str) -> list[RunState]:
    """The completed runs of a configuration, by seed."""
    found = (run for run in state.runs.values() if run.config_id == config_id)
    return sorted((run for run in found if run.status == "completed"), key=lambda run: run.seed)
