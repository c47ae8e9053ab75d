"""A training made shorter by a factor, its shape kept: stages, epochs, and evaluations in their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtbert.configuration import Configuration, Evaluation, Training, parse
from mtbert.schedules import plan
from mtbert.schema import plain

FEWEST = 6
"""Steps that a shortened stage has at least, unless it had fewer."""
DEV_LIMIT = 128
"""Dev examples of each task that a shortened run sees before its end: evaluation would outweigh training."""


def shortened(configuration: Configuration, sizes: Mapping[str, int], factor: float) -> Configuration:
    """The configuration with `factor` times its steps.

    An epoch becomes shorter where it can, so that as many are left (annealing and sequential training go
    by epochs); there are fewer where an epoch would not have a step for each of its tasks. Random epochs,
    which are one task's pass each, become equally long ones. Evaluations stay at their places in the
    course; those before the last see a fixed part of dev.

    Args:
        sizes: training examples by task.

    Raises:
        ConfigError: a task that the data lacks.
    """
    if factor == 1:
        return configuration
    stages = [_shortened(stage, sizes, factor) for stage in configuration.stage_list()]
    data = plain(configuration)
    lengths = ("steps", "epochs", "steps_per_epoch")
    data["training"] = {key: value for key, value in data.get("training", {}).items() if key not in lengths}
    if configuration.stages:
        data["stages"] = [
            {key: value for key, value in given.items() if key not in lengths} | length
            for given, (length, _) in zip(data["stages"], stages, strict=True)
        ]
    else:
        data["training"] |= stages[0][0]
    ratio = min(kept for _, kept in stages)
    data["evaluation"] = {
        **data.get("evaluation", {}),
        **_evaluation(configuration.evaluation, factor, ratio),
    }
    return parse(data)


def _shortened(stage: Training, sizes: Mapping[str, int], factor: float) -> tuple[dict[str, Any], float]:
    """A stage's steps or epochs, steps per epoch, and what part of its epochs is left."""
    tasks = plan(stage, sizes, 0, 0).tasks
    epoch = _steps_per_epoch(stage, tasks, sizes)
    if stage.steps is not None:
        steps = max(min(stage.steps, FEWEST), round(stage.steps * factor))
        fewest = len(tasks) if stage.schedule.kind == "sequential" else 1
        return {"steps": steps, "steps_per_epoch": max(fewest, round(epoch * factor))}, 1.0
    epochs = stage.epochs or 3
    steps = max(min(FEWEST, round(epochs * epoch)), round(epochs * epoch * factor))
    left = min(epochs, max(1, steps // len(tasks)))
    return {"epochs": left, "steps_per_epoch": max(1, round(steps / left))}, left / epochs


def _steps_per_epoch(stage: Training, tasks: tuple[str, ...], sizes: Mapping[str, int]) -> float:
    """The steps of an epoch; of random epochs the mean."""
    if stage.steps_per_epoch is not None:
        return stage.steps_per_epoch
    if stage.schedule.kind == "random_epoch":
        return sum(-(-sizes[task] // stage.batch_size) for task in tasks) / len(tasks)
    return float(plan(stage, sizes, 0, 0).epoch_ends[0])


def _evaluation(evaluation: Evaluation, factor: float, epochs_left: float) -> dict[str, Any]:
    if evaluation.every is None:
        return {}
    by = factor if evaluation.unit == "steps" else epochs_left
    limit = DEV_LIMIT if evaluation.dev_limit is None else min(evaluation.dev_limit, DEV_LIMIT)
    return {"every": max(1, round(evaluation.every * by)), "dev_limit": limit}
