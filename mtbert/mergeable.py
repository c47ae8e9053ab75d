"""Which runs can be merged: what each must be, and what all must have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from mtbert.configuration import Configuration
from mtbert.run import Run
from mtbert.schema import ConfigError
from mtbert.tasks import Task
from mtbert.techniques import LoRA, Orthogonal

MergeKind = Literal["ensemble", "average", "orthogonal"]
COMMON = ("features", "pairs", "max_length", "precision")
"""Fields of which a merged model has one for all tasks."""
_UNMERGED = {"backbone": "frozen", "parallel": None, "biases": "frozen", "merge": None}


def check(runs: Mapping[str, Run], kind: MergeKind, tasks: Mapping[str, Task]) -> None:
    """Every parent can be merged so, and all are alike in what the merged model has once.

    Args:
        runs: the parents, by the task that each gives.
        tasks: all of the data's.

    Raises:
        ConfigError: naming the parent and the field that stands in the way.
    """
    for task in runs:
        if task not in tasks:
            raise ConfigError(f"merge.parents: the data has no task {task!r}; it has {', '.join(tasks)}")
    if not runs:
        raise ConfigError("merge.parents: expected a trained run for each task, got none")
    first_task, first = next(iter(runs.items()))
    wanted = Orthogonal if kind == "orthogonal" else LoRA
    for task, run in runs.items():
        name, configuration = f"merge.parents.{task}: run {run.run_id}", run.configuration
        for field, value in _UNMERGED.items():
            if getattr(configuration, field) != value:
                raise ConfigError(f"{name}: {field}: expected {value or 'none'}, which alone can be merged")
        if not isinstance(configuration.low_rank, wanted):
            got = "none" if configuration.low_rank is None else configuration.low_rank.kind
            raise ConfigError(f"{name}: low_rank.kind: expected {wanted.kind} for this merge, got {got}")
        trained = _trained_tasks(configuration, tasks)
        if task not in trained:
            raise ConfigError(f"{name}: training.tasks: was trained on {', '.join(trained)}, not on {task}")
        for field, own, other in _alike(kind, run, first):
            if own != other:
                raise ConfigError(
                    f"{name}: {field}: expected {other!r} as in the parent of {first_task}, got {own!r}"
                )


def _alike(kind: MergeKind, run: Run, first: Run) -> Iterator[tuple[str, Any, Any]]:
    """What parents must agree in: the field, and both values."""
    one, other = run.configuration, first.configuration
    yield "data", run.data, first.data
    yield "model", run.model, first.model
    for field in COMMON:
        yield field, getattr(one, field), getattr(other, field)
    yield "heads.trained", one.heads.trained, other.heads.trained
    if kind == "ensemble" and one.low_rank is not None and other.low_rank is not None:
        yield "low_rank.layers", one.low_rank.layers, other.low_rank.layers  # one for all tasks
    if isinstance(one.low_rank, Orthogonal) and isinstance(other.low_rank, Orthogonal):
        yield "low_rank.basis", one.low_rank.basis, other.low_rank.basis


def _trained_tasks(configuration: Configuration, tasks: Mapping[str, Task]) -> list[str]:
    stages = configuration.stage_list()
    return [task for task in tasks if any(stage.tasks is None or task in stage.tasks for stage in stages)]
