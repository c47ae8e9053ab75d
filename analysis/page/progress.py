"""How a search went: its points in the order in which they were tried, and where they were stopped."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.page.drawing import svg
from analysis.page.markup import NOTHING, Section, count, figure, joined, note, paragraph, table
from analysis.page.subject import Subject
from analysis.page.words import score
from analysis.plots.curves import best_of, history
from analysis.ranking import value
from analysis.selection import expected_best
from analysis.store.state import RunState


def progress(subject: Subject) -> Section:
    """The search's points in their order."""
    title = "How the search went"
    frame = points(subject)
    if frame.empty:
        return Section("progress", title, note("No point has been evaluated yet."))
    drawn = svg(
        lambda axes: history(frame, axes, subject.objective),
        "progress-chart",
        f"{subject.objective} of each point in the order tried",
        f"{len(frame)} points; the best that went to its end has {score(float(frame['best'].max()))}.",
    )
    caption = "A point's first seed each, by when it was begun; stopped ones at the last that they showed."
    parts = [paragraph(_words(subject, frame)), figure(drawn, caption, wide=True)]
    parts.append(_expected(subject, frame))
    stops = Counter(run.step for run in subject.runs if run.status == "stopped")
    if stops:
        rows = [[f"{step:,}", times] for step, times in sorted(stops.items())]
        parts.append(table("Points held at a rung", ["step", "points"], rows, text=()))
    return Section("progress", title, joined(parts))


def _expected(subject: Subject, frame: pd.DataFrame) -> Markup:
    """The best to be expected of so many points, which is defined for points drawn at random alone."""
    sampler = (subject.declaration.get("sampler") or {}).get("name")
    if sampler != "random" or not frame["whole"].all() or len(frame) < _tried(subject):
        return NOTHING  # of those that are left alone, it would say too much
    best = expected_best(list(frame["value"]), sampler).unbiased
    drawn = svg(
        lambda axes: best_of(best, axes, subject.objective),
        "best-of-chart",
        f"The best {subject.objective} to be expected of so many points",
        f"{score(best[0])} of one point, {score(best[-1])} of {len(best)}.",
    )
    return figure(drawn, "What a random search of so many points is expected to find (Tang et al. 2020).")


def points(subject: Subject) -> pd.DataFrame:
    """A row per point that showed something. Columns order, value, whole, best (so far, of whole ones)."""
    first: dict[str, RunState] = {}
    for run in subject.runs:
        if run.begun is not None:
            first.setdefault(run.config_id, run)
    rows = [
        (order, shown, run.status == "completed")
        for order, run in enumerate(first.values(), 1)
        if (shown := _shown(subject, run)) is not None
    ]
    frame = pd.DataFrame(rows, columns=["order", "value", "whole"]).astype({"whole": bool})
    return frame.assign(best=frame["value"].where(frame["whole"], -np.inf).cummax().replace(-np.inf, np.nan))


def _tried(subject: Subject) -> int:
    return len({run.config_id for run in subject.runs if run.begun is not None})


def _shown(subject: Subject, run: RunState) -> float | None:
    """What a completed run came to; of another one the last score, where that is what the search is by."""
    if run.status == "completed":
        return value(run, subject.objective)
    if run.status == "stopped" and subject.objective == "score":
        return next((score for _, score in reversed(run.scores) if score is not None), None)
    return None


def _words(subject: Subject, frame: pd.DataFrame) -> str:
    tried = _tried(subject)
    whole = int(frame["whole"].sum())
    said = f"{count(tried, 'point')} tried, {whole} to their ends."
    sampler = (subject.declaration.get("sampler") or {}).get("name")
    if sampler:
        said += f" Proposed by {sampler}."
    if subject.objective == "score" and tried > whole:
        said += " The others were stopped early, or came to nothing."
    budget = (subject.declaration.get("budget") or {}).get("points")
    if budget and tried < budget:
        said += f" Of its budget of {budget} points {budget - tried} are left."
    return said
