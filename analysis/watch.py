"""What a sweep is doing, from its ledger alone, for whoever looks on from a machine that sees the folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from analysis.constraints import ranked_within
from analysis.leader import leader_of
from analysis.ranking import RankedConfiguration
from analysis.ranking_show import ranking_table
from analysis.show import cell, shortened
from analysis.store.errors import StoreError
from analysis.store.locks import Sighting, sighted_drivers
from analysis.store.reader import Reader
from analysis.store.records import canonical
from analysis.store.spread import differing, identity
from analysis.store.state import RunState, State

SILENCE = 600.0
"""Seconds after which a driver of another machine counts as dead: its runs store a checkpoint each minute."""
MOST_FLIGHTS = 20
"""Runs in flight that are shown one by one."""
_ORDER = ("completed", "diverged", "failed", "stopped", "running", "interrupted", "waiting")


@dataclass(frozen=True)
class Flight:
    """A run in flight: what tells it apart, how far it is, and its last score.

    Attributes:
        whole: the step at which it ends; null where nothing says it yet.
        heard: when it last gave a sign of life, in seconds since 1970.
    """

    run_id: str
    label: str
    step: int
    whole: int | None
    score: float | None
    heard: float

    @property
    def share(self) -> float:
        """Of its steps, those that are made."""
        return min(1.0, self.step / self.whole) if self.whole else 0.0


@dataclass(frozen=True)
class Watched:
    """A sweep, or all of a results folder, at a moment.

    Attributes:
        counts: runs by status; `interrupted` is one whose driver is dead.
        drivers: at work on it.
        left: seconds until all its runs have ended, at the pace so far; null where that can't be known: of
            a search, whose runs are not yet known, and before anything is done.
        ranking: null while nothing can be ranked, and `unranked` says why.
    """

    name: str | None
    kind: str | None
    counts: Mapping[str, int]
    flights: Sequence[Flight]
    drivers: Sequence[str]
    left: float | None
    ranking: Sequence[RankedConfiguration] | None
    unranked: str = ""

    @property
    def ended(self) -> bool:
        """Nobody is at work on it any more."""
        return not self.drivers


class Watcher:
    """Follows a results folder; reads and never writes, and holds no lock.

    Args:
        sweep: only its runs; all for None.
        by: what to rank by; the sweep's objective, or the score, for None.
    """

    def __init__(self, results: str | Path, sweep: str | None, by: str | None) -> None:
        self._results = results
        self._sweep = sweep
        self._by = by
        self._reader = Reader(results)
        self._made: tuple[State, Sequence[str], Watched] | None = None

    def look(self) -> Watched:
        """As it is now; the same object while nothing has happened.

        Raises:
            StoreError: no such sweep, or a ledger that cannot be read.
        """
        sighted = sighted_drivers(self._results)  # before the ledger: who ends now has said all by then
        state, now = self._reader.refresh(), time.time()
        at_work = drivers_at_work(sighted, state, now)
        drivers = [name for name, sweep in at_work.items() if self._sweep in (None, sweep)]
        if self._made is None or self._made[0] is not state or self._made[1] != drivers:
            made = watched(state, self._sweep, self._by, drivers, tuple(at_work), now)
            self._made = state, drivers, made
        return self._made[2]


def drivers_at_work(sighted: Mapping[str, Sighting], state: State, now: float) -> dict[str, str | None]:
    """Those that live here, and those of other machines that were heard of lately, each with its sweep."""
    heard = {name: seen.since for name, seen in sighted.items() if not seen.here}
    for run in state.runs.values() if heard else ():
        for begin in run.begins.values():
            if begin.driver in heard:
                heard[begin.driver] = max(heard[begin.driver], begin.last)
    return {name: seen.sweep for name, seen in sighted.items() if seen.here or now - heard[name] < SILENCE}


def watched(
    state: State,
    sweep: str | None,
    by: str | None,
    drivers: Sequence[str],
    living: Sequence[str],
    now: float,
) -> Watched:
    """What there is to see.

    Args:
        drivers: at work on this sweep.
        living: at work on anything: a sweep's runs may be another's, too.
    """
    runs = state.runs_of(sweep)
    label, length = _labels(runs), _lengths(runs)
    flights = [
        _flight(run, label, length) for run in runs if run.status == "running" and run.driver in living
    ]
    counts = Counter(_status(run, living) for run in runs)
    kind = None if sweep is None else state.sweep(sweep).kind
    ranking, unranked = _ranking(state, sweep, by)
    return Watched(
        name=sweep,
        kind=kind,
        counts={status: counts[status] for status in _ORDER if counts[status]},
        flights=flights,
        drivers=drivers,
        left=None if kind == "search" else _seconds_left(runs, flights, living, now),
        ranking=ranking,
        unranked=unranked,
    )


def picture(seen: Watched, now: float, rows: int | None = None, bars: bool = True) -> RenderableType:
    """For a terminal, or (without `bars` and what moves by itself) for a plain log.

    Args:
        now: seconds since 1970.
        rows: of the ranking, the first so many.
    """
    table = Table.grid(padding=(0, 2))
    for flight in seen.flights[:MOST_FLIGHTS]:
        whole = "" if flight.whole is None else f"/{flight.whole}"
        score = "" if flight.score is None else f"score {flight.score:.4f}"
        cells: list[RenderableType] = [Text(flight.label), Text(f"{flight.step}{whole}"), Text(score)]
        if bars:
            cells.insert(
                1,
                ProgressBar(total=flight.whole or 1, completed=flight.share * (flight.whole or 1), width=20),
            )
            cells.append(Text(f"heard of {spoken(max(0.0, now - flight.heard))} ago"))
        table.add_row(*cells)
    more = len(seen.flights) - MOST_FLIGHTS
    lines: list[RenderableType] = [Text(_head(seen)), *([table] if seen.flights else [])]
    lines += [Text(f"and {more} more in flight")] if more > 0 else []
    if seen.ranking is None:
        lines.append(Text(seen.unranked))
    else:
        shown = seen.ranking[:rows]
        lines.append(ranking_table(shown, leader=leader_of(seen.ranking)))
        rest = len(seen.ranking) - len(shown)
        lines += [Text(f"and {rest} more (--limit)")] if rest > 0 else []
    return Group(*lines)


def spoken(seconds: float) -> str:
    """A duration in words that fit its size."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _head(seen: Watched) -> str:
    """Whose runs these are, how many there are of each status, and how long it goes on."""
    name = (
        "all runs" if seen.name is None else f"sweep {seen.name}" + (f" ({seen.kind})" if seen.kind else "")
    )
    parts = [f"{number} {status}" for status, number in seen.counts.items()] or ["no runs yet"]
    open_runs = any(status in seen.counts for status in ("running", "interrupted", "waiting"))
    if seen.drivers:
        left = "not known" if seen.left is None else f"about {spoken(seen.left)}"
        parts.append(f"time left: {left}")
    elif open_runs:
        parts.append("nobody is at work on it: its command, called again, goes on")
    else:
        parts.append("nobody is at work on it")
    return f"{name}: {', '.join(parts)}"


