"""What is done with trained runs: merging them, and measuring them on test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.store import Writer, read
from mtbert.bert import Backbone
from mtbert.inputs import Inputs
from mtbert.records import Ended, Evaluated
from mtbert.run import Run
from mtbert.schema import plain
from mtbert.techniques import Merge
from sweeps.tables import shorten
from sweeps.tables.measured import Measured
from sweeps.tables.plan import Options, TablePlan
from sweeps.tables.published import read_tables
from sweeps.tables.trained import TableMaterial, find_merged, merge_rows, test_metrics
from tests.mtbert import toys

torch.set_num_threads(1)
TABLES = read_tables()
test_metrics.__test__ = False  # type: ignore[attr-defined]  # nothing that pytest should call
VALUES = {"training.batch_size": 4, "evaluation.every": None}
DATA = """
tasks:
  - {name: sst, kind: classification, sentences: 1, classes: 5, columns: {first: text, label: label},
     files: {train: sst.tsv, dev: sst.tsv, test: sst.tsv}}
  - {name: para, kind: binary, sentences: 2, columns: {first: text, second: other, label: label},
     files: {train: para.tsv, dev: para.tsv, test: para-test.tsv}, unlabelled: -1}
  - {name: sts, kind: regression, sentences: 2, low: 0, high: 5, metric: pearson, score: half_up,
     columns: {first: text, second: other, label: label}, files: {train: sts.tsv, dev: sts.tsv}}
"""


def data(folder: Path) -> str:
    """Data whose test set is dev's for sst, without labels for para, and none for sts."""
    pairs = [(f"a film {at}", f"the film {at % 3}") for at in range(12)]
    rows = {
        "sst": [f"{first}\t{at % 5}" for at, (first, _) in enumerate(pairs)],
        "para": [f"{first}\t{second}\t{at % 2}" for at, (first, second) in enumerate(pairs)],
        "para-test": [f"{first}\t{second}\t-1" for first, second in pairs],
        "sts": [f"{first}\t{second}\t{at % 6}" for at, (first, second) in enumerate(pairs)],
    }
    for name, lines in rows.items():
        head = "text\tlabel" if name == "sst" else "text\tother\tlabel"
        (folder / f"{name}.tsv").write_text("\n".join([head, *lines]) + "\n")
    (folder / "tasks.yaml").write_text(DATA)
    return str(folder / "tasks.yaml")


@pytest.fixture
def material(tmp_path: Path) -> TableMaterial:
    return TableMaterial(Inputs(data=data(tmp_path)))


def planned(
    table_id: str, material: TableMaterial, monkeypatch: pytest.MonkeyPatch, seeds: int = 1
) -> TablePlan:
    monkeypatch.setattr(shorten, "FEWEST", 3)
    return TablePlan(TABLES[table_id], Options(seeds, 1e-6, VALUES), material)


def train(results: Path, runs: Iterable[Run], material: TableMaterial) -> None:
    """Trains the runs together and writes the ledger as a sweep does."""
    base = material._base
    trainer = toys.Trainer(lambda kind: Backbone.from_arrays(base.config, base.arrays, kind), material.tokens)
    with Writer(results) as writer:
        attempts: dict[str, Any] = {}
        for run in {run.run_id: run for run in runs}.values():
            attempts[run.run_id] = writer.begin(run.as_json()).attempt
            trainer.admit(run)
        for run_id, events in toys.finish(trainer).items():
            for event in events:
                if isinstance(event, Evaluated):
                    writer.evaluation(run_id, attempts[run_id], event.record)
            ended = toys.ended(events)
            writer.end(run_id, attempts[run_id], ended.record, ended.predictions, ended.weights)


def parents(plan: TablePlan) -> list[Run]:
    return [run for (_, task, _), run in plan.runs.items() if task]


