"""From records to state. The order of the records, and how often each is read, make no difference.

Every fact has a key (this run's evaluation at step 100, this attempt's ending), and where two records
speak of one key a total order decides which stands; so any permutation, any duplication, and any cut
into a snapshot and a rest settle to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from analysis.store.records import Entry, EvaluationText, canonical
from analysis.store.state import (
    FINAL,
    RANKS,
    Begin,
    Checkpoint,
    Ending,
    Evaluations,
    Occupied,
    RunState,
    State,
    Status,
    Stop,
    SweepState,
)

Record = dict[str, Any]
Key = TypeVar("Key")


@dataclass(slots=True)
class Facts:
    """The settled records of one run: what stands, by key."""

    run: Record | None = None
    begins: dict[int, Record] = field(default_factory=dict)
    releases: dict[int, Record] = field(default_factory=dict)
    checkpoints: dict[int, Record] = field(default_factory=dict)
    evaluations: dict[tuple[int, int], EvaluationText] = field(default_factory=dict)  # by step, attempt
    ends: dict[int, Record] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Takes a record of any kind but an evaluation."""
        kind, attempt = record["kind"], record.get("attempt", 0)
        if kind == "run":
            self.run = record if self.run is None else min(self.run, record, key=fullest)
        elif kind == "begin":
            _settle(self.begins, attempt, record, _earliest)
        elif kind == "release":
            _settle(self.releases, attempt, record, _earliest)
        elif kind == "checkpoint":
            _settle(self.checkpoints, attempt, record, lambda each: (-each["step"], canonical(each)))
        elif kind == "end":
            _settle(self.ends, attempt, record, _ending_order)

    def add_evaluation(self, evaluation: EvaluationText) -> None:
        """Takes an evaluation."""
        key = evaluation.step, evaluation.attempt
        known = self.evaluations.get(key)
        if known is None or (evaluation.time, evaluation.text) < (known.time, known.text):
            self.evaluations[key] = evaluation

    @property
    def latest(self) -> int:
        """The highest attempt there is a record of; 0 for none."""
        return max((*self.begins, *self.ends), default=0)

    @property
    def closed(self) -> frozenset[int]:
        """The attempts that ended or were given back."""
        return frozenset((*self.releases, *self.ends))

    @property
    def step(self) -> int:
        """The furthest step that the run is known to have reached since it last began at the start."""
        run = self.state()
        return 0 if run is None else run.step

    def state(self) -> RunState | None:
        """The run as these records have it; None while its declaration is not among them."""
        if self.run is None:
            return None
        latest, closed, last = self.latest, self.closed, self._last()
        standing = max(self.ends.values(), key=_standing_order, default=None)
        ended = standing is not None and standing["record"]["status"] in ("completed", "diverged")
        running = not ended and latest in self.begins and latest not in closed
        ending = None if standing is None or running else _ending(standing)
        status: Status | None = "running" if running else ending.status if ending else None
        return RunState(
            run=self.run["run"],
            status=status,
            ending=ending,
            attempt=latest,
            driver=self.begins[latest]["driver"] if running else None,
            releases=tuple(_release(self.releases[attempt]) for attempt in sorted(self.releases)),
            evaluations=self._curve(latest if ending is None else ending.attempt),
            checkpoint=None if status in FINAL else self._checkpoint(),
            begun=min((begin["time"] for begin in self.begins.values()), default=None),
            begins={attempt: _begin(self.begins[attempt], last[attempt]) for attempt in sorted(self.begins)},
            closed=closed,
        )

    def _curve(self, attempt: int) -> Evaluations:
        """The evaluations since the last failure before `attempt`: what was tried again began again.

        At each step the first attempt's stands.
        """
        failed = (each for each, end in self.ends.items() if end["record"]["status"] == "failed")
        base = max((each for each in failed if each < attempt), default=0)
        by_step: dict[int, EvaluationText] = {}
        for step, each in sorted(self.evaluations):
            if each > base:
                by_step.setdefault(step, self.evaluations[step, each])
        return Evaluations(tuple(by_step.values()))

    def _checkpoint(self) -> Checkpoint | None:
        """The furthest checkpoint since the last final ending, which took the earlier ones with it."""
        finals = (attempt for attempt, end in self.ends.items() if end["record"]["status"] in FINAL)
        last = max(finals, default=0)
        kept = [record for attempt, record in self.checkpoints.items() if attempt > last]
        if not kept:
            return None
        best = max(kept, key=lambda record: (record["step"], record["attempt"]))
        return Checkpoint(best["attempt"], best["step"], best["size"], best["crc32"])

    def _last(self) -> dict[int, float]:
        """When each attempt was closed, or else when it was last heard of."""
        last: dict[int, float] = {}
        heard = [(each.attempt, each.time) for each in self.evaluations.values()]
        for facts in (self.begins, self.checkpoints, self.releases, self.ends):
            heard += [(attempt, record["time"]) for attempt, record in facts.items()]
        for attempt, time in heard:
            last[attempt] = max(time, last.get(attempt, time))
        return last

    def records(self) -> list[Record]:
        """All but the evaluations, for a snapshot: adding them to nothing gives these facts again."""
        kinds = (self.begins, self.releases, self.checkpoints, self.ends)
        kept = [record for facts in kinds for record in facts.values()]
        return kept if self.run is None else [self.run, *kept]


