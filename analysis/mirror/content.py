"""What another tool is told of a run: its configuration, its curves, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from analysis.store.errors import StoreError
from analysis.store.spread import identity
from analysis.store.state import RunState, State

_OF_ENDING = ("score", "kept_step", "trainable", "total", "tokens", "seconds_training", "seconds_evaluation")
_MORE = ("seconds_startup", "peak_memory", "device", "host")

Key = tuple[str, int, int]
"""By which a value is known again: its name, its step, and its time in milliseconds since 1970."""


class Value(NamedTuple):
    """A point of a curve; `time` in seconds since 1970."""

    name: str  # dev/sst/accuracy, or dev/score for what is of all tasks
    step: int
    time: float
    value: float

    @property
    def key(self) -> Key:
        return self.name, self.step, round(self.time * 1000)


@dataclass(frozen=True)
class Ended:
    """How a run has ended: `summary` holds numbers and texts by name, nulls left out."""

    status: str
    step: int
    time: float
    summary: Mapping[str, Any]

    @property
    def numbers(self) -> dict[str, float]:
        return {name: value for name, value in self.summary.items() if isinstance(value, (int, float))}

    @property
    def texts(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.summary.items() if name not in self.numbers}


@dataclass(frozen=True)
class Content:
    """All that is told of a run.

    Attributes:
        parameters: its configuration by dotted names, with its seed and what it was trained from.
        sweeps: to which it belongs.
        begun: seconds since 1970.
    """

    run_id: str
    parameters: Mapping[str, Any]
    sweeps: tuple[str, ...]
    labels: tuple[str, ...]
    begun: float
    values: tuple[Value, ...]
    ended: Ended | None


@dataclass(frozen=True)
class Known:
    """What a mirror has of a run already; `ended` is the time of the ending it was told, in milliseconds."""

    keys: frozenset[Key] = frozenset()
    ended: int | None = None


class Mirror(Protocol):
    """A tool that shows runs."""

    def known(self, run_id: str) -> Known | None:
        """What it has of the run; null where it has never heard of it."""

    def write(self, run: Content, values: Iterable[Value], ended: Ended | None) -> None:
        """Tells it what it does not have yet, the run itself too where it does not know it."""


def missing(extra: str, library: str, error: ImportError) -> StoreError:
    """What to do where a tool's library is not installed."""
    return StoreError(f"--to {extra} needs the library {library} ({error}): pip install 'mtbert[{extra}]'")


def contents(state: State, sweep: str | None) -> Iterator[Content]:
    """The runs of a sweep, or all, that have begun.

    Raises:
        StoreError: no such sweep.
    """
    sweeps: dict[str, list[str]] = {}
    for name, each in sorted(state.sweeps.items()):
        for run_id in each.points:
            sweeps.setdefault(run_id, []).append(name)
    for run in state.runs_of(sweep):
        if run.begun is not None:
            belongs = tuple(sweeps.get(run.run_id, ()))
            yield content(run, belongs, state.labels.get(run.run_id, ()))


def content(run: RunState, sweeps: tuple[str, ...], labels: tuple[str, ...]) -> Content:
    """A run that has begun."""
    about = {"config_id": run.config_id, "seed": run.seed}
    return Content(
        run_id=run.run_id,
        parameters=about | identity(run.run, run.settings),
        sweeps=sweeps,
        labels=labels,
        begun=run.begun or 0.0,
        values=tuple(_values(run)),
        ended=_ended(run),
    )


def copy(state: State, sweep: str | None, mirror: Mirror, before: dict[str, Content]) -> tuple[int, int]:
    """Tells a mirror what it does not have of a state; how many runs had news, and how many values.

    Args:
        before: what this process has told it; those that are the same are passed over. Is added to.
    """
    runs = told = 0
    for run in contents(state, sweep):
        if before.get(run.run_id) == run:
            continue
        known = mirror.known(run.run_id)
        keys = known.keys if known is not None else frozenset[Key]()
        values = [value for value in run.values if value.key not in keys]
        time = None if run.ended is None else round(run.ended.time * 1000)
        ended = run.ended if known is None or known.ended != time else None
        if known is None or values or ended is not None:
            mirror.write(run, values, ended)
            runs, told = runs + 1, told + len(values)
        before[run.run_id] = run
    return runs, told


def _values(run: RunState) -> Iterator[Value]:
    for text in run.evaluations.texts:
        for split, task, metric, value in text.record.get("rows", ()):
            if value is not None:
                name = "/".join(part for part in (split, task, metric) if part)
                yield Value(name, text.step, text.time, float(value))


def _ended(run: RunState) -> Ended | None:
    if run.ending is None:
        return None
    record = run.ending.record
    error = record.get("error") or {}
    summary = {name: record.get(name) for name in (*_OF_ENDING, *_MORE)} | dict(record.get("metrics") or {})
    summary |= {"status": run.ending.status, "error": error.get("message")}
    present = {name: value for name, value in summary.items() if value is not None}
    return Ended(run.ending.status, run.ending.step, run.ending.time, present)
