"""What a search came to, as text that is read on a terminal and in a file alike."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.ranking import mean, seconds, value
from analysis.show import Column, as_text, laid_out, terminal_width
from analysis.stats import mean_over_seeds
from analysis.store.state import State
from sweeps.search.cells import Quests
from sweeps.search.finalists import Finalist, closest
from sweeps.search.quest import Quest
from sweeps.search.space import Point, Space, same, spoken

NEXT_BEST = 5
"""Points shown beside the finalists."""
WIDTH, INDENT = 100, "   "


def finals(quests: Quests, state: State) -> list[str]:
    """The finalists or the front of each cell, the next best, and a table of the cells."""
    shown = [text for cell, quest in quests.cells for text in _of_cell(cell, quest, state)]
    return [*shown, *([_by_cell(quests, state)] if quests.search.axes else [])]


def without_winner(quests: Quests, state: State) -> str | None:
    """Why no point is called the best; None before anything has ended."""
    terms = quests.search.terms
    found = [each for _, quest in quests.cells for each in quest.ranked(state) if each.values]
    broken = [each for each in found if not terms.kept(each.runs)]
    nearest = closest(broken, terms)
    if nearest is None:
        return None if found else _without_value(quests, state)
    excesses = terms.excesses(nearest.runs)
    texts = [
        f"{each.text} (it has {_told(mean([each.measured(run) for run in nearest.runs]), each.share)})"
        for each in terms.constraints
        if excesses[each.text] > 0
    ]
    who = "No point keeps" if len(broken) == len(found) else "None of the finalists keeps, over its seeds,"
    return (
        f"{who} every constraint, and none is called the best. The closest is {nearest.config_id}, "
        f"with {nearest.mean:.4f}: it breaks {', '.join(texts)}. Its point: {spoken(nearest.point)}"
    )


def _without_value(quests: Quests, state: State) -> str | None:
    """How the runs ended, where none has come to a value."""
    runs = [run for each in quests.listed(state) if (run := state.runs.get(each.run.run_id)) is not None]
    endings = Counter(run.status for run in runs if run.final)
    if not endings:
        return None
    told = ", ".join(f"{number} {status}" for status, number in endings.items())
    return f"None is called the best: no run has come to a {quests.search.objective} ({told})"


def _of_cell(cell: Mapping[str, Any], quest: Quest, state: State) -> list[str]:
    where = f" of {spoken(cell)}" if cell else ""
    space, against = quest.search.space, quest.search.against
    finalists = sorted((each for each in quest.finalists(state) if each.values), key=lambda one: -one.mean)
    if against is not None:
        title = f"The front{where}, score against {against}, chosen by each point's first seed"
        return [_listed(title, quest.front(state), space)]
    shown = [_listed(f"Finalists{where}, by their mean", finalists, space)] if finalists else []
    if cell:
        return shown
    mine = {each.run.config_id for each in quest.listed(state)} - {each.config_id for each in finalists}
    others = [each for each in quest.ranked(state) if each.values and each.config_id in mine]
    if finalists:
        others = [each for each in others if quest.search.terms.kept(each.runs)]
    if others:
        which, more = ("next best", " more") if finalists else ("best", "")
        title = f"The {which} of {len(others)}{more} points that went to their ends"
        shown.append(_listed(title, others[:NEXT_BEST], space))
    return shown


def _listed(title: str, found: Sequence[Finalist], space: Space) -> str:
    """A line of numbers for each point, and below it the words in which the points differ."""
    lines = as_text(laid_out(_columns(found))).rstrip().splitlines()
    shown = [f"{title} (± is a 95% interval over seeds):", *lines[:2]]
    told = told_apart([each.point for each in found], space)
    width = min(terminal_width(), WIDTH)
    for line, point in zip(lines[2:], told, strict=False):
        words = textwrap.wrap(spoken(point), width, initial_indent=INDENT, subsequent_indent=INDENT)
        shown += [line, *words]
    return "\n".join([*shown, *lines[2 + len(found) :]])  # what a narrow terminal leaves out


def _columns(found: Sequence[Finalist]) -> list[Column]:
    return [
        Column("score", [_score(each) for each in found]),
        Column("seeds", [str(len(each.values)) for each in found], 1, True),
        Column("trained parameters", [_trainable(each) for each in found], 1, True),
        Column("seconds", [_seconds(each) for each in found], 1, True),
        Column("configuration", [each.config_id for each in found], 1),
    ]


def told_apart(points: Sequence[Point], space: Space) -> list[dict[str, Any]]:
    """Of each point what the points do not share; of a lone one what the space does not fix."""
    names = dict.fromkeys(name for point in points for name in point)
    differing = [
        name
        for name in names
        if any(name not in point or not same(point[name], points[0].get(name)) for point in points)
    ]
    if len(points) == 1 or not differing:
        differing = [name for name in names if not space.parameters[name].fixed]
    return [{name: point[name] for name in differing if name in point} for point in points]


def _by_cell(quests: Quests, state: State) -> str:
    rows = [(cell, quest, quest.winner(state)) for cell, quest in quests.cells]
    axes = [Column(axis, [str(cell[axis]) for cell, *_ in rows]) for axis in quests.search.axes]
    columns = [
        *axes,
        Column("points", [str(quest.tried(state)) for _, quest, _ in rows], 1, True),
        Column("best score", ["-" if best is None else _score(best) for *_, best in rows]),
        Column("seeds", ["-" if best is None else str(len(best.values)) for *_, best in rows], 1, True),
        Column(
            "trained parameters", ["-" if best is None else _trainable(best) for *_, best in rows], 1, True
        ),
        Column("seconds", ["-" if best is None else _seconds(best) for *_, best in rows], 1, True),
        Column("configuration", ["-" if best is None else best.config_id for *_, best in rows], 1),
    ]
    return "By cell:\n" + as_text(laid_out(columns)).rstrip()


def _score(each: Finalist) -> str:
    found = mean_over_seeds(list(each.values.values()))
    return f"{each.mean:.4f}" + ("" if found is None else f" ± {found.half_width:.4f}")


def _trainable(each: Finalist) -> str:
    counts = [value(run, "trainable") for run in each.runs]
    return next((f"{count:,.0f}" for count in counts if count is not None), "-")


def _seconds(each: Finalist) -> str:
    found = mean([seconds(run) for run in each.runs])
    return "-" if found is None else f"{found:.1f}"


def _told(found: float | None, share: bool) -> str:
    if found is None:
        return "none"
    return f"{found:.2%}" if share else f"{found:.4f}" if abs(found) < 1000 else f"{found:,.0f}"
