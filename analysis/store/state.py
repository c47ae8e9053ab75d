"""What the ledger says, as values: runs, sweeps, and how far each run has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from analysis.store.errors import StoreError
from analysis.store.evaluations import Evaluations

Status = Literal["running", "completed", "diverged", "failed", "stopped"]
FINAL = ("completed", "diverged", "failed")
"""The statuses of ended runs; `failed` until a retry is asked for. `stopped` is held, and goes on."""
RANKS = {"stopped": 0, "failed": 1, "diverged": 2, "completed": 2}
"""Which ending of a run stands where the ledger has several: the highest."""


_NONE = Evaluations()


@dataclass(frozen=True)
class Occupied:
    """What a trial takes while any of its runs goes on; `trial` is its driver's name for it."""

    trial: str
    cores: float
    gpus: float


@dataclass(frozen=True)
class Begin:
    """A run given out: `driver` holds it from `time` on (seconds since 1970), for one attempt.

    Attributes:
        last: when it ended or was given back; of an attempt that was not, when it last gave a sign of life.
        sweep: for which it was given out.
        occupied: by it and those that it shares a trial with; null where nobody counts.
        until: the step at which it is stopped, before its end; null where it is not.
    """

    attempt: int
    driver: str
    time: float
    last: float
    commit: str | None = None
    dirty: bool | None = None
    sweep: str | None = None
    occupied: Occupied | None = None
    until: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A stored checkpoint: size in bytes and CRC-32 tell whether the file is the one that was written."""

    attempt: int
    step: int
    size: int
    crc: int


@dataclass(frozen=True)
class Ending:
    """An ending as the ledger has it: the trainer's end record and what was stored beside it.

    `pruned`: when its weights were deleted to free their room; null where they were not.
    """

    attempt: int
    time: float
    record: dict[str, Any]
    predictions: str | None = None  # its file's name in ledger/predictions
    weights: int | None = None  # bytes
    pruned: float | None = None

    @property
    def status(self) -> Status:
        status: Status = self.record["status"]
        return status

    @property
    def step(self) -> int:
        return int(self.record.get("step") or 0)


@dataclass(frozen=True)
class RunState:
    """A run as the ledger knows it.

    Attributes:
        run: the run as JSON: run_id, config_id, seed, data, model, method_version, configuration, and,
            where given, `settings`: the configuration with its defaults spelt out.
        status: null for a run that is declared, or was given back, and waits.
        ending: its standing ending; null while it runs (again).
        attempt: the highest attempt begun so far, 0 for none.
        driver: who holds the run, alive or not; null unless it is running.
        releases: attempts given back, by attempt: `{"attempt", "reason", "step", "time"}`.
        evaluations: the evaluation records, by step.
        checkpoint: what a next attempt goes on from; null where it would start at the beginning.
        begun: time of the first begin.
    """

    run: dict[str, Any]
    status: Status | None = None
    ending: Ending | None = None
    attempt: int = 0
    driver: str | None = None
    releases: tuple[dict[str, Any], ...] = ()
    evaluations: Evaluations = _NONE
    checkpoint: Checkpoint | None = None
    begun: float | None = None
    begins: Mapping[int, Begin] = field(default_factory=dict)
    closed: frozenset[int] = frozenset()  # attempts that ended or were given back

    @property
    def run_id(self) -> str:
        return str(self.run["run_id"])

    @property
    def config_id(self) -> str:
        return str(self.run["config_id"])

    @property
    def seed(self) -> int:
        return int(self.run["seed"])

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration with its defaults spelt out, where the run says it; else as it is."""
        settings: dict[str, Any] = self.run.get("settings", self.run["configuration"])
        return settings

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def ended(self) -> dict[str, Any] | None:
        """The end record, as the trainer gave it."""
        return None if self.ending is None else self.ending.record

    @property
    def losses(self) -> list[dict[str, Any]]:
        """The attempts that were lost, or ran out of memory: what counts against a run."""
        return [release for release in self.releases if release["reason"] != "released"]

    @property
    def checkpoint_step(self) -> int | None:
        return None if self.checkpoint is None else self.checkpoint.step

    @property
    def scores(self) -> list[tuple[int, float | None]]:
        """Step and score of each evaluation, without parsing the records."""
        return [(text.step, text.score) for text in self.evaluations.texts]

    @property
    def step(self) -> int:
        """The furthest step that an evaluation, a checkpoint or the ending speaks of."""
        last = self.evaluations.texts[-1].step if self.evaluations else 0
        return max(last, self.checkpoint_step or 0, self.ending.step if self.ending else 0)

    @cached_property
    def seconds(self) -> float:
        """Seconds of training and evaluation in the run's latest record, and of start-up once it ended."""
        record = self.ended or (self.evaluations[-1] if self.evaluations else {})
        parts = ("seconds_training", "seconds_evaluation", "seconds_startup")
        return sum(float(record.get(part) or 0.0) for part in parts)