class Replay:
    """Takes records in any order and gives the state they amount to."""

    def __init__(self) -> None:
        self.facts: dict[str, Facts] = {}
        self.declarations: dict[str, Record] = {}
        self.points: dict[str, dict[str, Record]] = {}
        self.stops: dict[Stop, Record] = {}
        self._runs: dict[str, RunState] = {}
        self._undeclared: set[str] = set()  # runs of which there are records but not what they are
        self._sweeps: dict[str, SweepState] = {}
        self._points: dict[str, dict[str, Record]] = {}
        self._changed_runs: dict[str, None] = {}  # in order, so that the state is
        self._changed_sweeps: dict[str, None] = {}
        self._stops: frozenset[Stop] = frozenset()
        self._state: State | None = None

    def add(self, entry: Entry) -> None:
        """Takes one record."""
        if isinstance(entry, EvaluationText):
            self._facts(entry.run_id).add_evaluation(entry)
        elif entry["kind"] == "sweep":
            name = entry["sweep"]["sweep"]
            _settle(self.declarations, name, entry, lambda each: (-each["time"], canonical(each)))
            self._changed_sweeps[name] = None
        elif entry["kind"] == "point":
            points = self.points.setdefault(entry["sweep"], {})
            _settle(points, entry["run_id"], entry, lambda each: (-len(each["point"]), *_earliest(each)))
            self._points.setdefault(entry["sweep"], {})[entry["run_id"]] = points[entry["run_id"]]["point"]
            self._changed_sweeps[entry["sweep"]] = None
        elif entry["kind"] == "stop":
            for driver in entry["drivers"]:
                _settle(self.stops, Stop(entry["what"], entry["name"], driver), entry, _earliest)
        elif "run_id" in entry:
            self._facts(entry["run_id"]).add(entry)

    def add_all(self, records: Iterable[Record]) -> None:
        """Takes several records."""
        for record in records:
            self.add(record)

    def put(self, run_id: str, facts: Facts) -> None:
        """Takes all facts of a run of which there are none yet."""
        self.facts[run_id] = facts
        self._changed_runs[run_id] = None

    def _facts(self, run_id: str) -> Facts:
        self._changed_runs[run_id] = None
        facts = self.facts.get(run_id)
        if facts is None:
            facts = self.facts[run_id] = Facts()
        return facts

    def state(self, notices: tuple[str, ...] = ()) -> State:
        """The state of all records so far; the same object while nothing was added.

        Args:
            notices: what the reader passed over; runs without a declaration are added to them.
        """
        for run_id in self._changed_runs:
            run = self.facts[run_id].state()
            if run is None:
                self._undeclared.add(run_id)
            else:
                self._undeclared.discard(run_id)
                self._runs[run_id] = run
        for name in self._changed_sweeps:
            if name in self.declarations:
                declaration = self.declarations[name]["sweep"]
                self._sweeps[name] = SweepState(declaration, dict(self._points.get(name, {})))
        if self._undeclared:
            some = ", ".join(sorted(self._undeclared)[:5])
            notices = (*notices, f"{len(self._undeclared)} run(s) without a declaration, passed over: {some}")
        changed = bool(self._changed_runs or self._changed_sweeps or len(self._stops) != len(self.stops))
        self._stops = frozenset(self.stops)
        if self._state is None or changed or self._state.notices != notices:
            self._state = State(dict(self._runs), dict(self._sweeps), self._stops, notices)
        self._changed_runs.clear()
        self._changed_sweeps.clear()
        return self._state


def _settle(facts: dict[Key, Record], key: Key, record: Record, order: Callable[[Record], Any]) -> None:
    """Lets the record stand under its key if none does, or if it comes first in the order."""
    known = facts.get(key)
    if known is None or (known != record and order(record) < order(known)):
        facts[key] = record


def _earliest(record: Record) -> tuple[float, str]:
    return record["time"], canonical(record)


def fullest(record: Record) -> tuple[int, str]:
    """The order in which the declaration of a run that says most comes first."""
    text = canonical(record)
    return -len(text), text


def _ending_order(record: Record) -> tuple[int, int, float, str]:
    """Of two endings of one attempt: the weightier, then the further, then the earlier stands."""
    ending = record["record"]
    return -RANKS[ending["status"]], -(ending.get("step") or 0), record["time"], canonical(record)


def _standing_order(record: Record) -> tuple[int, int, int]:
    """Of endings of several attempts the greatest stands: of failures the last attempt's; of others the
    further, and at one step the first attempt's."""
    ending, attempt = record["record"], record["attempt"]
    rank, step = RANKS[ending["status"]], ending.get("step") or 0
    return (rank, attempt, step) if ending["status"] == "failed" else (rank, step, -attempt)


def _begin(record: Record, last: float) -> Begin:
    occupied = record.get("occupied")
    return Begin(
        record["attempt"],
        record["driver"],
        record["time"],
        last,
        record.get("commit"),
        record.get("dirty"),
        record.get("sweep"),
        None if occupied is None else Occupied(**occupied),
    )


def _ending(record: Record) -> Ending:
    return Ending(
        record["attempt"], record["time"], record["record"], record.get("predictions"), record.get("weights")
    )


def _release(record: Record) -> Record:
    return {name: record[name] for name in ("attempt", "reason", "step", "time")}
