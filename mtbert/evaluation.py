"""What a member predicts on a split, and the metrics of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbert.batches import Request, assemble, by_length, sequence_lengths
from mtbert.data.tokenise import TokenisedData, TokenSplit
from mtbert.devices import put
from mtbert.draws import generator
from mtbert.features import Features
from mtbert.losses import per_example, predicted
from mtbert.memory import is_out_of_memory
from mtbert.pack import Pack
from mtbert.tasks import Task, score, unscaled

TOKENS_PER_BATCH = 2048  # larger ones fall out of the caches of a core
TOKENS_PER_BATCH_ON_GPU = 32768
Row = list[Any]
"""[split, task, metric, value or null]"""


@dataclass(frozen=True, eq=False)
class Predictions:
    """One task's predictions on examples of a split, in the order of `indices`.

    Attributes:
        indices: int64 [examples], into the split.
        values: float64 [examples]: the class, 0 or 1, or the value.
        losses: float64 [examples], nan where there is no label.
    """

    indices: np.ndarray
    values: np.ndarray
    losses: np.ndarray

    def subset(self, indices: np.ndarray) -> Predictions:
        """Those at `indices`, which must be among these."""
        at = np.searchsorted(self.indices, indices)
        return Predictions(indices, self.values[at], self.losses[at])


def subset(split: TokenSplit, name: str, limit: int | None) -> np.ndarray:
    """A fixed subset of a split: the same for every run, in ascending order. int64 [examples]"""
    if limit is None or limit >= len(split.ids):
        return np.arange(len(split.ids))
    return np.sort(generator("subset", name).permutation(len(split.ids))[:limit])


@torch.no_grad()
def predict(
    pack: Pack,
    members: Sequence[int],
    task: Task,
    split: TokenSplit,
    indices: np.ndarray,
    data: TokenisedData,
    max_length: int,
    device: str,
    features: Callable[[Sequence[Request]], Features | None] = lambda _: None,
) -> list[Predictions]:
    """What members predict without dropout, in one pass over batches of sequences of like length.

    A batch that there is not memory enough for is halved.

    Args:
        members: who encode pairs alike.
        features: gives what reaches the heads, where the backbone need not run for it.
    """
    pairs = pack.admitted[members[0]].configuration.pairs
    lengths = sequence_lengths(split, pairs, max_length)[indices]
    labels = split.labels[indices]
    tokens = TOKENS_PER_BATCH if device == "cpu" else TOKENS_PER_BATCH_ON_GPU
    waiting = list(by_length(lengths, max(1, tokens // len(members))))
    order: list[np.ndarray] = []
    found: dict[int, list[Tensor]] = {member: [] for member in members}
    while waiting:
        at = waiting.pop()
        requests = [Request(member, task.name, split, indices[at], pairs) for member in members]
        try:
            batch = assemble(requests, data.special, max_length, device)
            results = pack.forward(batch, None, {}, features(requests))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(at) == 1:
                raise
            waiting += np.array_split(at, 2)
            continue
        known = put(np.tile(labels[at], len(members)), device)
        labelled = bool(np.isfinite(labels[at]).all())
        order.append(at)
        for result in results:
            values = predicted(task, result.outputs)
            of = known[: len(values)]  # the same for every member
            losses = (
                per_example(task, result.outputs, of).double() if labelled else torch.full_like(values, nan)
            )
            both = torch.stack([values, losses])
            for member, start, stop in result.members:
                found[member].append(both[:, start:stop])
    back = np.argsort(np.concatenate(order))
    answers = []
    for member in members:
        values, losses = torch.cat(found[member], dim=1).cpu().numpy()[:, back]
        answers.append(Predictions(indices, values, losses))
    return answers


def metrics(task: Task, found: Predictions, split: TokenSplit) -> dict[str, float | None]:
    """The task's metrics; None where one is undefined."""
    labels = split.labels[found.indices].astype(np.float64)
    values: dict[str, float | None] = {"loss": float(found.losses.mean())}
    if task.kind == "regression":
        return values | {"pearson": pearson(found.values, labels), "mse": values["loss"]}
    return values | {"accuracy": float((found.values == labels).mean())}


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """The correlation coefficient; None where one side is constant. [n], [n]"""
    if len(x) < 2:
        return None
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).sum()) * np.sqrt((y * y).sum())
    return float(np.clip((x * y).sum() / scale, -1.0, 1.0))


def rows(split: str, by_task: Mapping[str, Mapping[str, float | None]]) -> list[Row]:
    """Metrics as an evaluation's rows."""
    return [
        [split, task, metric, value] for task, values in by_task.items() for metric, value in values.items()
    ]


def summarised(
    tasks: Mapping[str, Task], by_task: Mapping[str, Mapping[str, float | None]]
) -> dict[str, float | None]:
    """Score and unscaled mean over all tasks of the data; null where a task was not evaluated."""
    values = {name: by_task[name][task.metric] if name in by_task else None for name, task in tasks.items()}
    return {"score": score(tasks, values), "unscaled": unscaled(tasks, values)}


def columns_of(by_task: Mapping[str, Predictions], data: TokenisedData, split: str) -> dict[str, list[Any]]:
    """Predictions as the columns of a table: task, example_id, prediction and label."""
    found: dict[str, list[Any]] = {"task": [], "example_id": [], "prediction": [], "label": []}
    for task, of in by_task.items():
        examples = data.splits[task, split]
        found["task"] += [task] * len(of.indices)
        found["example_id"] += [examples.ids[index] for index in of.indices]
        found["prediction"] += of.values.tolist()
        found["label"] += examples.labels[of.indices].astype(float).tolist()
    return found


def all_finite(by_task: Mapping[str, Predictions]) -> bool:
    """Whether all predictions and losses are numbers."""
    return all(np.isfinite(of.values).all() and np.isfinite(of.losses).all() for of in by_task.values())
