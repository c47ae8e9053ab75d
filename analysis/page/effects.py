"""What the axes of a sweep did: the effect of each value, and how much hangs on each axis of a search."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import pandas as pd
from markupsafe import Markup

from analysis.effects import Effect, effects_of
from analysis.effects_show import in_words as what_each_did
from analysis.importance import Importances, Share, importances
from analysis.importance_show import in_words as what_matters
from analysis.page.drawing import svg
from analysis.page.markup import NOTHING, figure, joined, note, paragraph, table
from analysis.page.subject import Subject, spoken
from analysis.page.words import gain, score
from analysis.plots.fields import importance
from analysis.store.errors import StoreError

EFFECTS = 60
AXES = 16
MOST_POINTS = 60
"""Points of which importance is reckoned for a page; of more, its resampled forests take minutes."""
_NAMED = ("ablation", "list")


def effects(subject: Subject) -> Markup:
    """The effects of a grid, a list or an ablation; of a search's points too few share a value."""
    if subject.kind == "search":
        return NOTHING
    found = effects_of(subject.state, subject.sweep, subject.objective)
    if not found.axes:
        return NOTHING
    rows = [row for axis in found.axes for row in _rows(axis)]
    headers = ["field", "value", f"mean {subject.objective}", "runs", "difference", "p"]
    against = "the first" if subject.kind in _NAMED else "the value before it"
    said = (
        f"A difference is of a value and {against}, every other field at its average, with its 95% interval; "
        "p is corrected for all of them (Holm)."
    )
    if len(rows) > EFFECTS:
        said += f" The first {EFFECTS} of {len(rows)} values are listed."
    return joined(
        [
            Markup("<h3>What each value did</h3>"),
            paragraph(what_each_did(found)),
            table(f"{subject.objective} by value of each field", headers, rows[:EFFECTS], text=(0, 1)),
            paragraph(said, "small"),
        ]
    )


def _rows(axis: tuple[Effect, ...]) -> Iterator[list[object]]:
    for at, each in enumerate(axis):
        field = "" if at else ", ".join((each.field, *each.along))
        runs = f"{each.runs} (+{each.without} without a result)" if each.without else str(each.runs)
        yield [field, spoken(each.value), score(each.mean), runs, _told(each, at), _chance(each.p)]


def _told(each: Effect, at: int) -> str:
    if not at:
        return ""
    if each.difference is None:
        return "cannot be told apart" if each.runs else "no result"
    wide = each.difference.half_width
    return gain(each.difference.value) + ("" if math.isnan(wide) else f" ± {score(wide)}")


def importance_of_axes(subject: Subject) -> Markup:
    """How much hangs on each axis of a search or a grid, as far as its points can tell."""
    heading = Markup("<h3>How much hangs on each axis</h3>")
    if subject.sweep is None or subject.kind in _NAMED:
        return NOTHING
    points = len({run.config_id for run in subject.runs})
    if points > MOST_POINTS:
        said = f"Of {points} points, python -m analysis importance tells it, which takes minutes."
        return joined([heading, note(said)])
    try:
        found = importances(subject.state, subject.sweep, subject.objective)
    except StoreError as error:
        said = str(error)
        return joined([heading, note(f"{said[0].upper()}{said[1:]}.")])
    return joined([heading, paragraph(what_matters(found)), _chart(found), _listing(found)])


def _chart(found: Importances) -> Markup:
    shown = [each for each in found.axes if each.variance is not None][:AXES]
    if not shown:
        return note("Too few points ask any axis for the share of the variance that it explains.")
    shares = [each.variance for each in shown if each.variance is not None]
    frame = pd.DataFrame(
        {
            "label": [each.axis for each in shown],
            "value": [each.value for each in shares],
            "low": [each.low for each in shares],
            "high": [each.high for each in shares],
        }
    )
    drawn = svg(
        partial(importance, frame),
        "importance-chart",
        "The share of the variance that each axis explains",
        f"{shown[0].axis} explains the most, {shares[0].value:.0%}.",
        height=60 + 34 * len(shown),
    )
    said = (
        "The share of the variance of places that an axis explains by itself (fANOVA), and its 95% interval."
    )
    return figure(drawn, said)


def _listing(found: Importances) -> Markup:
    rows = [
        [each.axis, each.points, _share(each.variance), _share(each.best), _chance(each.p), each.among_best]
        for each in found.axes
    ]
    headers = ["axis", "points", "of the variance", "of the best", "p", f"among the best {found.best}"]
    return table("Importance of axes, by fANOVA and by PED-ANOVA", headers, rows, text=(0, 5))


def _share(each: Share | None) -> str:
    return "–" if each is None else f"{each.value:.0%} ({each.low:.0%} to {each.high:.0%})"


def _chance(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
