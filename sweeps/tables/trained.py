"""What is done with a table's trained runs: measured on test where it has labels, and merged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.store import State, Writer, read, read_weights, weights_path
from mtbert.records import Ended
from mtbert.run import Run
from mtbert.schema import plain
from mtbert.techniques import Merge
from sweeps.publish import LoadedMaterial
from sweeps.tables.plan import TablePlan
from sweeps.tables.published import Row

if TYPE_CHECKING:
    from mtbert.data.tokenise import TokenisedData

MergeKind = Literal["ensemble", "average", "orthogonal"]


class TableMaterial(LoadedMaterial):
    """Base model and data that trained runs are looked at with, too."""

    def labelled(self, split: str) -> frozenset[str]:
        """The tasks of which all examples of the split have labels."""
        examples = {task: self._dataset.examples.get((task, split), ()) for task in self._dataset.tasks}
        return frozenset(
            task for task, of in examples.items() if of and all(each.label is not None for each in of)
        )

    def test_metrics(self, run: Run, weights: bytes, device: str) -> dict[str, float]:
        """A trained run on the labelled test sets, `test.sst.accuracy`."""
        from mtbert.inference import TrainedModel

        model = TrainedModel(self._base, run, weights, self._dataset.tasks, device)
        return {
            f"test.{task}.{metric}": value
            for task, values in model.evaluate(self._test, "test").items()
            for metric, value in values.items()
            if value is not None and np.isfinite(value)
        }

    def merge(
        self, kind: MergeKind, parents: Mapping[str, tuple[Run, bytes]], weights: Any, device: str
    ) -> tuple[Run, Ended]:
        """The model merged from the runs of these tasks and their weights, and how it ended."""
        from mtbert.merging import evaluate_merged, merged

        found = merged(kind, parents, self._dataset.tasks, self._base.config, weights or None)
        return found.run, evaluate_merged(found, self._base, self.tokens, device)

    @cached_property
    def _test(self) -> TokenisedData:
        from mtbert.data.tokenise import tokenise

        return tokenise(self._dataset, self._base.tokenizer(), splits=("test",))


def merge_rows(
    plan: TablePlan, state: State, material: TableMaterial, results: str, device: str
) -> dict[tuple[int, int], str]:
    """Merges what a table has merged, as far as its parents have ended and it was not done before.

    Returns:
        The runs of the merged models by the row's number and the seed.
    """
    found: dict[tuple[int, int], str] = {}
    for row in plan.table.rows:
        for seed in range(plan.options.seeds if row.merge else 0):
            parents = _parents(plan, row, seed)
            if not parents or not all(_completed(state, run) for run in parents.values()):
                continue
            merge = {name: setting.value for name, setting in row.merge.items()}
            known = find_merged(state, merge, parents, seed)
            if known is None:
                known = _merge(plan, merge, parents, material, results, device)
            found[row.number, seed] = known
    return found


def find_merged(state: State, merge: Mapping[str, Any], parents: Mapping[str, Run], seed: int) -> str | None:
    """The run of this merge of runs of one seed, if the ledger has it."""
    names = {task: run.config_id for task, run in parents.items()}
    wanted = plain(Merge(merge["kind"], names, merge.get("weights") or {}))
    for run_id, run in state.runs.items():
        if run.seed == seed and run.final and run.run["configuration"].get("merge") == wanted:
            return run_id
    return None


def test_metrics(
    plan: TablePlan, state: State, material: TableMaterial, results: str, device: str
) -> dict[str, dict[str, float]]:
    """The metrics on test of a table that prints such, by run; without labels, none."""
    if not any(column.startswith("test.") for column in plan.table.columns) or not material.labelled("test"):
        return {}
    found = {}
    for run in plan.runs.values():
        path = weights_path(results, run.run_id)
        if _completed(state, run) and path.is_file():
            found[run.run_id] = material.test_metrics(run, path.read_bytes(), device)
    return found


def _merge(
    plan: TablePlan,
    merge: Mapping[str, Any],
    parents: Mapping[str, Run],
    material: TableMaterial,
    results: str,
    device: str,
) -> str:
    """Merges, evaluates, and writes the model to the ledger as any other run of the table's sweep."""
    known = read(results).runs
    trained = {task: (run, read_weights(results, known[run.run_id])) for task, run in parents.items()}
    run, ended = material.merge(merge["kind"], trained, merge.get("weights"), device)
    sweep = plan.sweep(pretrained=False)
    with Writer(results) as writer:
        record = run.as_json() | {"inputs": dict(material.inputs)}
        claim = writer.begin(record, None if sweep is None else sweep.name)
        if claim.attempt is not None:
            writer.end(run.run_id, claim.attempt, ended.record, ended.predictions, ended.weights)
        writer.compact()
    return run.run_id


def _parents(plan: TablePlan, row: Row, seed: int) -> dict[str, Run]:
    """A row's runs by their tasks; none where one of them cannot be run."""
    keys = {run.name: (row.number, run.name, seed) for run in row.runs}
    if any(key not in plan.runs for key in keys.values()):
        return {}
    return {task: plan.runs[key] for task, key in keys.items()}


def _completed(state: State, run: Run) -> bool:
    return run.run_id in state.runs and state.runs[run.run_id].status == "completed"
