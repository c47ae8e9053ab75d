"""The best points of a search, by what the ledger has of them: its finalists, its front, its winner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from analysis.ranking import value
from analysis.store.state import RunState
from mtbert.run import digest
from sweeps.search.space import Point, Space
from sweeps.search.study import Known
from sweeps.search.terms import Terms

END = float("inf")


@dataclass(frozen=True)
class Finalist:
    """A point that a search may end with: its values over the seeds that were trained to their ends, by seed.

    `first` is what its first seed came to, at `step`, which is infinite for the end; `runs` are those that
    were trained to their ends.
    """

    point: Point
    config_id: str
    values: dict[int, float]
    first: float
    step: float
    runs: tuple[RunState, ...] = ()

    @property
    def mean(self) -> float:
        return fmean(self.values.values())

    @property
    def first_run(self) -> tuple[RunState, ...]:
        """The first seed's run, where it was trained to its end."""
        return self.runs[:1]


def candidates(
    known: Sequence[Known], objective: str, expected: Mapping[str, float] | None
) -> list[Finalist]:
    """The points that have a value, best first, by their first seed.

    Those that were trained to their ends come before those that were stopped, the furthest first, unless more
    is expected of one that was stopped. By the first seed alone: what others bring changes nobody's place.

    Args:
        expected: what a point is expected to come to at its end, by configuration; null without stops.
    """
    values = (_candidate(each, objective, expected is not None) for each in known)
    found = sorted(
        (each for each in values if each is not None),
        key=lambda each: (-each.step, -each.first, each.config_id),
    )
    places = {each.config_id: (expected or {}).get(each.config_id, -END) for each in found}
    ended = [each.config_id for each in found if each.runs]
    # what is expected of them is smoothed: among each other they stand by what they came to
    places |= zip(ended, sorted(map(places.__getitem__, ended), reverse=True), strict=True)
    return sorted(found, key=lambda each: -places[each.config_id])


def chosen(
    ranked: Sequence[Finalist], terms: Terms, space: Space, count: int, allowed: Callable[[Point], bool]
) -> list[Finalist]:
    """The best of the candidates that keep the constraints as far as is known.

    At most one for each compared part; or, where a cost is weighed, points of the front, spread evenly
    over it from the best score to the lowest cost.
    """
    fit = [
        each
        for each in ranked
        if (terms.kept(each.first_run) if each.runs else not terms.before or allowed(each.point))
    ]
    if terms.against is not None:
        return spread(front(fit, terms), count)
    best: dict[str, Finalist] = {}
    for each in fit:
        best.setdefault(digest(space.compared(each.point)), each)
    return list(best.values())[:count]


def front(ranked: Sequence[Finalist], terms: Terms) -> list[Finalist]:
    """The points that none beats in both score and cost, by their first seeds; the best score first."""
    costs = {each.config_id: terms.cost(each.first_run) for each in ranked}
    found: list[Finalist] = []
    lowest = END
    for each in sorted(ranked, key=lambda one: (-one.first, costs[one.config_id] or 0.0, one.config_id)):
        cost = costs[each.config_id]
        if cost is not None and cost < lowest:
            found.append(each)
            lowest = cost
    return found


def spread(points: Sequence[Finalist], count: int) -> list[Finalist]:
    """So many of the points, evenly from the first to the last."""
    if len(points) <= count:
        return list(points)
    if count == 1:
        return list(points[:1])
    return [points[round(at * (len(points) - 1) / (count - 1))] for at in range(count)]


def winner(finalists: Sequence[Finalist], terms: Terms, seeds: int) -> Finalist | None:
    """The finalist with the highest mean over its seeds that keeps the constraints in the mean, if any."""
    some = [each for each in finalists if each.values and terms.kept(each.runs)]
    full = [each for each in some if all(seed in each.values for seed in range(seeds))]
    return max(full or some, key=lambda each: each.mean, default=None)


def closest(ranked: Sequence[Finalist], terms: Terms) -> Finalist | None:
    """The point that was trained to its end and breaks the constraints the least."""
    ended = [each for each in ranked if each.values]
    return min(ended, key=lambda each: (_broken(each, terms), -each.mean), default=None)


def _broken(each: Finalist, terms: Terms) -> float:
    return sum(max(0.0, excess) for excess in terms.excesses(each.runs).values())


def _candidate(known: Known, objective: str, stopped: bool) -> Finalist | None:
    values = {run.seed: value(run, objective) for run in known.runs}
    present = {seed: each for seed, each in values.items() if each is not None}
    if present:
        runs = tuple(sorted((run for run in known.runs if run.seed in present), key=lambda run: run.seed))
        return Finalist(known.point, known.config_id, present, present[min(present)], END, runs)
    if not stopped:
        return None
    shown = [(step, score) for run in known.runs for step, score in _held(run)]
    if not shown:
        return None
    step, score = max(shown)
    return Finalist(known.point, known.config_id, {}, score, step)


def _held(run: RunState) -> list[tuple[int, float]]:
    """Step and score at each evaluation of a run that may go on."""
    return [] if run.final else [(step, score) for step, score in run.scores if score is not None]