@dataclass(frozen=True)
class SweepState:
    """A sweep as declared (`sweep`, `kind`, `axes`, `objective`, `declared`, …), and its runs' points."""

    declaration: dict[str, Any]
    points: Mapping[str, dict[str, Any]]  # run_id → {axis: value}

    @property
    def name(self) -> str:
        return str(self.declaration["sweep"])

    @property
    def kind(self) -> str | None:
        return self.declaration.get("kind")

    @property
    def objective(self) -> Any:
        return self.declaration.get("objective")


class Stop(NamedTuple):
    """A request from elsewhere that a driver end a sweep, or leave a run as it stands.

    `driver` lived when it was made: those that start later know nothing of it.
    """

    what: Literal["sweep", "run"]
    name: str
    driver: str


class Tag(NamedTuple):
    """A label that somebody has put on a run or on a sweep; a sweep's counts for all of its runs."""

    what: Literal["run", "sweep"]
    name: str
    label: str


@dataclass(frozen=True)
class State:
    """The whole ledger at a moment. Two states are equal when they say the same.

    `notices`: what was passed over in reading, in words (a torn last line, a run without its
    declaration, a damaged snapshot); nothing of it is lost work that ended.
    """

    runs: Mapping[str, RunState] = field(default_factory=dict)
    sweeps: Mapping[str, SweepState] = field(default_factory=dict)
    stops: frozenset[Stop] = frozenset()
    tags: frozenset[Tag] = frozenset()
    notices: tuple[str, ...] = field(default=(), compare=False)

    def find(self, text: str) -> RunState:
        """The run with this id, or with an id that begins so.

        Raises:
            StoreError: none, or several.
        """
        if text in self.runs:
            return self.runs[text]
        found = sorted(run_id for run_id in self.runs if run_id.startswith(text))
        if len(found) == 1:
            return self.runs[found[0]]
        if not found:
            known = ", ".join(sorted(self.runs)[:5]) or "none"
            raise StoreError(f"no run whose id begins with {text!r}; known are {known} (of {len(self.runs)})")
        shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise StoreError(f"{len(found)} runs have an id that begins with {text!r}: {shown}")

    @cached_property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The tags of each run that has any, its sweeps' among them."""
        found: dict[str, set[str]] = {}
        for tag in self.tags:
            points = self.sweeps[tag.name].points if tag.what == "sweep" and tag.name in self.sweeps else ()
            for run_id in points if tag.what == "sweep" else (tag.name,):
                found.setdefault(run_id, set()).add(tag.label)
        return {run_id: tuple(sorted(labels)) for run_id, labels in found.items()}

    def is_stopped(self, sweep: str, driver: str) -> bool:
        """Whether somebody has asked the driver to end this sweep."""
        return Stop("sweep", sweep, driver) in self.stops

    def left_out(self, driver: str) -> frozenset[str]:
        """The runs that somebody has asked the driver to leave as they stand."""
        return frozenset(stop.name for stop in self.stops if (stop.what, stop.driver) == ("run", driver))

    def runs_of(self, sweep: str | None) -> list[RunState]:
        """The runs of a sweep, or all for None, in the order of first begin, then of id.

        Raises:
            StoreError: no such sweep; names the known ones.
        """
        if sweep is None:
            chosen = list(self.runs.values())
        else:
            chosen = [self.runs[run_id] for run_id in self.sweep(sweep).points if run_id in self.runs]
        never = float("inf")
        return sorted(chosen, key=lambda run: (never if run.begun is None else run.begun, run.run_id))

    def sweep(self, name: str) -> SweepState:
        """The sweep of this name; a StoreError that names the known ones where there is none."""
        if name not in self.sweeps:
            known = ", ".join(sorted(self.sweeps)) or "none"
            raise StoreError(f"no sweep {name!r} in these results; known are {known}")
        return self.sweeps[name]
