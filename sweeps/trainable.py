"""The Tune trainable: a worker that advances a pack of runs and sends all they say to the keeper.

A lone run is a pack of one. Whatever a step yields is in the ledger before Tune hears of it.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory

from mtbert.memory import GpuMemory, is_out_of_memory
from mtbert.records import Ended, Evaluated, Returned
from mtbert.run import Run
from sweeps.keeper import Entry, Failure, Heard, Opened
from sweeps.packing import Seen
from sweeps.plan import failed_record, stopped_record

CHECKPOINT_SECONDS = 60.0
PROGRESS_SECONDS = 5.0
MEASURED = "it has shown what it takes of a GPU"


class Trainer(Protocol):
    """What a worker asks of `mtbert.trainer.Trainer`; tests put their own in its place."""

    @property
    def members(self) -> tuple[str, ...]: ...
    def admit(self, run: Run, checkpoint: bytes | None) -> None: ...
    def advance(self, seconds: float) -> Sequence[Evaluated | Ended | Returned]: ...
    def checkpoint(self, run_id: str) -> bytes: ...
    def remove(self, run_id: str) -> None: ...
    def step_of(self, run_id: str) -> int: ...
    def memory(self) -> GpuMemory | None: ...


@dataclass(frozen=True)
class Shared:
    """What every worker of a sweep is given; read from its machine's object store without copying.

    Attributes:
        keeper: the handle of the keeper actor.
        trainer: makes a trainer from the parcel, in the worker.
        parcel: a reference to base weights and tokens. The arrays are mapped, not copied: nobody may write
            to them.
    """

    keeper: Any
    trainer: Callable[[Any], Trainer]
    parcel: Any


class Order(NamedTuple):
    """A run given out, and the attempt under which its worker writes."""

    run_id: str
    attempt: int


class SweepError(Exception):
    """Nothing is wrong with any run, but the sweep cannot go on."""


class Pack(tune.Trainable):
    """One trial: a trainer, its members and their attempts.

    The config is `members`, a list of orders; `bundle`, what Ray sets aside for the trial, and `where`, a
    label selector of nodes; where others join later, `trial`: its name in the ledger; and `measures` where
    the trial is to show in one turn what it takes of a GPU, and to give its members back.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """What Tune asks Ray for before it starts the trial."""
        where = [config["where"]] if config["where"] else None
        return PlacementGroupFactory([config["bundle"]], bundle_label_selector=where)

    def setup(  # type: ignore[override]  # `shared` comes from tune.with_parameters
        self, config: dict[str, Any], shared: Shared
    ) -> None:
        """Keeps what it was given; what can fail is left to `step`, which tells whose fault it is."""
        self._shared = shared
        self._trainer: Trainer | None = None
        self._attempts: dict[str, int] = {}
        self._checkpointed: dict[str, float] = {}
        self._leaving: list[str] = []
        self._joining: list[Order] = []
        self._admitting: str | None = None
        self._entries: list[Entry] = []
        self._runs: dict[str, tuple[int, float | None, str]] = {}
        self._until: dict[str, int | None] = {}
        self._take_over(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial takes this process over; its members are loaded in the first step."""
        self._take_over(new_config)
        return True

    def _take_over(self, config: dict[str, Any]) -> None:
        self._trial: str | None = config.get("trial")
        self._measures: bool = config.get("measures", False)
        self.apply(stop=tuple(self._attempts), join=config["members"])

    def apply(self, stop: Sequence[str], join: Sequence[Sequence[Any]]) -> None:
        """Decisions on the membership, carried out at the start of the next step."""
        self._leaving.extend(stop)
        self._joining.extend(Order(*order) for order in join)

    def step(self) -> dict[str, Any]:
        """Advances to the next evaluation or ending, or for some seconds, and tells the keeper.

        Returns:
            `runs`: [run id, step, score or null, status] of each run at the end of this step;
            `seen`: what `packing.Seen` has of the turn, or null on a CPU;
            `most`: how many members there was memory for, or null where nobody had to be given back;
            `failure`: why the sweep cannot go on, or null; `done`: whether no member is left.
        """
        failure, crash = None, None
        self._entries, self._runs = [], {}
        self._seen: Seen | None = None
        self._most: int | None = None
        try:
            self._change_members()
            self._advance()
        except SweepError as error:
            failure = str(error)
        except Exception as error:
            crash = error
            self._blame(error)
        try:
            self._tell()
        except SweepError as error:
            failure = str(error)
        if crash is not None and failure is None:
            raise crash  # a process that met the unexpected is not used again; all is booked by now
        runs = [[run_id, *said] for run_id, said in self._runs.items()]
        done = failure is not None or not self._attempts
        return {"runs": runs, "seen": self._seen, "most": self._most, "failure": failure, "done": done}

    def _change_members(self) -> None:
        if self._trainer is None:
            try:
                self._trainer = self._shared.trainer(ray.get(self._shared.parcel))
            except Exception as error:
                where = f"{type(error).__name__}: {error}"
                raise SweepError(f"a worker could not make its trainer: {where}") from error
        while self._leaving:
            self._forget(self._leaving.pop())
        if self._trial is not None and not self._joining:
            given = self._ask(self._shared.keeper.given.remote(self._trial, list(self._attempts)))
            self.apply(stop=(), join=given)
        while self._joining:
            order = self._joining.pop(0)
            opened: Opened | None = self._ask(self._shared.keeper.open.remote(*order))
            if opened is None:
                self._runs[order.run_id] = (0, None, "superseded")
                continue
            self._attempts[order.run_id] = order.attempt
            self._until[order.run_id] = opened.until
            self._admitting = order.run_id
            self._trainer.admit(Run.from_json(opened.run), opened.checkpoint)
            self._admitting = None
            self._checkpointed[order.run_id] = time.monotonic()

    def _advance(self) -> None:
        """One turn of the trainer; what it returned becomes entries for the keeper."""
        trainer = self._trainer
        if trainer is None or not self._attempts:
            return
        events = self._turn(trainer)
        for said in events:
            if isinstance(said, Evaluated):
                self._add("evaluation", said.run_id, said.record)
                self._runs[said.run_id] = (said.record["step"], said.record["score"], "running")
                self._checkpointed[said.run_id] = float("-inf")
            elif isinstance(said, Ended):
                self._add("end", said.run_id, said.record, said.predictions, said.weights)
                self._runs[said.run_id] = (said.record["step"], said.record["score"], said.record["status"])
                self._forget(said.run_id)
            else:
                self._release(said.run_id, said.step, said.checkpoint, said.reason)
                self._most = len(self._attempts)
        for said in events:
            if isinstance(said, Evaluated) and said.run_id in self._attempts:
                self._stop_at_rung(trainer, said)
        for run_id in list(self._attempts) if self._measures and self._seen else ():
            self._release(run_id, trainer.step_of(run_id), trainer.checkpoint(run_id), MEASURED)
        for run_id in self._attempts:
            step = trainer.step_of(run_id)
            score = self._runs.get(run_id, (0, None, ""))[1]
            self._runs[run_id] = (step, score, "running")
            if time.monotonic() - self._checkpointed[run_id] >= CHECKPOINT_SECONDS:
                self._add("checkpoint", run_id, step, trainer.checkpoint(run_id))
                self._checkpointed[run_id] = time.monotonic()

    def _turn(self, trainer: Trainer) -> Sequence[Evaluated | Ended | Returned]:
        """What the trainer says of one turn, and what was seen of all its members at work."""
        before = {run_id: trainer.step_of(run_id) for run_id in self._attempts}
        began = time.perf_counter()
        events = trainer.advance(PROGRESS_SECONDS)
        seconds = time.perf_counter() - began
        memory = trainer.memory()
        if memory is not None:
            ends = {said.run_id: said.record["step"] for said in events if isinstance(said, Ended)}
            now = {run_id: trainer.step_of(run_id) for run_id in trainer.members} | ends
            steps = sum(now[run_id] - step for run_id, step in before.items() if run_id in now)
            self._seen = Seen(len(before), memory.peak, memory.used, memory.total, steps / seconds)
        return events

    def _release(self, run_id: str, step: int, checkpoint: bytes, reason: str) -> None:
        """Gives a run back, to go on elsewhere from its checkpoint."""
        self._add("checkpoint", run_id, step, checkpoint)
        self._add("book", run_id, "released", reason)
        self._runs[run_id] = (step, None, "released")
        self._forget(run_id)

    def _stop_at_rung(self, trainer: Trainer, said: Evaluated) -> None:
        """Stops a run that has reached its rung where it stands, its checkpoint stored first."""
        run_id, step = said.run_id, said.record["step"]
        until = self._until[run_id]
        if until is None or step < until:
            return
        self._add("checkpoint", run_id, trainer.step_of(run_id), trainer.checkpoint(run_id))
        self._add("end", run_id, stopped_record(said.record), {}, b"")
        self._forget(run_id)
        self._runs[run_id] = (step, said.record["score"], "stopped")

    def _blame(self, error: Exception) -> None:
        """Books every member after an exception: a lone culprit's run failed, others may go on elsewhere."""
        culprits = [self._admitting] if self._admitting else list(self._attempts)
        message = f"{type(error).__name__}: {error}"
        for run_id in list(self._attempts):
            if run_id not in culprits:
                self._add("book", run_id, "released", message)
            elif is_out_of_memory(error):
                self._add("book", run_id, "memory", message)
            elif len(culprits) > 1:
                self._add("book", run_id, "lost", message)
            else:
                record = failed_record("error", message, "".join(traceback.format_exception(error)))
                self._add("end", run_id, record, {}, b"")
            self._attempts.pop(run_id)
        for order in self._joining:  # behind one that could not be admitted
            self._entries.append(Entry("book", order.run_id, order.attempt, ("released", message)))
        self._joining.clear()

    def _tell(self) -> None:
        """Sends the entries to the keeper and waits for its answer, which carries what was decided elsewhere.

        Runs that another driver has taken over are dropped; those to be left as they stand are stopped.
        """
        while self._entries or self._attempts:
            heard: Heard = self._ask(self._shared.keeper.record.remote(self._entries))
            self._entries = []
            for run_id in heard.superseded:
                self._forget(run_id)
                self._runs[run_id] = (0, None, "superseded")
            leaving = [run_id for run_id in self._attempts if run_id in heard.left_out]
            if not leaving:
                return
            for run_id in leaving:
                self._leave_standing(run_id)

    def _leave_standing(self, run_id: str) -> None:
        """Stops a run between its evaluations, its checkpoint stored first."""
        assert self._trainer is not None
        step = self._trainer.step_of(run_id)
        self._add("checkpoint", run_id, step, self._trainer.checkpoint(run_id))
        self._add("stop", run_id, step)
        self._forget(run_id)
        self._runs[run_id] = (step, None, "stopped")

    def _add(self, kind: str, run_id: str, *content: Any) -> None:
        self._entries.append(Entry(kind, run_id, self._attempts[run_id], content))

    def _forget(self, run_id: str) -> None:
        self._attempts.pop(run_id, None)
        self._checkpointed.pop(run_id, None)
        self._until.pop(run_id, None)
        if self._trainer is not None and run_id in self._trainer.members:
            self._trainer.remove(run_id)

    def _ask(self, answer: Any) -> Any:
        """The keeper's answer; its failure, or its end, ends the sweep and fails no run."""
        try:
            value = ray.get(answer)
        except ray.exceptions.RayError as error:
            raise SweepError(f"the keeper does not answer: {error}") from error
        if isinstance(value, Failure):
            raise SweepError(value.message)
        return value
