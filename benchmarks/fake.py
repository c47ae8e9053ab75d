"""Trainers and material to measure the sweep's machinery with: one that notes first steps, one that is idle.

Workers import this module, so that it imports no more than they have at hand.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import psutil

from mtbert.configuration import Configuration
from mtbert.memory import GpuMemory
from mtbert.records import Ended, Evaluated, Returned
from mtbert.run import Run
from sweeps.publish import LoadedMaterial, Workload, make_trainer

if TYPE_CHECKING:
    from mtbert.inputs import Inputs
    from sweeps.trainable import Trainer

Event = Evaluated | Ended | Returned
ONE_STEP = 1e-4
"""Seconds after which a trainer that was asked to advance comes back: after its first step."""


class WatchedTrainer:
    """A real trainer; a line in `notes` says when each run was admitted and had its first step behind it.

    A line is JSON: run_id, pid, admitted and stepped (seconds since 1970), memory (bytes that the process
    alone holds after that step).
    """

    def __init__(self, trainer: Trainer, notes: str) -> None:
        self._trainer, self._notes = trainer, notes
        self._admitted: dict[str, float] = {}

    @property
    def members(self) -> tuple[str, ...]:
        return self._trainer.members

    def admit(self, run: Run, checkpoint: bytes | None) -> None:
        self._admitted[run.run_id] = time.time()
        self._trainer.admit(run, checkpoint)

    def remove(self, run_id: str) -> None:
        self._trainer.remove(run_id)

    def checkpoint(self, run_id: str) -> bytes:
        return self._trainer.checkpoint(run_id)

    def step_of(self, run_id: str) -> int:
        return self._trainer.step_of(run_id)

    def memory(self) -> GpuMemory | None:
        return self._trainer.memory()

    def advance(self, seconds: float) -> Sequence[Event]:
        if not self._admitted:
            return self._trainer.advance(seconds)
        events = self._trainer.advance(ONE_STEP)
        stepped, memory = time.time(), psutil.Process().memory_full_info().uss
        for run_id, admitted in self._admitted.items():
            facts = {"run_id": run_id, "pid": os.getpid(), "admitted": admitted}
            with open(self._notes, "a", encoding="utf-8") as file:
                file.write(json.dumps({**facts, "stepped": stepped, "memory": memory}) + "\n")
        self._admitted.clear()
        return events


class WatchedMaterial(LoadedMaterial):
    """A real sweep's model and data, whose workers write down their runs' first steps."""

    def __init__(self, inputs: Inputs, notes: str) -> None:
        super().__init__(inputs)
        self._notes = notes

    @property
    def trainer(self) -> Callable[[Any], Trainer]:
        return make_watched_trainer

    def parcel(self, device: str) -> dict[str, Any]:
        return super().parcel(device) | {"notes": self._notes}


def make_watched_trainer(parcel: dict[str, Any]) -> Trainer:
    """What a worker calls."""
    return WatchedTrainer(make_trainer(parcel), parcel["notes"])


class IdleTrainer:
    """Trains nothing: each run is evaluated as often as asked, once for each turn, and ends at the last.

    A run's score is a number between 0 and 1 that its id alone decides.
    """

    def __init__(self, evaluations: int) -> None:
        self._evaluations = evaluations
        self._steps: dict[str, int] = {}

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self._steps)

    def admit(self, run: Run, checkpoint: bytes | None) -> None:  # noqa: ARG002 - a trainer's
        self._steps[run.run_id] = 0

    def remove(self, run_id: str) -> None:
        del self._steps[run_id]

    def checkpoint(self, run_id: str) -> bytes:  # noqa: ARG002 - a trainer's
        return b""

    def step_of(self, run_id: str) -> int:
        return self._steps[run_id]

    def memory(self) -> GpuMemory | None:
        return None

    def advance(self, seconds: float) -> Sequence[Event]:  # noqa: ARG002 - a trainer's
        """Evaluates every run that it holds once."""
        events: list[Event] = []
        for run_id in list(self._steps):
            self._steps[run_id] += 1
            step, score = self._steps[run_id], crc32(run_id.encode()) / 2**32
            costs = {"seconds_training": 0.0, "seconds_evaluation": 0.0, "tokens": 0}
            evaluation = {"step": step, "epoch": 0.0, "rows": [["dev", "", "score", score]], "score": score}
            events.append(Evaluated(run_id, evaluation | costs))
            if step == self._evaluations:
                ending: dict[str, Any] = {"status": "completed", "error": None, "step": step}
                ending |= {"kept_step": step, "score": score, "metrics": {}, "trainable": 0, "total": 0}
                ending |= {**costs, "seconds_startup": 0.0, "peak_memory": 0}
                ending |= {"device": "cpu", "host": "", "versions": {}}
                events.append(Ended(run_id, ending))
                del self._steps[run_id]
        return events


def make_idle_trainer(parcel: dict[str, Any]) -> Trainer:
    """What a worker calls."""
    return IdleTrainer(parcel["evaluations"])


class IdleMaterial:
    """What a sweep is given that trains nothing."""

    model, data, notices = "idle", "idle", ()
    sizes: Mapping[str, int] = MappingProxyType({"idle": 1})
    inputs: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, evaluations: int = 1) -> None:
        self._evaluations = evaluations

    @property
    def trainer(self) -> Callable[[Any], Trainer]:
        return make_idle_trainer

    def count(self, configuration: Configuration) -> Any:  # noqa: ARG002 - the protocol's
        return SimpleNamespace(trainable=0, total=0)

    def metrics(self, configuration: Configuration) -> tuple[str, ...]:  # noqa: ARG002 - the protocol's
        return ()

    def workload(self, configuration: Configuration) -> Workload:  # noqa: ARG002 - the protocol's
        return Workload(linear=1, tokens_per_step=1.0, tokens_per_evaluation=1.0, width=1, layers=1)

    def truncation(self, configuration: Configuration) -> str | None:  # noqa: ARG002 - the protocol's
        return None

    def parcel(self, device: str) -> dict[str, Any]:
        weights = {"none": np.zeros(1, dtype=np.float32)}
        return {"weights": weights, "device": device, "evaluations": self._evaluations}

    def examples(self) -> dict[str, list[Any]]:
        return {name: [] for name in ("id", "task", "split", "first", "second", "label")}
