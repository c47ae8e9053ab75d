"""Examples as all of this project knows them, and what is done to them before anything trains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtbert.data.errors import DataError
from mtbert.run import digest
from mtbert.tasks import Task

Splits = Mapping[tuple[str, str], Sequence["Example"]]
"""Examples by (task, split); splits are train, dev, test and holdout."""

_OF_RESULTS = ("name", "kind", "sentences", "classes", "low", "high", "metric", "score")


@dataclass(frozen=True, slots=True)
class Example:
    """A sentence or a pair, with its label: a class, 0 or 1, or a value on the task's own scale.

    `example_id` is unique within a task's split. `label` is None where it is not known (test alone).
    """

    example_id: str
    first: str
    second: str | None
    label: float | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tasks and their checked examples.

    Attributes:
        examples: by (task, split): train, dev, and where there is one test and holdout.
        notices: what a person should know of the reading: rows skipped, overlaps, limits.
        fingerprint: of all that can change a result: tasks, and the contents of train, dev and holdout.
        source: as it was asked for.
    """

    tasks: Mapping[str, Task]
    examples: Splits
    notices: tuple[str, ...]
    fingerprint: str
    source: str


def columns_of(dataset: Dataset) -> dict[str, list[Any]]:
    """Every example, as the columns of a table: id, task, split, first, second, label."""
    rows = [
        (each.example_id, task, split, each.first, each.second, each.label)
        for (task, split), examples in dataset.examples.items()
        for each in examples
    ]
    names = ("id", "task", "split", "first", "second", "label")
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def hold_out(task: str, train: Sequence[Example], part: float) -> tuple[list[Example], list[Example]]:
    """Train without its held-out part, and that part: `part` of it, rounded, one at least.

    Which examples are held out depends on their sentences alone, so that repeated sentences are held out
    together, and the held-out part is the same whatever limit is put on the rest.

    Raises:
        DataError: nothing would be left to train on.
    """
    keys = [_rank("holdout", task, example) for example in train]
    count = max(1, round(part * len(train)))
    last = sorted(keys)[count - 1]
    kept = [example for example, key in zip(train, keys, strict=True) if key > last]
    if not kept:
        raise DataError(
            f"{task}: holding out {part:g} of {len(train)} training examples leaves none to train on"
        )
    return kept, [example for example, key in zip(train, keys, strict=True) if key <= last]


def limited(task: str, train: Sequence[Example], limit: int) -> list[Example]:
    """A fixed choice of `limit` examples, or all, in their order; a smaller limit's are among them."""
    by_rank = sorted(range(len(train)), key=lambda index: (_rank("limit", task, train[index]), index))
    return [train[index] for index in sorted(by_rank[:limit])]


def overlapping(train: Sequence[Example], dev: Sequence[Example]) -> int:
    """How many dev examples have a training example's sentences, but for case, spacing and order."""
    known = {_sentences(example) for example in train}
    return sum(_sentences(example) in known for example in dev)


def fingerprint(tasks: Mapping[str, Task], examples: Splits) -> str:
    """Twelve hexadecimal digits of all that can change a result: tasks, and train, dev and holdout."""
    content = hashlib.sha256()
    for (task, split), of in sorted(examples.items()):
        if split != "test" and of:
            content.update(json.dumps([task, split, len(of)]).encode())
            for example in of:
                row = [example.example_id, example.first, example.second, example.label]
                content.update(json.dumps(row).encode())
    declared = [{name: getattr(task, name) for name in _OF_RESULTS} for task in tasks.values()]
    return digest({"tasks": declared, "examples": content.hexdigest()})


def _rank(purpose: str, task: str, example: Example) -> bytes:
    """Where an example stands in a draw of its own for the purpose: a fixed function of its sentences."""
    return hashlib.sha256(json.dumps([purpose, task, *_sentences(example)]).encode()).digest()


def _sentences(example: Example) -> tuple[str, ...]:
    """What makes two examples the same to a reader."""
    found = (example.first,) if example.second is None else (example.first, example.second)
    return tuple(sorted(" ".join(sentence.lower().split()) for sentence in found))
