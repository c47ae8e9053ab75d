"""What the page asks of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.page.subject import Candidate, Subject
from analysis.query import Sources


def text(word: str) -> str:
    """A word as SQL has it."""
    return "'" + word.replace("'", "''") + "'"


def curves(subject: Subject) -> pd.DataFrame:
    """The objective on dev at each evaluation of each run. Columns run_id, step, value."""
    task, _, metric = subject.objective.rpartition(".")
    return subject.sources.ask(
        "select run_id, step, value from evaluations where split = 'dev' and value is not null "
        f"and task = {text(task)} and metric = {text(metric)} order by run_id, step"
    ).to_pandas()


def evaluated(sources: Sources, runs: Iterable[str]) -> pd.DataFrame:
    """Every metric of these runs at each evaluation. Columns run_id, step, split, task, metric, value."""
    return sources.ask(
        "select run_id, step, split, task, metric, value from evaluations "
        f"where value is not null and run_id in ({_all(runs)}) order by run_id, step"
    ).to_pandas()


def predicted(sources: Sources, runs: Iterable[str], task: str | None = None) -> pd.DataFrame:
    """These runs' predictions on dev, of a task or of all.

    Columns run_id, task, example_id, prediction, label.
    """
    of_task = "" if task is None else f" and task = {text(task)}"
    return sources.ask(
        "select run_id, task, example_id, prediction, label from predictions "
        f"where label is not null and run_id in ({_all(runs)}){of_task}"
    ).to_pandas()


def errors_beside(
    sources: Sources, runs: Iterable[str], task: str, examples: Sequence[str]
) -> dict[str, tuple[int, int, float]]:
    """Of each example how many of these runs predicted it, how many erred, and by how much in the mean."""
    rows = sources.ask(
        "select example_id, count(*) as runs, count(*) filter (prediction <> label) as wrong, "
        "avg(abs(prediction - label)) as distance from predictions "
        f"where label is not null and task = {text(task)} and run_id in ({_all(runs)}) "
        f"and example_id in ({_all(examples)}) group by example_id"
    ).to_pylist()
    return {row["example_id"]: (row["runs"], row["wrong"], row["distance"]) for row in rows}


def texts(
    sources: Sources, data: str, task: str, examples: Sequence[str]
) -> dict[str, tuple[str, str | None]]:
    """The one or two sentences of dev examples, by id."""
    rows = sources.ask(
        f"select example_id, first, second from examples where data = {text(data)} and task = {text(task)} "
        f"and split = 'dev' and example_id in ({_all(examples)})"
    ).to_pylist()
    return {row["example_id"]: (row["first"], row["second"]) for row in rows}


def run_ids(candidate: Candidate) -> list[str]:
    return [run.run_id for run in candidate.runs]


def _all(words: Iterable[str]) -> str:
    return ", ".join(map(text, words)) or "null"
