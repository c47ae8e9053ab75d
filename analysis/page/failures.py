"""What came to nothing, and why."""

from __future__ import annotations

from analysis.page.markup import (
    Section,
    code,
    count,
    details,
    joined,
    listed,
    note,
    paragraph,
    table,
    visible,
)
from analysis.page.subject import Subject, described
from analysis.store.state import RunState

SHOWN = 20
_LONGEST = 6000
"""Characters of a traceback, from its end."""


def failures(subject: Subject) -> Section:
    """Runs that failed or diverged, and those that have not ended."""
    title = "Failures"
    if not subject.runs:
        return Section("failures", title, note("Nothing has been run yet."))
    found = [run for run in subject.runs if run.status in ("failed", "diverged")]
    counts = [f"{times} {status}" for status, times in subject.statuses.most_common()]
    parts = [paragraph(f"Of {count(len(subject.runs), 'run')}: {listed(counts)}.")]
    if not found:
        parts.append(note("No run has failed and none has diverged."))
        return Section("failures", title, joined(parts))
    rows = [[run.run_id, run.status, _where(subject, run), run.step, _message(run)] for run in found[:SHOWN]]
    headers = ["run", "status", "configuration", "steps", "what it said"]
    parts.append(table("Runs that came to nothing", headers, rows, text=(0, 1, 2, 4)))
    parts += [
        details(f"Traceback of {run.run_id}", code(trace[-_LONGEST:]))
        for run in found[:SHOWN]
        if (trace := _error(run, "traceback"))
    ]
    if len(found) > SHOWN:
        parts.append(paragraph(f"{len(found) - SHOWN} more: python -m analysis errors has all.", "small"))
    return Section("failures", title, joined(parts))


def _where(subject: Subject, run: RunState) -> str:
    points = subject.declared.points if subject.declared else {}
    point = points.get(run.run_id) or {}
    return described(point, list(point)) or run.config_id


def _message(run: RunState) -> str:
    if run.status == "diverged":
        return "a loss or a metric was not finite"
    first = visible((_error(run, "message") or "").strip())[:200]
    return f"{_error(run, 'kind') or 'error'}: {first}"


def _error(run: RunState, name: str) -> str | None:
    return ((run.ended or {}).get("error") or {}).get(name)
