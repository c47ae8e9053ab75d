"""Where each configuration stands among all, those that were stopped before their ends included.

The value that a stopped run showed last is not what it would have ended with: it would be read too low
where scores grow, too high where they fall, and leaving such runs out would leave the good ones alone. What
is known of it is its place: those that went further were at its step too. So it stands among them at the
end where it stood among them there; below them all where a rung let the best of those there go on.
Diverged runs stand below all others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from analysis.ranking import value
from analysis.store.state import RunState


@dataclass(frozen=True)
class Places:
    """The order of the configurations that have shown anything.

    Attributes:
        of: from 0, the worst, to 1, the best; the mean place for equals.
        stopped: those that are placed by what they had shown when they were stopped, or by now.
        unplaced: those that have shown nothing, or at no step that others were seen at.
    """

    of: Mapping[str, float]
    stopped: tuple[str, ...]
    unplaced: tuple[str, ...]


def places(groups: Mapping[str, Sequence[RunState]], by: str, lowest_first: bool = False) -> Places:
    """Places configurations, best at 1, each by the mean over its seeds.

    Args:
        groups: the runs of each configuration, by its id.
        by: a metric; what a stopped run showed of it is read from its evaluations on dev.
        lowest_first: the smallest value is the best.
    """
    sign = -1 if lowest_first else 1
    curves = {name: _curve(runs, by, sign) for name, runs in groups.items()}
    worst = sorted(name for name, runs in groups.items() if _came_to_nothing(runs, by))
    ends = {name: _end(runs, by, sign) for name, runs in groups.items() if name not in worst}
    ended = {name: end for name, end in ends.items() if end is not None}
    held = {name: max(curves[name]) for name in ends if name not in ended and curves[name]}
    order = _classes(ended)
    stopped: list[str] = []
    for step in sorted(set(held.values()), reverse=True):
        here = {name: curves[name][step] for name, last in held.items() if last == step}
        further = {name: curves[name][step] for group in order for name in group if step in curves[name]}
        if further or not order:
            order = _inserted(order, here, further)
            stopped += here
    order = [worst, *order] if worst else order
    return Places(_spread(order), tuple(stopped), tuple(sorted(set(groups) - {n for g in order for n in g})))


def _inserted(
    order: Sequence[list[str]], here: Mapping[str, float], further: Mapping[str, float]
) -> list[list[str]]:
    """The order with those of one step at the places that they had there among those that went further."""
    shown = sorted(further.values())
    at = [index for index, group in enumerate(order) for name in group if name in further]
    before: dict[int, dict[str, float]] = {}
    for name, score in here.items():
        beaten = bisect_left(shown, score)
        index = at[beaten - 1] + 1 if beaten else at[0] if at else 0
        before.setdefault(index, {})[name] = score
    return [
        group
        for index in range(len(order) + 1)
        for group in (*_classes(before.get(index, {})), *order[index : index + 1])
    ]


def _classes(values: Mapping[str, float]) -> list[list[str]]:
    """The names in sets of equal value, the lowest first."""
    ordered = sorted(values, key=lambda name: (values[name], name))
    return [list(group) for _, group in groupby(ordered, key=lambda name: values[name])]


def _spread(order: Sequence[Sequence[str]]) -> dict[str, float]:
    count = sum(map(len, order))
    found: dict[str, float] = {}
    before = 0
    for group in order:
        middle = before + (len(group) - 1) / 2
        found |= dict.fromkeys(group, middle / (count - 1) if count > 1 else 1.0)
        before += len(group)
    return found


def _came_to_nothing(runs: Sequence[RunState], by: str) -> bool:
    """Whether some run diverged, or ended without the value."""
    return any(
        run.status == "diverged" or (run.status == "completed" and value(run, by) is None) for run in runs
    )


def _end(runs: Sequence[RunState], by: str, sign: int) -> float | None:
    found = [each for run in runs if (each := value(run, by)) is not None]
    return sign * fmean(found) if found else None


def _curve(runs: Sequence[RunState], by: str, sign: int) -> dict[int, float]:
    """The mean over the seeds at each step at which one was evaluated; of failed runs nothing."""
    by_step: dict[int, list[float]] = {}
    for run in runs:
        for step, found in () if run.status == "failed" else _shown(run, by):
            if found is not None:
                by_step.setdefault(step, []).append(found)
    return {step: sign * fmean(values) for step, values in by_step.items()}


def _shown(run: RunState, by: str) -> list[tuple[int, float | None]]:
    if by == "score":
        return run.scores
    return [
        (record["step"], found)
        for record in run.evaluations
        for split, task, metric, found in record["rows"]
        if split == "dev" and f"{task}.{metric}" == by
    ]
