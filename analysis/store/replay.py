"""From records to state. The order of the records, and how often each is read, make no difference.

Every fact has a key (this run's evaluation at step 100, this attempt's ending), and where two records
speak of one key a total order decides which stands; so any permutation, any duplication, and any cut
into a snapshot and a rest settle to the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from analysis.store.facts import Facts, Record, earliest, settle
from analysis.store.records import Entry, EvaluationText, canonical
from analysis.store.state import RunState, State, Stop, SweepState, Tag


class Replay:
    """Takes records in any order and gives the state they amount to."""

    def __init__(self) -> None:
        self.facts: dict[str, Facts] = {}
        self.declarations: dict[str, Record] = {}
        self.points: dict[str, dict[str, Record]] = {}
        self.stops: dict[Stop, Record] = {}
        self.tags: dict[Tag, Record] = {}
        self._runs: dict[str, RunState] = {}
        self._undeclared: set[str] = set()  # runs of which there are records but not what they are
        self._sweeps: dict[str, SweepState] = {}
        self._points: dict[str, dict[str, Record]] = {}
        self._changed_runs: dict[str, None] = {}  # in order, so that the state is
        self._changed_sweeps: dict[str, None] = {}
        self._stops: frozenset[Stop] = frozenset()
        self._tags: frozenset[Tag] = frozenset()
        self._state: State | None = None

    def add(self, entry: Entry) -> None:
        """Takes one record."""
        if isinstance(entry, EvaluationText):
            self._facts(entry.run_id).add_evaluation(entry)
        elif entry["kind"] == "sweep":
            name = entry["sweep"]["sweep"]
            settle(self.declarations, name, entry, lambda each: (-each["time"], canonical(each)))
            self._changed_sweeps[name] = None
        elif entry["kind"] == "point":
            points = self.points.setdefault(entry["sweep"], {})
            settle(points, entry["run_id"], entry, lambda each: (-len(each["point"]), *earliest(each)))
            self._points.setdefault(entry["sweep"], {})[entry["run_id"]] = points[entry["run_id"]]["point"]
            self._changed_sweeps[entry["sweep"]] = None
        elif entry["kind"] == "stop":
            for driver in entry["drivers"]:
                settle(self.stops, Stop(entry["what"], entry["name"], driver), entry, earliest)
        elif entry["kind"] == "tag":
            tag = Tag(entry["what"], entry["name"], entry["label"])
            settle(self.tags, tag, entry, lambda each: (-each["time"], canonical(each)))
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
        stops = frozenset(self.stops)
        tags = frozenset(tag for tag, record in self.tags.items() if record["present"])
        changed = bool(self._changed_runs or self._changed_sweeps) or (stops, tags) != (
            self._stops,
            self._tags,
        )
        self._stops, self._tags = stops, tags
        if self._state is None or changed or self._state.notices != notices:
            self._state = State(dict(self._runs), dict(self._sweeps), stops, tags, notices)
        self._changed_runs.clear()
        self._changed_sweeps.clear()
        return self._state
