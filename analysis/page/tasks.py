"""Each task's errors: confusion matrices, residuals, and the figures that published reports give of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.page import tables
from analysis.page.drawing import svg
from analysis.page.markup import Section, count, figure, figures, joined, note, paragraph, table
from analysis.page.subject import Candidate, Subject
from analysis.page.words import score
from analysis.plots.errors import confusion, residuals

COMPARED = 5
"""Configurations whose regression figures stand beside each other."""
_MOST_CLASSES = 30


@dataclass(frozen=True)
class TaskErrors:
    """What a configuration's runs predicted for a task's dev examples: columns run_id, example_id,
    prediction and label."""

    task: str
    regression: bool
    found: pd.DataFrame

    @property
    def classes(self) -> list[str]:
        """From class 0 to the highest that is seen or predicted."""
        highest = self.found[["label", "prediction"]].to_numpy().max()
        return [str(each) for each in range(int(highest) + 1)]


def by_task(subject: Subject, candidate: Candidate) -> list[TaskErrors]:
    """The errors of a configuration; none where it has no predictions."""
    predictions = tables.predicted(subject.sources, tables.run_ids(candidate))
    continuous = regressions(subject)
    return [
        TaskErrors(str(task), task in continuous or not _whole(found), found)
        for task, found in predictions.groupby("task", sort=True)
    ]


def regressions(subject: Subject) -> set[str]:
    """The tasks whose runs have a correlation or a squared error, which only a regression's have."""
    names = {name for run in subject.runs for name in (run.ended or {}).get("metrics") or ()}
    pairs = (name.rpartition(".") for name in names)
    return {task for task, _, metric in pairs if metric in ("pearson", "mse")}


def tasks(subject: Subject, errors: Sequence[TaskErrors]) -> Section:
    """The errors of the best configuration, task by task."""
    title = "Errors by task"
    if not subject.candidates:
        return Section("tasks", title, note("No run has a result yet, so there are no errors to look at."))
    best = subject.candidates[0]
    if not errors:
        said = f"The results hold no predictions of {best.name}, so its errors cannot be shown."
        return Section("tasks", title, note(said))
    seeds = count(best.row.runs, "seed")
    said = f"{best.name} on all of dev at the kept step, over {seeds}."
    charts = figures(chart for each in errors for chart in _charts(each))
    numbers = [_figures(subject, each) for each in errors if each.regression]
    classes = [_per_class(each) for each in errors if not each.regression]
    return Section("tasks", title, joined([paragraph(said), charts, *numbers, *classes]))


def _charts(errors: TaskErrors) -> Iterator[Markup]:
    found, task = errors.found, errors.task
    runs = found["run_id"].nunique()
    if errors.regression:
        frame = pd.DataFrame({"label": found["label"], "residual": found["prediction"] - found["label"]})
        far = float((frame["residual"].abs() >= _range(found) / 2).mean())
        drawn = svg(
            partial(residuals, frame),
            f"residuals-{task}",
            f"{task}: residuals by label",
            f"Prediction minus label for {len(frame)} predictions; the line is the mean at each label.",
            height=300,
        )
        yield figure(
            drawn,
            f"{task}: prediction minus label, darker for more examples. {far:.1%} are off by half the "
            f"labels' range or more.",
        )
        return
    if len(errors.classes) > _MOST_CLASSES:
        yield note(f"{task}: {len(errors.classes)} classes are too many for a matrix.")
        return
    counts = confusion_counts(found, len(errors.classes)) / runs
    right = float(np.trace(counts) / counts.sum())
    drawn = svg(
        partial(confusion, counts, errors.classes),
        f"confusion-{task}",
        f"{task}: confusion matrix",
        f"The share of each label's examples by predicted class; {right:.1%} of all are right.",
        height=330,
    )
    yield figure(
        drawn, f"{task}: of each label's examples, how many were predicted as what. {right:.1%} are right."
    )


def confusion_counts(found: pd.DataFrame, classes: int) -> np.ndarray:
    """Examples by label and predicted class. [classes, classes]"""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (found["label"].astype(int), found["prediction"].astype(int)), 1)
    return counts


def _per_class(errors: TaskErrors) -> Markup:
    """Precision, recall and F₁ of each class, over the runs together."""
    counts = confusion_counts(errors.found, len(errors.classes))
    runs = errors.found["run_id"].nunique()
    rows = []
    for at, name in enumerate(errors.classes):
        right, labelled, said = counts[at, at], counts[at].sum(), counts[:, at].sum()
        recall = right / labelled if labelled else None
        precision = right / said if said else None
        both = None if recall is None or precision is None or not right else 2 / (1 / recall + 1 / precision)
        rows.append([name, f"{labelled / runs:.0f}", score(precision), score(recall), score(both)])
    headers = ["class", "examples", "precision", "recall", "F₁"]
    return table(f"{errors.task}: by class", headers, rows)


def _figures(subject: Subject, errors: TaskErrors) -> Markup:
    """MSE, RMSE, MAE and R² of the first configurations, each in the mean over its seeds."""
    shown = subject.candidates[:COMPARED]
    rows = []
    for each in shown:
        found = tables.predicted(subject.sources, tables.run_ids(each), errors.task)
        if len(found):
            rows.append([each.name, *(_over_runs(found, name) for name in _FIGURES)])
    caption = f"{errors.task}: regression figures, mean ± deviation over seeds"
    return table(caption, ["configuration", *_FIGURES], rows)


_FIGURES = ("MSE", "RMSE", "MAE", "R²", "Pearson")


def regression_figures(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Mean squared error, its root, mean absolute error, 1 - MSE / variance, and the correlation. [n], [n]

    The last two are nan where the labels, or the predictions, are all alike.
    """
    residual = prediction - label
    squared = float((residual**2).mean())
    variance = float(label.var())
    both = variance > 0 and float(prediction.var()) > 0
    return {
        "MSE": squared,
        "RMSE": math.sqrt(squared),
        "MAE": float(np.abs(residual).mean()),
        "R²": 1 - squared / variance if variance > 0 else math.nan,
        "Pearson": float(np.corrcoef(prediction, label)[0, 1]) if both else math.nan,
    }


def _over_runs(found: pd.DataFrame, name: str) -> str:
    values = [
        regression_figures(run["prediction"].to_numpy(), run["label"].to_numpy())[name]
        for _, run in found.groupby("run_id")
    ]
    mean = score(float(np.mean(values)))
    return mean if len(values) < 2 else f"{mean} ± {score(float(np.std(values, ddof=1)))}"


def _range(found: pd.DataFrame) -> float:
    return float(found["label"].max() - found["label"].min()) or math.inf


def _whole(found: pd.DataFrame) -> bool:
    numbers = found[["label", "prediction"]].to_numpy()
    return bool((numbers == np.floor(numbers)).all() and (numbers >= 0).all())
