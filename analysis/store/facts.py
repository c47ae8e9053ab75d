"""What stands of the records of one run: where two speak of one key, a total order decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from analysis.store.evaluations import Evaluations
from analysis.store.records import EvaluationText, canonical
from analysis.store.state import FINAL, RANKS, Begin, Checkpoint, Ending, Occupied, RunState, Status

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
    prunes: dict[tuple[str, int, float], Record] = field(default_factory=dict)  # by what, attempt, of

    def add(self, record: Record) -> None:
        """Takes a record of any kind but an evaluation."""
        kind, attempt = record["kind"], record.get("attempt", 0)
        if kind == "run":
            self.run = record if self.run is None else min(self.run, record, key=fullest)
        elif kind == "begin":
            settle(self.begins, attempt, record, earliest)
        elif kind == "release":
            settle(self.releases, attempt, record, earliest)
        elif kind == "checkpoint":
            settle(self.checkpoints, attempt, record, lambda each: (-each["step"], canonical(each)))
        elif kind == "end":
            settle(self.ends, attempt, record, _ending_order)
        elif kind == "prune":
            settle(self.prunes, (record["what"], attempt, record["of"]), record, earliest)

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
    def standing(self) -> Record | None:
        """The ending that stands, though the run may have begun again since."""
        return max(self.ends.values(), key=_standing_order, default=None)

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
        standing = self.standing
        ended = standing is not None and standing["record"]["status"] in ("completed", "diverged")
        running = not ended and latest in self.begins and latest not in closed
        ending = None if standing is None or running else self._ending(standing)
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
        kept = [
            record
            for attempt, record in self.checkpoints.items()
            if attempt > last and ("checkpoint", attempt, record["crc32"]) not in self.prunes
        ]
        if not kept:
            return None
        best = max(kept, key=lambda record: (record["step"], record["attempt"]))
        return Checkpoint(best["attempt"], best["step"], best["size"], best["crc32"])

    def pruned(self, ending: Record) -> Record | None:
        """What says that the weights of this ending were deleted."""
        return self.prunes.get(("weights", ending["attempt"], ending["time"]))

    def _ending(self, record: Record) -> Ending:
        pruned = self.pruned(record)
        return Ending(
            attempt=record["attempt"],
            time=record["time"],
            record=record["record"],
            predictions=record.get("predictions"),
            weights=record.get("weights"),
            pruned=None if pruned is None else pruned["time"],
        )

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
        kept = [*self.begins.values(), *self.releases.values(), *self.checkpoints.values()]
        kept += [*self.ends.values(), *self.prunes.values()]
        return kept if self.run is None else [self.run, *kept]


def settle(facts: dict[Key, Record], key: Key, record: Record, order: Callable[[Record], Any]) -> None:
    """Lets the record stand under its key if none does, or if it comes first in the order."""
    known = facts.get(key)
    if known is None or (known != record and order(record) < order(known)):
        facts[key] = record


def earliest(record: Record) -> tuple[float, str]:
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
        record.get("until"),
    )


def _release(record: Record) -> Record:
    return {name: record[name] for name in ("attempt", "reason", "step", "time")}
