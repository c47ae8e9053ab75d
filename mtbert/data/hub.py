"""Tasks that lie on the hub, read with the `datasets` library (the extra `hub`)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from mtbert.data.errors import DataError
from mtbert.data.rows import Cells, Collected, Source, collect
from mtbert.tasks import Hub, Task

_BATCH = 10_000


def read_hub(task: Task, hub: Hub) -> dict[str, Collected]:
    """The examples of each declared split.

    Raises:
        DataError: the library is missing, the hub did not give the dataset, it lacks a split or a column,
            or a row cannot be.
    """
    name = "/".join(part for part in (hub.repository, hub.config) if part)
    found = _load(hub, name)
    assert task.columns is not None  # a task that lies anywhere names its columns
    collected = {}
    for split, theirs in hub.splits.items():
        if theirs not in found:
            raise DataError(f"hub {name}: expected a split {theirs!r}, got {', '.join(found)}")
        labelled = split != "test"
        source = Source(f"hub {name} {theirs}", "row", task, task.columns, task.labels, split, labelled)
        missing = [column for column in source.wanted if column not in found[theirs].column_names]
        if missing:
            raise DataError(
                f"{source.name}: expected a column {' and '.join(map(repr, missing))}, "
                f"got {', '.join(map(repr, found[theirs].column_names))}"
            )
        collected[split] = collect(source, _rows(found[theirs]))
    return collected


def _load(hub: Hub, name: str) -> Mapping[str, Any]:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"reading {name} from the hub needs the library datasets ({error}): pip install 'mtbert[hub]'"
        ) from None
    try:
        found: Mapping[str, Any] = datasets.load_dataset(hub.repository, hub.config, revision=hub.revision)
    except Exception as error:  # of a dozen kinds: network, missing dataset or config, a broken file
        said = str(error).strip().splitlines()
        raise DataError(
            f"hub {name}: not read ({type(error).__name__}: {said[0] if said else 'no reason given'}). "
            "Check the network and HF_ENDPOINT, or use --data FOLDER with the CS 224N files, or --data demo"
        ) from error
    return found


def _rows(split: Any) -> Iterator[tuple[int, Cells]]:
    """Each row's number, from 0 as the hub's viewer counts, and its cells."""
    number = 0
    for batch in split.iter(batch_size=_BATCH):
        for cells in zip(*batch.values(), strict=True):
            yield number, dict(zip(batch, cells, strict=True))
            number += 1
