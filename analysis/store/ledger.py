"""All writes of one driver to one results folder.

What is written survives a SIGKILL of anybody at once. A power cut loses no ending and no declaration
(they are forced to the disk, and what an ending names before it), and at most the evaluations since.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from analysis.store.columns import write_examples, write_predictions
from analysis.store.compaction import compact
from analysis.store.errors import StoreError, Superseded, told
from analysis.store.facts import Facts
from analysis.store.files import Layout, write_whole
from analysis.store.introduction import introduction, sweep_line
from analysis.store.locks import DriverLock, driver_alive, locked
from analysis.store.provenance import commit
from analysis.store.reader import Reader
from analysis.store.records import encode, evaluation_line
from analysis.store.remote import Pusher, remote_of
from analysis.store.segments import Segment, new_segment
from analysis.store.state import FINAL, RANKS, Occupied, State, Tag
from analysis.store.weights import read_checkpoint, remove_checkpoints, weights_path, write_checkpoint

_REASONS = ("lost", "memory", "released")


@dataclass(frozen=True)
class Claim:
    """The answer to `begin`: an attempt number, or why there is none."""

    attempt: int | None
    refused: Literal["ended", "held"] | None = None


class Writer:
    """Writes the ledger as one driver, and holds that driver's lock while it lives.

    Not for several threads at once. A method that raises StoreError has changed nothing that counts.

    Args:
        results: the folder, or a URI; made where it is missing.
        driver: a name for the driver; one is made up for None. A process that takes over for a dead one
            of the same driver gives the same name, and goes on with its runs.
        sweep: what the driver works on, for those who look; None where it is no sweep.

    Raises:
        StoreError: the folder cannot be made, written or read, or the driver's name is in use; at a URI
            another machine writes.
    """

    def __init__(self, results: str | Path, driver: str | None = None, sweep: str | None = None) -> None:
        self.layout = Layout.of(results)
        with told(self.layout.results, "create folders in"):
            for folder in self.layout.folders:
                folder.mkdir(parents=True, exist_ok=True)
        if self.layout.uri is not None:
            remote_of(self.layout).pull()
            remote_of(self.layout).check_alone()
        self._lock = DriverLock(self.layout, driver, sweep)
        try:
            self._reader = Reader(results)
            self.refresh()
            if self.layout.uri is not None:
                remote_of(
                    self.layout
                ).push()  # so that other machines see the lock, and that it can be written
        except BaseException:
            self._lock.close()
            raise
        self._pusher = None if self.layout.uri is None else Pusher(remote_of(self.layout))
        self._segment: Segment | None = None  # made with the first record

    @property
    def driver(self) -> str:
        return self._lock.driver

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def refresh(self) -> State:
        """The whole ledger as of now, other drivers' segments included; reads only what is new."""
        return self._reader.refresh()

    def declare(self, sweep: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> None:
        """Says what a sweep is and which runs belong to it; what the ledger already has is not written again.

        Args:
            sweep: `{"sweep": name, "kind", "axes", "objective", "declared", …}`; "declared" may differ
                between otherwise equal declarations.
            points: `{"run": run JSON, "point": {axis: value}}`.
        """
        state = self.refresh()
        lines = sweep_line(state, sweep)
        for each in points:
            lines += introduction(state, each["run"], sweep["sweep"], each["point"])
        self._append(lines, durable=True)

    def examples(self, fingerprint: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Stores the examples of a data set, once per fingerprint: id, task, split, first, second, label."""
        self._lock.check()
        write_examples(self.layout, fingerprint, columns, self.driver)

    def begin(
        self,
        run: Mapping[str, Any],
        sweep: str | None = None,
        retry_failed: bool = False,
        occupied: Occupied | None = None,
        until: int | None = None,
    ) -> Claim:
        """Claims a run for this driver, unless it has ended or a living driver (this one too) holds it.

        A stopped run goes on, and so does one whose driver died; a failed one is begun again, from its
        start, only with `retry_failed`.

        Args:
            occupied: what it takes, with those that it shares a trial with; for whoever counts that.
            until: the step at which it is to be stopped, before its end.
        """
        revision, dirty = commit()
        with locked(self.layout.lock):
            self._lock.check()
            self._append(introduction(self.refresh(), run, sweep, {}))
            known = self.refresh().runs[run["run_id"]]
            if known.final and not (known.status == "failed" and retry_failed):
                return Claim(None, "ended")
            if known.driver is not None and driver_alive(self.layout.results, known.driver):
                return Claim(None, "held")
            held: dict[str, Any] = {"driver": self.driver, "commit": revision, "dirty": dirty}
            held |= {"sweep": sweep, "occupied": None if occupied is None else asdict(occupied)}
            held |= {} if until is None else {"until": until}
            self._append_record("begin", known.run_id, known.attempt + 1, **held)
        return Claim(known.attempt + 1)

    def evaluation(self, run_id: str, attempt: int, record: Mapping[str, Any]) -> None:
        """Stores an evaluation; one that this attempt has already told is not stored again.

        Raises:
            Superseded: the attempt is over, or a later one has begun.
            Fenced: this driver's lock is lost.
        """
        self._lock.check()
        if (record["step"], attempt) not in self._facts(run_id).evaluations:
            self._check(run_id, attempt)
            self._append([evaluation_line(run_id, attempt, time.time(), record)])

    def checkpoint(self, run_id: str, attempt: int, step: int, data: bytes) -> None:
        """Stores a checkpoint in place of the run's earlier ones.

        Raises:
            Superseded, Fenced: as for `evaluation`.
        """
        self._lock.check()
        self._check(run_id, attempt)
        known = self._facts(run_id).checkpoints.get(attempt)
        if known is not None and known["step"] >= step:
            return
        stored = write_checkpoint(self.layout, run_id, attempt, step, data, self.driver)
        self._append_record("checkpoint", run_id, attempt, step=step, size=stored.size, crc32=stored.crc)
        remove_checkpoints(self.layout, run_id, keep=stored)

    def load_checkpoint(self, run_id: str) -> tuple[int, bytes] | None:
        """Step and bytes of the run's checkpoint; None where it has to start at the beginning."""
        run = self.refresh().runs.get(run_id)
        if run is None or run.checkpoint is None:
            return None
        data = read_checkpoint(self.layout, run_id, run.checkpoint)
        return None if data is None else (run.checkpoint.step, data)

    def end(
        self,
        run_id: str,
        attempt: int,
        record: Mapping[str, Any],
        predictions: Mapping[str, Sequence[Any]],
        weights: bytes,
    ) -> None:
        """Stores a run's ending, and with it its predictions and best weights, all or nothing.

        An ending that this attempt has already told is not stored again. A final one takes the run's
        checkpoint with it; a stopped run keeps it.

        Raises:
            Superseded, Fenced: as for `evaluation`.
        """
        status = record["status"]
        if status not in RANKS:
            raise StoreError(f"run {run_id}: status: expected one of {', '.join(RANKS)}, got {status!r}")
        self._lock.check()
        told_before = self._facts(run_id).ends.get(attempt)
        if told_before is None or RANKS[told_before["record"]["status"]] < RANKS[status]:
            self._check(run_id, attempt, stopped=told_before is not None)
            file = write_predictions(self.layout, run_id, attempt, predictions, self.driver)
            if weights:
                path = weights_path(self.layout.results, run_id)
                write_whole(path, weights, writer=self.driver, durable=True)
            details = {"predictions": file, "weights": len(weights) or None, "record": dict(record)}
            self._append_record("end", run_id, attempt, durable=True, **details)
        if status in FINAL:
            remove_checkpoints(self.layout, run_id)

    def release(self, run_id: str, attempt: int, reason: Literal["lost", "memory", "released"]) -> None:
        """Gives a run back: `lost` (its process died), `memory` (for want of it), or `released`.

        Raises:
            Superseded, Fenced: as for `evaluation`; giving back twice, or after the ending, is no error.
        """
        if reason not in _REASONS:
            raise StoreError(f"run {run_id}: reason: expected one of {', '.join(_REASONS)}, got {reason!r}")
        self._lock.check()
        facts = self._facts(run_id)
        if attempt == facts.latest and attempt in facts.closed:
            return
        self._check(run_id, attempt)
        self._append_record("release", run_id, attempt, reason=reason, step=facts.step)

    def stop(self, what: Literal["sweep", "run"], name: str, drivers: Sequence[str]) -> None:
        """Asks drivers that live at this moment to end a sweep, or to leave a run as it stands."""
        record = {"kind": "stop", "what": what, "name": name, "drivers": sorted(drivers)}
        self._append([encode(record | {"time": time.time()})], durable=True)

    def tag(self, tag: Tag, present: bool = True) -> None:
        """Puts a label on a run or a sweep, or takes it away; what is so already is not written again."""
        if (tag in self.refresh().tags) == present:
            return
        known = self._reader.replay.tags.get(tag)
        last = 0.0 if known is None else known["time"] + 1e-3  # later, whatever the other's clock said
        fields = {**tag._asdict(), "present": present, "time": max(time.time(), last)}
        self._append([encode({"kind": "tag", **fields})], durable=True)

    def prune(self, run_id: str, what: Literal["weights", "checkpoint"]) -> None:
        """Says that a run's weights or its checkpoint, as they are now, are given up; then delete the file.

        Nothing is written where the run has none, or is being trained.
        """
        run = self.refresh().runs[run_id]
        if what == "checkpoint" and run.status != "running" and run.checkpoint is not None:
            self._append_record(
                "prune", run_id, run.checkpoint.attempt, True, what=what, of=run.checkpoint.crc
            )
        if what == "weights" and run.ending is not None and run.ending.weights and not run.ending.pruned:
            self._append_record("prune", run_id, run.ending.attempt, True, what=what, of=run.ending.time)

    def compact(self) -> None:
        """Writes the snapshot, then all tables as whole Parquet files, each atomically."""
        self._lock.check()
        compact(self.layout, self._reader, self.driver)

    def close(self) -> None:
        """Lets go: what this driver still holds, others may claim from now on."""
        segment, self._segment = self._segment, None
        try:
            if segment is not None:
                segment.sync()
        finally:
            if segment is not None:
                segment.close()
            self._lock.close()
            if self._pusher is not None:
                self._pusher.close()

    def _facts(self, run_id: str) -> Facts:
        """What is known of a run, other drivers' records since the last refresh left aside.

        While this driver's lock holds nobody else takes its runs, so of these it knows all.
        """
        facts = self._reader.replay.facts.get(run_id)
        if facts is None:
            raise StoreError(f"run {run_id!r} is not in this ledger: begin it before writing of it")
        return facts

    def _check(self, run_id: str, attempt: int, stopped: bool = False) -> None:
        """Raises Superseded unless the attempt is the latest, this driver's, and (unless stopped) open."""
        facts = self._facts(run_id)
        if attempt < facts.latest:
            raise Superseded(f"run {run_id}: attempt {attempt} is over, attempt {facts.latest} has begun")
        begin = facts.begins.get(attempt)
        if begin is None:
            raise StoreError(f"run {run_id}: attempt {attempt} was never begun")
        if begin["driver"] != self.driver:
            raise Superseded(f"run {run_id}: attempt {attempt} is held by driver {begin['driver']!r}")
        if attempt in facts.closed and not stopped:
            raise Superseded(f"run {run_id}: attempt {attempt} has ended or was given back")

    def _append_record(
        self, kind: str, run_id: str, attempt: int, durable: bool = False, **fields: Any
    ) -> None:
        head = {"kind": kind, "run_id": run_id, "attempt": attempt, "time": time.time()}
        self._append([encode(head | fields)], durable)

    def _append(self, lines: list[bytes], durable: bool = False) -> None:
        """Writes whole lines at once, and takes them in as any reader would."""
        if not lines:
            return
        self._lock.check()
        if self._segment is None:
            self._segment = new_segment(self.layout.segments, self.driver)
        start, end = self._segment.append(b"".join(lines))
        if durable:
            self._segment.sync()
        self._reader.take(self._segment.path.name, start, end, lines)
