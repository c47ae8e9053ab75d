"""Metrics of predictions under weights on the examples: resampled, or one half of dev."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Metric = Literal["accuracy", "pearson", "half_up"]
"""Accuracy; Pearson's r; or (1 + r)/2, as r enters the score."""


@dataclass(frozen=True, eq=False)
class TaskPredictions:
    """What runs predicted for the labelled examples of a task.

    Attributes:
        ids: of the examples, in ascending order. [examples]
        values: float64 [runs, examples]
        labels: float64 [examples]
    """

    task: str
    metric: Metric
    ids: np.ndarray
    values: np.ndarray
    labels: np.ndarray


def weighted(found: TaskPredictions, weights: np.ndarray) -> np.ndarray:
    """The metric of each run with examples weighted; nan where a correlation is undefined.

    Args:
        weights: not negative, each row with a sum above zero. [weightings, examples]

    Returns:
        float64 [weightings, runs]
    """
    total = weights.sum(axis=1, keepdims=True)
    if found.metric == "accuracy":
        accuracy: np.ndarray = weights @ (found.values == found.labels).T.astype(weights.dtype) / total
        return accuracy
    x = (found.values - found.values.mean(axis=1, keepdims=True)).T  # [examples, runs]; centred for precision
    y = (found.labels - found.labels.mean())[:, None]
    mean_x, mean_y, product, square_x, square_y = (
        weights @ each / total for each in (x, y, x * y, x * x, y * y)
    )
    spread = (square_x - mean_x**2) * (square_y - mean_y**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        r: np.ndarray = np.clip((product - mean_x * mean_y) / np.sqrt(spread), -1.0, 1.0)
    return r if found.metric == "pearson" else (1 + r) / 2
