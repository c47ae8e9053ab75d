"""The worst errors of each task, with their text: what a reader should look at before trusting a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from analysis.page import tables
from analysis.page.markup import Section, joined, note, paragraph, quotation, table
from analysis.page.subject import Subject
from analysis.page.tasks import TaskErrors
from analysis.page.words import score

SHOWN = 8
LONGEST = 320
"""Characters of a sentence that are shown."""
OTHERS = 10
"""Of the other configurations, how many are asked whether they err too."""


class Erred(NamedTuple):
    """An example, and what each of a configuration's runs predicted for it."""

    id: str
    label: float
    predictions: list[float]


def worst(subject: Subject, errors: Sequence[TaskErrors]) -> Section:
    """The examples on which the best configuration errs most."""
    title = "Worst errors"
    if not errors:
        return Section(
            "worst", title, note("There are no predictions, so the worst of them cannot be shown.")
        )
    best = subject.candidates[0]
    others = [run_id for each in subject.candidates[1 : 1 + OTHERS] for run_id in tables.run_ids(each)]
    said = f"Dev examples that {best.name} gets wrong with the most seeds and by the most. "
    said += (
        "Where the other configurations err too, look at the label first."
        if others
        else "There is no other configuration to compare with."
    )
    data = str(best.runs[0].run.get("data"))
    parts = [_of_task(subject, data, each, others) for each in errors]
    return Section("worst", title, joined([paragraph(said), *parts]))


def _of_task(subject: Subject, data: str, errors: TaskErrors, others: Sequence[str]) -> Markup:
    found = worst_examples(errors)
    if not found:
        return joined(
            [Markup("<h3>{}</h3>").format(errors.task), note("Every seed gets every example right.")]
        )
    ids = [each.id for each in found]
    sentences = tables.texts(subject.sources, data, errors.task, ids)
    beside = tables.errors_beside(subject.sources, others, errors.task, ids)
    pairs = any(second is not None for _, second in sentences.values())
    rows = []
    for example in found:
        first, second = sentences.get(example.id, (None, None))
        shown = [quotation(first, LONGEST) if first is not None else "text not in the results"]
        predictions = ", ".join(f"{each:.4g}" for each in example.predictions)
        rows.append(
            [
                *shown,
                *([quotation(second, LONGEST)] if pairs else []),
                f"{example.label:.4g}",
                predictions,
                _others(beside.get(example.id), errors),
                quotation(example.id, 40),
            ]
        )
    headers = ["first sentence", "second sentence"] if pairs else ["text"]
    headers += ["label", "predicted, by seed", "other runs that err", "id"]
    words = (0, 1, 5) if pairs else (0, 4)
    return joined(
        [
            Markup("<h3>{}</h3>").format(errors.task),
            table(f"{errors.task}: the worst errors on dev", headers, rows, text=words),
        ]
    )


def worst_examples(errors: TaskErrors) -> list[Erred]:
    """The examples with the largest error, worst first.

    Of classes: wrong with the most seeds, then furthest apart as numbers. Of numbers: the largest mean
    distance.
    """
    found = errors.found.sort_values(["example_id", "run_id"])
    found = found.assign(
        distance=(found["prediction"] - found["label"]).abs(), wrong=found["prediction"] != found["label"]
    )
    grouped = found.groupby("example_id").agg(
        label=("label", "first"),
        predictions=("prediction", list),
        distance=("distance", "mean"),
        wrong=("wrong", "mean"),
    )
    order = ["distance"] if errors.regression else ["wrong", "distance"]
    ranked = grouped[grouped["wrong"] > 0].reset_index()
    ranked = ranked.sort_values([*order, "example_id"], ascending=[False] * len(order) + [True]).head(SHOWN)
    columns = (ranked[name].tolist() for name in ("example_id", "label", "predictions"))
    return [Erred(*each) for each in zip(*columns, strict=True)]


def _others(beside: tuple[int, int, float] | None, errors: TaskErrors) -> str:
    if beside is None:
        return "–"
    runs, wrong, distance = beside
    return f"off by {score(distance)} in the mean" if errors.regression else f"{wrong} of {runs}"
