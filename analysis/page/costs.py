"""Score against what it cost, and what the whole sweep cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
from markupsafe import Markup

from analysis.page.drawing import svg
from analysis.page.findings import seconds_of
from analysis.page.markup import Section, count, figure, figures, joined, listed, note, paragraph, table
from analysis.page.subject import Candidate, Subject
from analysis.page.words import duration, memory, score, size
from analysis.plots.scores import front
from analysis.store.state import RunState

DOTS = 300


def tradeoffs(subject: Subject) -> Section:
    """The objective against trainable parameters and against time, with the front of each."""
    title = "Score against cost"
    if not subject.contenders:
        return Section("tradeoffs", title, note("No run has a result yet, so there is nothing to weigh."))
    views: tuple[tuple[str, str, Callable[[Candidate], float | None]], ...] = (
        ("parameters", "trained parameters", lambda each: each.row.trainable),
        ("seconds", "seconds of training and evaluation", seconds_of),
    )
    charts, tables = [], []
    for name, label, cost in views:
        known = [(each, found) for each in subject.contenders if (found := cost(each)) is not None]
        if not known:
            tables.append(note(f"No run says its {label}."))
            continue
        best = _front(known)
        charts.append(_chart(subject, name, label, known, best))
        tables.append(_listing(subject, label, best))
    said = "On the front stands what nothing else beats in both: choose among these by what you can afford."
    return Section("tradeoffs", title, joined([paragraph(said), figures(charts), *tables]))


def _front(known: Sequence[tuple[Candidate, float]]) -> list[tuple[Candidate, float]]:
    """Those that none reaches at the same or a lower cost, from the lowest cost on."""
    found: list[tuple[Candidate, float]] = []
    for each, cost in sorted(known, key=lambda pair: (pair[1], -pair[0].mean, pair[0].place)):
        if not found or each.mean > found[-1][0].mean:
            found.append((each, cost))
    return found


def _chart(
    subject: Subject,
    name: str,
    label: str,
    known: Sequence[tuple[Candidate, float]],
    best: Sequence[tuple[Candidate, float]],
) -> Markup:
    places = {each.place for each, _ in best}
    thinned = known[:: 1 + len(known) // DOTS]
    shown = [pair for pair in thinned if pair[0].place not in places] + list(best)
    frame = pd.DataFrame(
        {
            "cost": [cost for _, cost in shown],
            "value": [each.mean for each, _ in shown],
            "front": [each.place in places for each, _ in shown],
            "label": [f"#{each.place}" for each, _ in shown],
        }
    )
    drawn = svg(
        partial(front, frame, cost=label, name=subject.objective),
        f"front-{name}",
        f"{subject.objective} against {label}",
        f"{len(best)} of {len(known)} configurations are on the front.",
    )
    cut = f" {len(shown)} of {len(known)} are drawn." if len(shown) < len(known) else ""
    return figure(drawn, f"Against {label}; numbers are places in the ranking.{cut}")


def _listing(subject: Subject, label: str, best: Sequence[tuple[Candidate, float]]) -> Markup:
    rows = [[f"#{each.place}", each.name, score(each.mean), size(cost)] for each, cost in best]
    return table(
        f"The front against {label}", ["#", "configuration", subject.objective, label], rows, text=(1,)
    )


def bill(subject: Subject) -> Section:
    """What the runs took, those that came to nothing included."""
    if not subject.runs:
        return Section("cost", "Cost", note("Nothing has been run yet, so it has cost nothing."))
    rows = []
    for status in dict.fromkeys(run.status or "waiting" for run in subject.runs):
        runs = [run for run in subject.runs if (run.status or "waiting") == status]
        rows.append([status, len(runs), *_taken(runs)])
    if len(rows) > 1:
        rows.append(["all", len(subject.runs), *_taken(subject.runs)])
    headers = ["status", "runs", "training", "evaluation", "start-up", "steps", "tokens"]
    parts = [paragraph(_summary(subject)), table("What the runs took", headers, rows)]
    return Section("cost", "Cost", joined(parts))


def _taken(runs: Sequence[RunState]) -> list[str]:
    """Seconds of each kind, steps and tokens, over all of them."""
    records = [run.ended or (run.evaluations[-1] if run.evaluations else {}) for run in runs]
    parts = ("seconds_training", "seconds_evaluation", "seconds_startup")
    seconds = [duration(sum(float(record.get(part) or 0.0) for record in records)) for part in parts]
    tokens = sum(int(record.get("tokens") or 0) for record in records)
    return [*seconds, size(sum(run.step for run in runs)), size(tokens)]


def _summary(subject: Subject) -> str:
    total = sum(run.seconds for run in subject.runs)
    said = f"{count(len(subject.runs), 'run')} took {duration(total)} of run time together"
    begun = [run.begun for run in subject.runs if run.begun is not None]
    ended = [run.ending.time for run in subject.runs if run.ending is not None]
    if begun and ended:
        said += f", over {duration(max(ended) - min(begun))} from the first begin to the last end"
    said += "."
    devices = Counter(
        str(run.ended["device"]) for run in subject.runs if run.ended and run.ended.get("device")
    )
    if devices:
        said += (
            f" Devices: {listed([f'{device} ({times} runs)' for device, times in devices.most_common(4)])}."
        )
    peaks = [
        int(run.ended["peak_memory"]) for run in subject.runs if run.ended and run.ended.get("peak_memory")
    ]
    if peaks:
        said += f" Peak memory of a run: {memory(max(peaks))}."
    lost = sum(len(run.losses) for run in subject.runs)
    if lost:
        said += f" {count(lost, 'attempt')} were lost or ran out of memory, and were begun again."
    return said
