"""The numbers of parameters that a table prints, counted anew at the reports' size of model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import mtbert.data
from mtbert.configuration import Configuration
from mtbert.counts import Counts, count
from mtbert.member import trained_tasks
from mtbert.tasks import Task, read_tasks
from mtbert.weights import published_sizes
from sweeps.tables.published import Row

MODEL = "bert-base-uncased"
TRAINABLE, SHARE = "trainable", "share"
COLUMNS = (TRAINABLE, SHARE)


def counted(row: Row, column: str) -> float:
    """What the row trains: parameters, or their share of all in percent, what was added included.

    Report 002's share leaves the heads out; that of an ensemble is of all its parts, heads included.
    """
    counts = [_counts(run.configuration) for run in row.runs]
    if column == TRAINABLE:
        return float(sum(each.trainable for each in counts))
    kind = row.merge.get("kind")
    if kind is not None and kind.value == "ensemble":
        backbone = counts[0].parts["backbone"][1]
        updated = sum(each.trainable for each in counts)
        return 100 * updated / (backbone + updated)
    without = [
        (each.trainable - each.parts["heads"][0], each.total - each.parts["heads"][1]) for each in counts
    ]
    trainable, total = without[0]  # the runs of a row differ in their heads alone
    return 100 * trainable / total


def _counts(configuration: Configuration) -> Counts:
    return count(configuration, published_sizes()[MODEL], trained_tasks(configuration, _tasks()))


@cache
def _tasks() -> dict[str, Task]:
    """The reports' three tasks."""
    declared = read_tasks(Path(str(mtbert.data.__file__)).with_name("cs224n.yaml"))
    return {name: declared[name] for name in ("sst", "para", "sts")}
