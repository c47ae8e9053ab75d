"""How runs learned: the objective by step, and how far train and dev part."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
from markupsafe import Markup

from analysis.page import tables
from analysis.page.drawing import svg
from analysis.page.markup import NOTHING, Section, figure, figures, joined, note, paragraph, table
from analysis.page.subject import Candidate, Subject
from analysis.page.words import gain, score
from analysis.plots.curves import learning_curves, train_and_dev
from analysis.plots.style import LOOKS

OTHERS = 60
_SPLITS = ("train", "dev")


def learning(subject: Subject) -> Section:
    """The learning curves."""
    found = tables.curves(subject)
    title = "Learning curves"
    if found.empty:
        return Section("learning", title, note("No run has been evaluated yet, so there is no curve."))
    if (found.groupby("run_id")["step"].nunique() < 2).all():
        said = "Every run was evaluated once, at its end: with evaluation.every there would be curves."
        return Section("learning", title, note(said))
    shown = subject.candidates[: len(LOOKS)]
    frame = _over_seeds(found, shown)
    mine = {run.run_id for each in shown for run in each.runs}
    rest = found[~found["run_id"].isin(mine)].rename(columns={"run_id": "run"})
    chosen = list(dict.fromkeys(rest["run"]))
    rest = rest[rest["run"].isin(chosen[:: 1 + len(chosen) // OTHERS])]
    drawn = svg(
        lambda axes: learning_curves(frame, rest, axes, subject.objective),
        "learning-chart",
        f"{subject.objective} on dev by step",
        f"Means over seeds of the first {len(shown)} configurations; {rest['run'].nunique()} other runs.",
        height=330,
    )
    return Section(
        "learning", title, joined([figure(drawn, _caption(subject, shown, rest, len(chosen)), wide=True)])
    )


def _over_seeds(found: pd.DataFrame, shown: Sequence[Candidate]) -> pd.DataFrame:
    parts = []
    for each in shown:
        own = found[found["run_id"].isin(tables.run_ids(each))]
        curve = own.groupby("step")["value"].agg(["mean", "min", "max"]).reset_index()
        parts.append(curve.rename(columns={"min": "low", "max": "high"}).assign(label=each.short))
    columns = ["label", "step", "mean", "low", "high"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def _caption(subject: Subject, shown: Sequence[Candidate], rest: pd.DataFrame, others: int) -> str:
    said = "Lines are means over seeds, bands reach from the lowest seed to the highest." if shown else ""
    drawn = rest["run"].nunique()
    if drawn:
        of = "" if drawn == others else f" of {others}"
        said += f" Thin: {drawn}{of} other runs, a dot where each ended or was stopped."
    limits = {str((run.settings.get("evaluation") or {}).get("dev_limit") or "") for run in subject.runs}
    if limits - {""}:
        limit = " or ".join(sorted(limits - {""}))
        said += f" Before the end only {limit} examples of each task's dev are looked at, at the end all."
    return said


def gap(subject: Subject) -> Section:
    """Train against dev over time, of the best configuration, for each task."""
    title = "Train against dev"
    if not subject.candidates:
        return Section("gap", title, note("No run has a result yet, so there is nothing to compare."))
    best = subject.candidates[0]
    found = tables.evaluated(subject.sources, tables.run_ids(best))
    charts, rows = [], []
    for task in dict.fromkeys(name for name in found["task"] if name):
        own = found[found["task"] == task]
        metric = compared_metric(own)
        if metric is None:
            continue
        wide = own[own["metric"] == metric].pivot_table(index="step", columns="split", values="value")
        frame = wide[list(_SPLITS)].dropna().reset_index()
        if frame.empty:
            continue
        last = frame.iloc[-1]
        rows.append(
            [task, metric, score(last["train"]), score(last["dev"]), gain(last["train"] - last["dev"])]
        )
        if len(frame) > 1:
            charts.append(_gap_chart(task, metric, frame))
    if not rows:
        said = "The runs were not evaluated on train, which evaluation.train_limit above 0 does."
        return Section("gap", title, note(said))
    said = (
        f"{best.name}, in the mean over its seeds. Where train goes on to rise and dev does not, it overfits."
    )
    last_step = table("At the last evaluation", ["task", "metric", "train", "dev", "gap"], rows, text=(0, 1))
    few = NOTHING if charts else note("It was evaluated once, at its end, so there is no curve.")
    return Section("gap", title, joined([paragraph(said), figures(charts), few, last_step]))


def compared_metric(found: pd.DataFrame) -> str | None:
    """What train and dev can be compared by: a metric that both have, a loss only for want of others."""
    both = [set(found.loc[found["split"] == split, "metric"]) for split in _SPLITS]
    shared = sorted(both[0] & both[1], key=lambda name: (name in ("loss", "mse"), name))
    return shared[0] if shared else None


def _gap_chart(task: str, metric: str, frame: pd.DataFrame) -> Markup:
    last = frame.iloc[-1]
    drawn = svg(
        partial(train_and_dev, frame, metric=f"{task}: {metric}"),
        f"gap-{task}",
        f"{task}: {metric} on train and on dev by step",
        f"At the end {score(last['train'])} on train and {score(last['dev'])} on dev.",
    )
    return figure(drawn, f"{task}: {metric}")
