"""The ranking: every configuration's mean with its interval, and how far it is behind the best."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from analysis.page.drawing import svg
from analysis.page.findings import Findings, Lead, seconds_of
from analysis.page.markup import Section, figure, joined, note, paragraph, table
from analysis.page.subject import Candidate, Subject
from analysis.page.words import duration, gain, score, size, spread
from analysis.plots.scores import intervals
from analysis.show import is_loss

DRAWN = 20
LISTED = 50
_ROW = 24  # pixels


def ranking(subject: Subject, findings: Findings) -> Section:
    """The chart of the best, and the table."""
    found = subject.candidates
    if not found:
        return Section("ranking", "Ranking", note("No run has a result yet, so there is nothing to rank."))
    parts = [_chart(subject), _table(subject, findings), _footnotes(subject, findings)]
    return Section("ranking", "Ranking", joined(parts))


def _chart(subject: Subject) -> Markup:
    shown = subject.candidates[:DRAWN]
    widths = [each.row.half_width for each in shown]
    frame = pd.DataFrame(
        {
            "label": [each.short for each in shown],
            "mean": [each.mean for each in shown],
            "low": [_end(each, width, -1) for each, width in zip(shown, widths, strict=True)],
            "high": [_end(each, width, 1) for each, width in zip(shown, widths, strict=True)],
        }
    )
    runs = pd.DataFrame(
        [{"label": each.short, "value": value} for each in shown for value in each.row.by_seed.values()]
    )
    best = shown[0]
    drawn = svg(
        lambda axes: intervals(frame, runs, axes, subject.objective),
        "ranking-chart",
        f"{subject.objective} by configuration",
        f"{len(shown)} configurations from the best down; the best, {best.name}, has {score(best.mean)}.",
        height=70 + _ROW * len(shown),
    )
    more = len(subject.candidates) - len(shown)
    cut = f" The {more} below these are not drawn." if more else ""
    known = any(width is not None for width in widths)
    sure = "with its 95% interval" if known else "without an interval, for which it takes two seeds"
    return figure(drawn, f"Mean over seeds {sure}; a tick for each seed. The first is marked.{cut}")


def _end(candidate: Candidate, width: float | None, side: int) -> float:
    return float("nan") if width is None else candidate.mean + side * width


def _table(subject: Subject, findings: Findings) -> Markup:
    shown = subject.candidates[:LISTED]
    metrics = sorted(
        dict.fromkeys(name for each in shown for name in each.row.metrics if not is_loss(name)),
        key=lambda name: name in ("score", "unscaled"),
    )
    metrics = [name for name in metrics if name != subject.objective]
    behind = {lead.other.place: lead for lead in findings.leads}
    headers = ["#", "configuration", subject.objective, "seeds", "behind the best", *metrics]
    headers += ["trained parameters", "time a run"]
    rows = []
    for each in shown:
        lead, taken = behind.get(each.place), seconds_of(each)
        rows.append(
            [
                each.place,
                _called(each),
                spread(each.mean, each.row.half_width),
                each.row.runs,
                "" if lead is None else _behind(lead),
                *(score(each.row.metrics.get(name)) for name in metrics),
                size(each.row.trainable),
                "–" if taken is None else duration(taken),
            ]
        )
    return table(f"Configurations by {subject.objective}", headers, rows, text=(1,))


def _called(each: Candidate) -> Markup:
    """Its name, why it cannot be the best, and what it is."""
    name = Markup("{}").format(each.name + (f" ({each.reason})" if each.reason else ""))
    return name + Markup("<br><small>{}</small>").format(each.words) if each.words else name


def _behind(lead: Lead) -> str:
    difference = lead.behind.difference
    told = " *" if lead.behind.told_apart else ""
    return gain(-lead.value) + ("" if difference is None else f" ± {score(difference.half_width)}{told}")


def _footnotes(subject: Subject, findings: Findings) -> Markup:
    said: list[str] = []
    more = len(subject.candidates) - LISTED
    if more > 0:
        said.append(f"{more} more are not listed; python -m analysis best has all.")
    apart = [each for each in subject.candidates if each.reason]
    if apart:
        said.append(
            f"{_of(apart)} at the end cannot be called the best: too few seeds, or runs without a value."
        )
    if findings.comparisons:
        said.append(
            "Intervals are of Student's t at 95% over seeds. Differences are paired by seed where both have "
            "the same, else by Welch, each with its own interval; * stays beyond chance when corrected "
            f"for {findings.comparisons} comparisons (Holm, over every pair: the best is the best of all)."
        )
    return paragraph(" ".join(said), "small") if said else Markup("")


def _of(candidates: Sequence[Candidate]) -> str:
    return "1 configuration" if len(candidates) == 1 else f"{len(candidates)} configurations"
