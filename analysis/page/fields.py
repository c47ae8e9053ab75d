"""What the fields of a configuration have to do with the outcome: in numbers, all at once, and one by one."""

from __future__ import annotations

from functools import partial

import pandas as pd
from markupsafe import Markup

from analysis.page.drawing import svg
from analysis.page.effects import effects, importance_of_axes
from analysis.page.markup import Section, figure, figures, joined, note, paragraph
from analysis.page.subject import Subject, spoken
from analysis.plots.fields import parallel_coordinates, slices
from analysis.show import shortened

LINES = 100
DOTS = 300
SLICES = 12


def fields(subject: Subject) -> Section:
    """What matters among the axes."""
    title = "What matters"
    if len(subject.candidates) < 2:
        said = "It takes two configurations with a result to tell what matters, and there are fewer."
        return Section("fields", title, note(said))
    if not subject.axes:
        return Section("fields", title, note("The configurations have no axis in which they differ."))
    parts = [effects(subject), importance_of_axes(subject), _parallel(subject), _slices(subject)]
    return Section("fields", title, joined(parts))


def _parallel(subject: Subject) -> Markup:
    shown = subject.candidates[:LINES]
    columns = dict(zip(subject.axes, shortened(subject.axes, [subject.objective]), strict=True))
    frame = pd.DataFrame(
        [{short: _plain(each.point.get(name)) for name, short in columns.items()} for each in shown],
        dtype=object,
    )
    frame[subject.objective] = [each.mean for each in shown]
    best = max(1, min(5, len(shown) // 10))
    drawn = svg(
        partial(parallel_coordinates, frame, subject.objective, best),
        "parallel-chart",
        f"All fields and {subject.objective} at once",
        f"A line for each of {len(shown)} configurations through its value of each field.",
        height=30 + 52 * len(frame.columns),
    )
    more = len(subject.candidates) - len(shown)
    cut = f" The {more} lowest are not drawn." if more else ""
    which = "the best" if best == 1 else f"the best {best}"
    caption = f"A line for each configuration, down to its {subject.objective}; thick: {which}.{cut}"
    return joined([Markup("<h3>All fields at once</h3>"), figure(drawn, caption, wide=True)])


def _slices(subject: Subject) -> Markup:
    shown = subject.candidates[:: 1 + len(subject.candidates) // DOTS]
    names = subject.axes[:SLICES]
    short = shortened(subject.axes, [subject.objective])
    charts = []
    for at, (name, label) in enumerate(zip(names, short, strict=False)):
        frame = pd.DataFrame(
            {
                "field": pd.Series([_plain(each.point.get(name)) for each in shown], dtype=object),
                "value": [each.mean for each in shown],
            }
        )
        drawn = svg(
            partial(slices, frame, label, name=subject.objective),
            f"slice-{at}",
            f"{subject.objective} by {name}",
            f"A dot for each of {len(shown)} configurations.",
            height=230,
        )
        charts.append(figure(drawn, Markup("<code>{}</code>").format(name)))
    said = (
        "A dot is a configuration, whatever else it differs in; a bar is the mean of those with that value."
    )
    if len(subject.axes) > SLICES:
        said += f" The first {SLICES} of {len(subject.axes)} fields are drawn."
    if len(shown) < len(subject.candidates):
        said += (
            f" Of {len(subject.candidates)} configurations {len(shown)} are drawn, evenly over the ranking."
        )
    return joined([Markup("<h3>One field at a time</h3>"), paragraph(said, "small"), figures(charts)])


def _plain(value: object) -> object:
    """Numbers and text as they are; anything else as one says it."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    return spoken(value)
