"""The page: all sections in the order in which they are read."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from analysis.page.costs import bill, tradeoffs
from analysis.page.failures import failures
from analysis.page.fields import fields
from analysis.page.findings import found
from analysis.page.learning import gap, learning
from analysis.page.markup import Section, count, html, joined
from analysis.page.progress import progress
from analysis.page.ranking import ranking
from analysis.page.reproduce import reproduce
from analysis.page.subject import Subject
from analysis.page.tasks import by_task, tasks
from analysis.page.verdict import verdict
from analysis.page.worst import worst


def page(results: str | Path, sweep: str | None = None) -> str:
    """One self-contained HTML page about a sweep; what is missing is said in its place.

    Args:
        sweep: its name; may be left out where the folder has one only.

    Raises:
        StoreError: no results in the folder; no such sweep, or several and none named.
    """
    subject = Subject(results, sweep)
    findings = found(subject)
    errors = by_task(subject, subject.candidates[0]) if subject.candidates else []
    sections = [
        verdict(subject, findings),
        ranking(subject, findings),
        learning(subject),
        *([progress(subject)] if subject.kind == "search" else []),
        gap(subject),
        fields(subject),
        tradeoffs(subject),
        tasks(subject, errors),
        worst(subject, errors),
        bill(subject),
        failures(subject),
        reproduce(subject),
    ]
    style = files("analysis.page").joinpath("page.css").read_text(encoding="utf-8")
    return html(f"{subject.title}: report", style, _body(subject, sections))


def _body(subject: Subject, sections: list[Section]) -> Markup:
    first, *rest = sections
    return joined(
        [
            Markup("<header><h1>{}</h1><p>{}</p></header>\n<main>\n").format(subject.title, _about(subject)),
            _section(first),
            Markup('<nav aria-label="Contents"><ol>{}</ol></nav>\n').format(
                joined(Markup('<li><a href="#{}">{}</a></li>').format(each.id, each.title) for each in rest)
            ),
            *map(_section, rest),
            Markup("</main>"),
        ]
    )


def _section(section: Section) -> Markup:
    return Markup(
        '<section id="{0}" aria-labelledby="{0}-heading">\n<h2 id="{0}-heading">{1}</h2>\n{2}\n</section>\n'
    ).format(section.id, section.title, section.body)


def _about(subject: Subject) -> Markup:
    """What was looked at, and when."""
    notices = joined(Markup(" Notice: {}.").format(each) for each in subject.state.notices)
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    completed = subject.statuses["completed"]
    kind = f"{'An' if subject.kind[0] in 'aeiou' else 'A'} {subject.kind}"
    return Markup("{} by {}: {} of {} completed. As of {} UTC.{}").format(
        kind, subject.objective, completed, count(len(subject.runs), "run"), moment, notices
    )
