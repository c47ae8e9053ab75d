"""The sweep's own objects without Ray: actors are called directly, a trainer does what the test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from analysis.store import State, read
from mtbert.memory import GpuMemory
from mtbert.records import Ended, Evaluated
from mtbert.run import Run
from sweeps.declare import Grid
from sweeps.keeper import Failure, Keeper
from sweeps.placement import Needs
from sweeps.plan import Aims, Growth
from sweeps.searcher import Assignments
from sweeps.trainable import Pack, Shared

BASE = {"low_rank": {"kind": "lora"}, "training": {"steps": 4}}


def lone(run_id: str, attempt: int) -> dict[str, Any]:
    """The config of a trial of one run on a CPU."""
    return {"members": [[run_id, attempt]], "bundle": {"CPU": 1.0}, "where": {}}


class Handle:
    """An actor's handle whose calls happen at once."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._actor, name))


class ScriptedTrainer:
    """Does at each turn what the test says."""

    def __init__(
        self, turns: list[Callable[[ScriptedTrainer], list[Any]]], memory: GpuMemory | None = None
    ) -> None:
        self.turns, self._memory = turns, memory
        self.admitted: dict[str, bytes | None] = {}
        self.step = 0

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self.admitted)

    def admit(self, run: Run, checkpoint: bytes | None) -> None:
        if run.seed == 9:
            raise RuntimeError("cannot be admitted")
        self.admitted[run.run_id] = checkpoint

    def remove(self, run_id: str) -> None:
        del self.admitted[run_id]

    def step_of(self, _: str) -> int:
        return self.step

    def checkpoint(self, run_id: str) -> bytes:
        return f"{run_id} at {self.step}".encode()

    def memory(self) -> GpuMemory | None:
        return self._memory

    def advance(self, _: float) -> list[Any]:
        self.step += 1
        return self.turns.pop(0)(self) if self.turns else []


class Desk:
    """A results folder, its keeper, and packs over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.keeper = Keeper(self.folder, "driver", "grid")
        self.runs = {each.run.run_id: each.run for each in Grid("grid", BASE, {}, 10).runs("d", "m")}
        self.ids = list(self.runs)
        self.heard: list[tuple[str, str]] = []
        self.trainers: list[ScriptedTrainer] = []
        self.memory: GpuMemory | None = None

    def hear(self, run_id: str, _step: int, _score: float | None, status: str) -> None:
        self.heard.append((run_id, status))

    def state(self) -> State:
        return read(self.folder)

    def begin(self, *run_ids: str, until: Mapping[str, int] | None = None) -> list[list[Any]]:
        runs = [self.runs[run_id].as_json() for run_id in run_ids]
        granted = self.keeper.begin(runs, "grid", [], None, until)
        assert not isinstance(granted, Failure)
        return [[answer.run_id, answer.attempt] for answer in granted]

    def pack(
        self,
        members: list[list[Any]],
        *turns: Callable[[ScriptedTrainer], list[Any]],
        **config: Any,
    ) -> Pack:
        def make(_: Any) -> ScriptedTrainer:
            self.trainers.append(ScriptedTrainer(list(turns), self.memory))
            return self.trainers[-1]

        pack = Pack.__new__(Pack)  # its own __init__ asks Ray for the node's address
        pack.setup(
            {"members": members, **config},
            Shared(Handle(self.keeper), make, None),
        )
        return pack

    def assignments(self, **changes: Any) -> Assignments:
        targets = changes.pop("targets", dict.fromkeys(self.ids[:4], 4))
        given: dict[str, Any] = {
            "results": self.folder,
            "driver": "driver",
            "keeper": Handle(self.keeper),
            "sweep": {"sweep": "grid"},
            "runs": self.runs,
            "aims": lambda _: Aims(targets),
            "slots": 2,
            "needs": Needs(),
            "shares": False,
            "pack": 1,
            "retried": (),
            "more": lambda *_: Growth({}, []),
            "heard": self.hear,
        }
        return Assignments(**given | changes)


def evaluated(*run_ids: str) -> Callable[[ScriptedTrainer], list[Any]]:
    def turn(trainer: ScriptedTrainer) -> list[Any]:
        record = {"step": trainer.step, "epoch": 0, "rows": [], "score": 0.5}
        return [Evaluated(run_id, record) for run_id in run_ids]

    return turn


def ended(run_id: str) -> Callable[[ScriptedTrainer], list[Any]]:
    def turn(trainer: ScriptedTrainer) -> list[Any]:
        del trainer.admitted[run_id]
        return [Ended(run_id, {"status": "completed", "step": trainer.step, "score": 0.5, "metrics": {}})]

    return turn


def raising(error: Exception) -> Callable[[ScriptedTrainer], list[Any]]:
    def turn(_: ScriptedTrainer) -> list[Any]:
        raise error

    return turn
