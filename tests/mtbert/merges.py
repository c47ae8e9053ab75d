"""Parents that were not trained but have weights as if, and their merges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtbert.checkpoint import pack_tensors
from mtbert.merging import Merged, merged
from mtbert.run import Run
from mtbert.weights import BaseModel
from tests.mtbert import toys
from tests.mtbert.adapters.contract import disturbed

BASE = BaseModel("toy", toys.SMALL, toys.arrays(), Path("/nowhere"), "toy model")
ORDER = list(toys.TASKS)
Changes = dict[str, Any]
Parents = dict[str, tuple[Run, bytes]]
ALIKE: dict[str, Changes] = {task: {} for task in ORDER}


def orthogonal(**fields: Any) -> Changes:
    return {"low_rank": {"kind": "orthogonal", "rank": 4, "basis": 3, **fields}}


def parent(task: str, seed: int = 0, tasks: list[str] | None = None, **changes: Any) -> tuple[Run, bytes]:
    """A run that trained a task, and weights that are far from where it started."""
    fields = {"low_rank": toys.lora(), **changes}
    run = toys.run(seed, training={"tasks": tasks or [task]}, **fields)
    trained = tasks or [task]
    state = {
        name: value
        for name, value in disturbed(run, seed=ORDER.index(task)).items()
        if not any(f"heads.{other}." in name for other in ORDER if other not in trained)
    }
    return run, pack_tensors(state, {"run": run.as_json()})


def parents_of(by_task: Mapping[str, Changes]) -> Parents:
    return {task: parent(task, **changes) for task, changes in by_task.items()}


def merge(kind: Any, parents: Parents, weights: Mapping[str, float] | None = None) -> Merged:
    return merged(kind, parents, toys.TASKS, toys.SMALL, weights)
