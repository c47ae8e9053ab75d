"""What a page is about: a sweep's runs, grouped over their seeds, with names that a reader can tell apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from analysis.constraints import ranked_within
from analysis.page.markup import listed, visible
from analysis.query import Sources
from analysis.ranking import RankedConfiguration, objective, value
from analysis.show import shortened
from analysis.store.errors import StoreError
from analysis.store.locks import driver_alive
from analysis.store.spread import differing
from analysis.store.state import RunState, State, SweepState

SHORT = 22
"""Characters of a name that fits beside a chart; where any is longer, all are called by their place."""
MOST_FIELDS = 4
"""Fields of a name; of a point that differs in more, its place in the ranking is the name."""


@dataclass(frozen=True)
class Candidate:
    """A configuration that has a result.

    Attributes:
        place: in the ranking, from 1 on.
        name: what tells it apart, in words.
        short: the same, or its place, as a chart's label.
        words: its point, where the name does not say it; else empty.
        point: value by axis.
        runs: those that have a value, by seed.
        reason: why it is not among those of which the best is chosen; empty for those.
    """

    place: int
    name: str
    short: str
    words: str
    point: Mapping[str, Any]
    runs: tuple[RunState, ...]
    row: RankedConfiguration
    reason: str = ""

    @property
    def mean(self) -> float:
        return fmean(self.row.by_seed.values())


class Subject:
    """The runs of a sweep, or of a whole results folder, as they stand at the moment of asking.

    Raises:
        StoreError: no results in the folder; no such sweep, or several and none named.
    """

    def __init__(self, results: str | Path, sweep: str | None = None) -> None:
        self.results = str(results)
        everything = Sources(results).state
        self.sweep = _chosen(everything, sweep)
        self.sources = Sources(results, self.sweep)
        self.state: State = self.sources.state
        self.objective = objective(self.state, self.sweep)
        self.runs = self.state.runs_of(self.sweep)

    @property
    def title(self) -> str:
        return self.sweep or Path(self.results).name or "results"

    @cached_property
    def declared(self) -> SweepState | None:
        return None if self.sweep is None else self.state.sweep(self.sweep)

    @property
    def declaration(self) -> Mapping[str, Any]:
        return {} if self.declared is None else self.declared.declaration

    @property
    def kind(self) -> str:
        return str(self.declaration.get("kind") or "set of runs")

    @cached_property
    def statuses(self) -> Counter[str]:
        """How many runs there are by status; `interrupted` where the driver that held one is dead."""
        alive = {run.driver: driver_alive(self.results, run.driver) for run in self.runs if run.driver}
        return Counter(
            "interrupted"
            if run.status == "running" and run.driver and not alive[run.driver]
            else run.status or "waiting"
            for run in self.runs
        )

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The configurations with a result: those of which the best is chosen, best first, then the rest."""
        if not any(value(run, self.objective) is not None for run in self.runs):
            return []
        rows = [row for row in ranked_within(self.state, self.sweep, self.objective) if row.runs]
        several = any(row.runs > 1 for row in rows)
        reasons = {row.config_id: self._reason(row, several) for row in rows}
        ordered = sorted(rows, key=lambda row: bool(reasons[row.config_id]))
        points = {row.config_id: self._point(row) for row in ordered}
        names = _names(ordered, points)
        brief = all(len(name) <= SHORT for name in names)
        axes = differing(points.values())
        found = []
        for place, (row, name) in enumerate(zip(ordered, names, strict=True), 1):
            runs = sorted((self.state.runs[run_id] for run_id in row.run_ids), key=lambda run: run.seed)
            short, point = name if brief else f"#{place}", points[row.config_id]
            words = described(point, axes) if len(axes) > MOST_FIELDS else ""
            reason = reasons[row.config_id]
            found.append(Candidate(place, name, short, words, point, tuple(runs), row, reason))
        return found

    @property
    def contenders(self) -> list[Candidate]:
        """Of these the best is chosen, best first."""
        return [each for each in self.candidates if not each.reason]

    @cached_property
    def axes(self) -> list[str]:
        """The fields in which the candidates' points differ."""
        return differing(each.point for each in self.candidates)

    @staticmethod
    def _reason(row: RankedConfiguration, several: bool) -> str:
        """Why it cannot be called the best; empty where it can."""
        if row.without:
            return f"{row.without} of its runs diverged or have no value"
        if row.breaks:
            return f"breaks {listed(row.breaks)}"
        return "one seed alone" if several and row.runs == 1 else ""

    def _point(self, row: RankedConfiguration) -> dict[str, Any]:
        points = self.declared.points if self.declared else {}
        found = next((points[run_id] for run_id in row.run_ids if points.get(run_id)), None)
        return dict(row.fields if found is None else found)


def spoken(each: Any) -> str:
    """A field's value as one says it."""
    if each is None:
        return "none"
    if isinstance(each, bool):
        return "yes" if each else "no"
    if isinstance(each, float):
        return f"{each:.4g}"
    if isinstance(each, (list, tuple)) and all(isinstance(part, str) for part in each):
        return visible(", ".join(each))
    return visible(each if isinstance(each, str) else json.dumps(each, ensure_ascii=False))


def described(point: Mapping[str, Any], names: Sequence[str]) -> str:
    """A point in words: rank 4 · alpha 8."""
    short = dict(zip(names, shortened(names), strict=True))
    return " · ".join(f"{short[name]} {spoken(point[name])}" for name in names if point.get(name) is not None)


def _names(rows: Sequence[RankedConfiguration], points: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A name for each configuration, each once."""
    names = differing(points.values())
    alone = len(next(iter(points.values()))) == 1 and len(names) == 1 and names[0] in ("row", "change")
    found = []
    for place, row in enumerate(rows, 1):
        point = points[row.config_id]
        if alone:
            found.append(spoken(point[names[0]]))
        elif 0 < len(names) <= MOST_FIELDS:
            found.append(described(point, names) or "none of these")
        else:
            found.append(f"#{place} {row.config_id[:6]}" if len(rows) > 1 else row.config_id)
    twice = {name for name, times in Counter(found).items() if times > 1}
    return [
        f"{name} {row.config_id[:6]}" if name in twice else name
        for name, row in zip(found, rows, strict=True)
    ]


def _chosen(state: State, sweep: str | None) -> str | None:
    """The sweep that is meant: the one named, or the only one."""
    if sweep is not None:
        return state.sweep(sweep).name
    if len(state.sweeps) > 1:
        raise StoreError(f"--sweep: expected one of {', '.join(sorted(state.sweeps))}, got none")
    if not state.runs and not state.sweeps:
        raise StoreError("no runs in these results yet")
    return next(iter(state.sweeps), None)
