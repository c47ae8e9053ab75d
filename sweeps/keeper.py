"""The keeper: the one process through which a driver and its workers write to the results folder.

A Ray actor on the driver's node, so that workers need no shared file system. What goes wrong with the
folder comes back as a `Failure` instead of an exception, because it ends the sweep and fails no run.
Every method may be called again with the same arguments: Ray does so when the keeper was killed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from analysis.store.errors import StoreError, Superseded
from analysis.store.ledger import Writer
from analysis.store.state import Occupied
from sweeps.plan import Reason, stopped_record, verdict

Answer = TypeVar("Answer")


class Failure(NamedTuple):
    """The results folder cannot be written or read: why, and the way out."""

    message: str


class Entry(NamedTuple):
    """Something a worker has to say of a run: which of the keeper's `write_*` methods takes `content`."""

    kind: str
    run_id: str
    attempt: int
    content: tuple[Any, ...]


class Opened(NamedTuple):
    """A run to be trained, what it goes on from, and the step at which it is stopped, if before its end."""

    run: dict[str, Any]
    checkpoint: bytes | None
    until: int | None


class Heard(NamedTuple):
    """The answer to a worker's entries: runs that a later attempt holds, and runs to leave as they stand."""

    superseded: list[str]
    left_out: frozenset[str]


class Granted(NamedTuple):
    """The answer to a claim: the attempt to train under, or null and why it was refused."""

    run_id: str
    attempt: int | None
    refused: str | None


def _told(method: Callable[..., Answer]) -> Callable[..., Answer | Failure]:
    """A method whose errors of the results folder come back as a `Failure`."""

    @functools.wraps(method)
    def telling(*args: Any) -> Answer | Failure:
        try:
            return method(*args)
        except (StoreError, OSError) as error:
            return Failure(str(error))

    return telling


class Keeper:
    """See the module. The folder is opened at the first call, so that even that can be answered."""

    def __init__(self, results: str, driver: str, sweep: str) -> None:
        self._results = results
        self._driver = driver
        self._sweep = sweep
        self._opened: Writer | None = None

    @property
    def _writer(self) -> Writer:
        if self._opened is None:
            self._opened = Writer(self._results, self._driver, self._sweep)
        return self._opened

    @_told
    def declare(self, sweep: dict[str, Any], points: list[dict[str, Any]]) -> None:
        """Records the sweep and its runs."""
        self._writer.declare(sweep, points)

    @_told
    def examples(self, fingerprint: str, columns: dict[str, list[Any]]) -> None:
        """Records the data's sentences, once for each fingerprint."""
        self._writer.examples(fingerprint, columns)

    @_told
    def begin(
        self,
        runs: Sequence[dict[str, Any]],
        sweep: str,
        retried: Sequence[str],
        occupied: Occupied | None = None,
        until: Mapping[str, int] | None = None,
    ) -> list[Granted]:
        """Claims runs for this driver, which trains none of them at this moment.

        Args:
            until: the step at which a run is to be stopped before its end, by id.
        """
        state = self._writer.refresh()
        granted = []
        for run in runs:
            run_id = run["run_id"]
            held = state.runs.get(run_id)
            if held is not None and held.status == "running" and held.driver == self._driver:
                # claimed by a call whose answer was lost with the keeper before this one
                self._writer.release(run_id, held.attempt, "released")
            claim = self._writer.begin(run, sweep, run_id in retried, occupied, (until or {}).get(run_id))
            granted.append(Granted(run_id, claim.attempt, claim.refused))
        return granted

    @_told
    def open(self, run_id: str, attempt: int) -> Opened | None:
        """What a worker needs to train a run; None where a later attempt holds it."""
        run = self._writer.refresh().runs[run_id]
        if run.attempt != attempt or run.status != "running":
            return None
        stored = self._writer.load_checkpoint(run_id)
        return Opened(dict(run.run), None if stored is None else stored[1], run.begins[attempt].until)

    @_told
    def given(self, trial: str, held: Sequence[str]) -> list[tuple[str, int]]:
        """The runs that the ledger gives to a trial of this driver and that it does not hold, with attempts.

        What a trial is told to take is in the ledger before: a keeper that was killed forgets nothing.
        """
        found = []
        for run_id, run in self._writer.refresh().runs.items():
            if run.status == "running" and run.driver == self._driver and run_id not in held:
                occupied = run.begins[run.attempt].occupied
                if occupied is not None and occupied.trial == trial:
                    found.append((run_id, run.attempt))
        return found

    @_told
    def record(self, entries: Sequence[Entry]) -> Heard:
        """Writes what a worker says, in order; the answer is what has been decided of its runs."""
        superseded: list[str] = []
        for entry in entries:
            if entry.run_id in superseded:
                continue
            try:
                getattr(self, f"_write_{entry.kind}")(entry.run_id, entry.attempt, *entry.content)
            except Superseded:
                superseded.append(entry.run_id)
        return Heard(superseded, self._writer.refresh().left_out(self._driver))

    @_told
    def compact(self) -> None:
        """Writes the tables, whole."""
        self._writer.compact()

    @_told
    def close(self) -> None:
        """Gives the driver's lock back; its claims lapse."""
        if self._opened is not None:
            self._opened.close()

    def _write_evaluation(self, run_id: str, attempt: int, record: dict[str, Any]) -> None:
        self._writer.evaluation(run_id, attempt, record)

    def _write_checkpoint(self, run_id: str, attempt: int, step: int, data: bytes) -> None:
        self._writer.checkpoint(run_id, attempt, step, data)

    def _write_end(
        self,
        run_id: str,
        attempt: int,
        record: dict[str, Any],
        predictions: dict[str, list[Any]],
        weights: bytes,
    ) -> None:
        self._writer.end(run_id, attempt, record, predictions, weights)

    def _write_stop(self, run_id: str, attempt: int, step: int) -> None:
        """A run left as it stands, whose checkpoint is stored; its score is the last there was."""
        evaluations = self._writer.refresh().runs[run_id].evaluations
        last = evaluations[-1] if evaluations else {"score": None}
        self._writer.end(run_id, attempt, stopped_record({**last, "step": step}), {}, b"")

    def _write_book(self, run_id: str, attempt: int, reason: Reason, detail: str) -> None:
        """An attempt given back: to the queue, or, after too many, for good."""
        run = self._writer.refresh().runs[run_id]
        if attempt in run.closed:
            return
        failed = verdict(run, reason, detail)
        if failed is None:
            self._writer.release(run_id, attempt, reason)
        else:
            self._writer.end(run_id, attempt, failed, {}, b"")


def start_keeper(results: str, driver: str, sweep: str) -> Any:
    """The keeper's handle; the actor is pinned to this process's node, and restarted whenever it dies."""
    here = ray.get_runtime_context().get_node_id()
    options = {
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
    }
    return ray.remote(Keeper).options(**options).remote(results, driver, sweep)