def _ranking(state: State, sweep: str | None, by: str | None) -> tuple[list[RankedConfiguration] | None, str]:
    """The ranking as `best` has it, or why there is none yet, which ends no watch."""
    try:
        return ranked_within(state, sweep, by), ""
    except StoreError as error:
        return None, str(error)


def _status(run: RunState, living: Sequence[str]) -> str:
    if run.status == "running" and run.driver not in living:
        return "interrupted"
    return run.status or "waiting"


def _flight(run: RunState, label: Mapping[str, str], length: Callable[[RunState], int | None]) -> Flight:
    last = next((score for _, score in reversed(run.scores) if score is not None), None)
    return Flight(run.run_id, label[run.run_id], run.step, length(run), last, run.begins[run.attempt].last)


def _labels(runs: Sequence[RunState]) -> dict[str, str]:
    """By run: "rank 4, alpha 8, seed 0", of what differs between them."""
    fields = {run.config_id: identity(run.run, run.settings) for run in runs}
    names = differing(fields.values())
    short = dict(zip(names, shortened(names), strict=True))
    labels = {}
    for run in runs:
        of = fields[run.config_id]
        parts = [f"{short[name]} {cell(of[name])}" for name in names if of.get(name) is not None]
        labels[run.run_id] = ", ".join([*parts, f"seed {run.seed}"])
    return labels


def _lengths(runs: Sequence[RunState]) -> Callable[[RunState], int | None]:
    """The steps of a run: what its configuration says, or those of a run of the same training that ended."""
    known = {_training(run): run.step for run in runs if run.status == "completed"}

    def length(run: RunState) -> int | None:
        steps = (run.settings.get("training") or {}).get("steps") if not run.settings.get("stages") else None
        return steps if isinstance(steps, int) else known.get(_training(run))

    return length


def _training(run: RunState) -> str:
    training = run.settings.get("training") or {}
    lengths = {
        name: training.get(name) for name in ("steps", "epochs", "steps_per_epoch", "batch_size", "tasks")
    }
    return canonical([lengths, run.settings.get("stages"), run.run.get("data")])


def _seconds_left(
    runs: Sequence[RunState], flights: Sequence[Flight], living: Sequence[str], now: float
) -> float | None:
    """At the pace, in runs for each second, at which those at work have come to where they are."""
    mine = [begin for run in runs for begin in run.begins.values() if begin.driver in living]
    ended = sum(
        run.final and run.ending is not None and _driver(run, run.ending.attempt) in living for run in runs
    )
    under_way = sum(flight.share for flight in flights)
    if not mine or not ended + under_way:
        return None
    elapsed = max(now, *(begin.last for begin in mine)) - min(begin.time for begin in mine)
    left = sum(not run.final for run in runs) - under_way
    return left * elapsed / (ended + under_way)


def _driver(run: RunState, attempt: int) -> str | None:
    return run.begins[attempt].driver if attempt in run.begins else None