def test_merged_rows_are_merged_once_from_the_runs_of_each_seed(
    tmp_path: Path, material: TableMaterial, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("002/3", material, monkeypatch, seeds=2)
    train(tmp_path / "results", parents(plan), material)
    results = str(tmp_path / "results")
    merged = merge_rows(plan, read(results), material, results, "cpu")
    state = read(results)
    assert len(set(merged.values())) == 6
    rows = {row.number: row for row in plan.table.rows}
    assert {rows[number].label for number, _ in merged} == {"EoE", "AvgFed", "OrthoAda"}
    for (number, seed), run_id in merged.items():
        run = state.runs[run_id]
        assert (run.status, run.seed) == ("completed", seed)
        kind = run.run["configuration"]["merge"]["kind"]
        assert kind == {"EoE": "ensemble", "AvgFed": "average", "OrthoAda": "orthogonal"}[rows[number].label]
        own = {task: plan.runs[number, task, seed] for task in ("sst", "para", "sts")}
        if kind == "ensemble":  # each task's own adapter and head: what its own run had
            for run_of_task in own.values():
                ended = state.runs[run_of_task.run_id].ended or {}
                of_parent = {name: value for name, value in ended["metrics"].items() if value is not None}
                found = (run.ended or {})["metrics"]
                assert {name: found[name] for name in of_parent} == pytest.approx(of_parent, abs=1e-5)
    assert merge_rows(plan, state, material, results, "cpu") == merged
    assert len(read(results).runs) == len(state.runs)


class Unused:
    """Material that must not be asked to merge."""

    def merge(self, *_: Any) -> tuple[Run, Ended]:
        raise AssertionError("merged without need")


def test_nothing_is_merged_while_a_parent_is_missing(
    tmp_path: Path, material: TableMaterial, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("002/3", material, monkeypatch)
    unused: Any = Unused()
    assert merge_rows(plan, read(tmp_path), unused, str(tmp_path), "cpu") == {}
    assert merge_rows(planned("002/2", material, monkeypatch), read(tmp_path), unused, "none", "cpu") == {}


def test_a_merge_is_found_by_its_kind_its_parents_and_its_seed(tmp_path: Path) -> None:
    own = {task: toys.run(seed=3, training={"tasks": [task]}) for task in ("sst", "para")}
    merge = Merge("average", {task: run.config_id for task, run in own.items()})
    merged = toys.run(seed=3).as_json() | {"run_id": "merged-3", "config_id": "merged"}
    merged["configuration"] = {"merge": plain(merge)}
    with Writer(tmp_path) as writer:
        attempt = writer.begin(merged).attempt
        assert attempt is not None
        writer.end("merged-3", attempt, {"status": "completed", "step": 0, "metrics": {}}, {}, b"")
    state = read(tmp_path)
    assert find_merged(state, {"kind": "average", "weights": {}}, own, 3) == "merged-3"
    assert find_merged(state, {"kind": "average"}, own, 4) is None
    assert find_merged(state, {"kind": "ensemble"}, own, 3) is None
    assert find_merged(state, {"kind": "average"}, {**own, "para": own["sst"]}, 3) is None


def test_test_is_measured_where_it_has_labels(
    tmp_path: Path, material: TableMaterial, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert material.labelled("test") == {"sst"}
    plan = planned("002/1", material, monkeypatch)
    train(tmp_path / "results", plan.runs.values(), material)
    results = str(tmp_path / "results")
    state = read(results)
    (found,) = test_metrics(plan, state, material, results, "cpu").values()
    assert {name for name in found if name.endswith(("accuracy", "pearson"))} == {"test.sst.accuracy"}
    (run,) = state.runs.values()
    (row,) = plan.table.rows
    measured = Measured(plan, state, {run.run_id: found}, {})
    assert measured.values(row, "test.sst.accuracy") == measured.values(row, "sst.accuracy") != ()
    assert measured.values(row, "test.score") == ()
    assert test_metrics(planned("002/3", material, monkeypatch), state, material, results, "cpu") == {}
