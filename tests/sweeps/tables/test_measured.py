"""What rows came to, read back from a ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.store import Writer, read
from mtbert.run import Run
from sweeps.tables.measured import Measured, from_predictions, of_ending, overall
from sweeps.tables.plan import Options, TablePlan
from sweeps.tables.published import Row, read_tables
from tests.sweeps.fake import FakeMaterial

TABLES = read_tables()


def plan(table_id: str, seeds: int = 1) -> TablePlan:
    return TablePlan(TABLES[table_id], Options(seeds), FakeMaterial("", 0, {}))


def written(results: Path, runs: Mapping[str, tuple[Run, dict[str, Any]]]) -> None:
    """Runs with their endings' fields."""
    with Writer(results) as writer:
        for run, fields in runs.values():
            attempt = writer.begin(run.as_json()).attempt
            assert attempt is not None
            for record in fields.pop("evaluations", ()):
                writer.evaluation(run.run_id, attempt, record)
            predictions = fields.pop("predictions", {})
            ending = {"status": "completed", "error": None, "step": 4, "kept_step": 2, "score": 0.5, **fields}
            writer.end(run.run_id, attempt, ending, predictions, b"")


def measured(results: Path, of: TablePlan, **more: Any) -> Measured:
    return Measured(of, read(results), more.get("beside", {}), more.get("merged", {}))


def row_of(of: TablePlan, label: str) -> Row:
    (found,) = [row for row in of.table.rows if row.label == label]
    return found


def test_a_row_of_several_runs_has_the_metrics_of_all_and_one_score(tmp_path: Path) -> None:
    of = plan("002/2", seeds=2)
    row = of.table.rows[0]
    own = {"sst": {"sst.accuracy": 0.4}, "para": {"para.accuracy": 0.8}, "sts": {"sts.pearson": 0.6}}
    runs = {
        task: (of.runs[1, task, 0], {"metrics": metrics, "seconds_training": 2.0, "seconds_evaluation": 1.0})
        for task, metrics in own.items()
    }
    runs["again"] = (of.runs[1, "sst", 1], {"metrics": {"sst.accuracy": 0.5}})
    written(tmp_path, runs)
    found = measured(tmp_path, of)
    assert found.values(row, "sst.accuracy") == (0.4, 0.5)
    assert found.values(row, "sts.pearson") == (0.6,)
    assert found.values(row, "score") == (pytest.approx((0.4 + 0.8 + (1 + 0.6) / 2) / 3),)
    assert found.values(row, "seconds")[0] == 9.0
    assert found.statuses(row) == {"completed": 4, "waiting": 2}
    assert found.values(of.table.rows[1], "score") == ()


def test_the_score_is_put_together_from_parts_whatever_else_the_data_has(tmp_path: Path) -> None:
    of = plan("004/6")
    metrics = {"sst.accuracy": 0.5, "para.accuracy": 0.9, "sts.pearson": 0.8, "cfimdb.accuracy": 0.1}
    written(tmp_path, {"": (of.runs[1, "", 0], {"metrics": metrics, "score": 0.11})})
    assert measured(tmp_path, of).values(of.table.rows[0], "score") == (overall(0.5, 0.9, 0.8),)


def test_runs_without_a_result_give_none_and_are_counted(tmp_path: Path) -> None:
    of = plan("004/6", seeds=3)
    diverged = {"status": "diverged", "metrics": {}, "score": None}
    completed = {"metrics": {"sst.accuracy": 1.0}}
    written(tmp_path, {"a": (of.runs[1, "", 0], diverged), "b": (of.runs[1, "", 1], completed)})
    found = measured(tmp_path, of)
    assert found.values(of.table.rows[0], "sst.accuracy") == (1.0,)
    assert found.statuses(of.table.rows[0]) == {"diverged": 1, "completed": 1, "waiting": 1}


def test_what_is_measured_beside_the_ending_counts_too(tmp_path: Path) -> None:
    of = plan("002/1")
    run = of.runs[1, "", 0]
    written(tmp_path, {"": (run, {"metrics": {"sst.accuracy": 0.5}})})
    beside = {run.run_id: {"test.sst.accuracy": 0.4, "test.para.accuracy": 0.8, "test.sts.pearson": 0.6}}
    found = measured(tmp_path, of, beside=beside)
    assert found.values(of.table.rows[0], "test.score") == (overall(0.4, 0.8, 0.6),)
    assert found.values(of.table.rows[0], "score") == ()


def test_a_merged_row_has_the_metrics_of_the_merged_model_alone(tmp_path: Path) -> None:
    of = plan("002/3")
    row = row_of(of, "EoE")
    merged = Run(of.runs[1, "", 0].configuration, 9, "data", "model")
    parts = {
        task: (of.runs[row.number, task, 0], {"metrics": {f"{task}.accuracy": 0.9}})
        for task in ("sst", "para")
    }
    written(tmp_path, {**parts, "merged": (merged, {"metrics": {"sst.accuracy": 0.3}})})
    found = measured(tmp_path, of, merged={(row.number, 0): merged.run_id})
    assert found.values(row, "sst.accuracy") == (0.3,)
    assert found.values(row, "para.accuracy") == ()
    assert measured(tmp_path, of).values(row, "sst.accuracy") == ()


def evaluation(step: int, *rows: list[Any]) -> dict[str, Any]:
    return {"step": step, "epoch": 1, "rows": list(rows), "score": None}


def test_gap_and_training_loss_are_those_of_the_kept_and_the_last_evaluation(tmp_path: Path) -> None:
    of = plan("000/1")
    run = of.runs[2, "", 0]
    records = [
        evaluation(
            2,
            ["train", "sst", "accuracy", 0.9],
            ["train", "sst", "training_loss", 3.0],
            ["train", "sts", "pearson", 0.7],
            ["train", "para", "accuracy", None],
        ),
        evaluation(4, ["train", "sst", "training_loss", 1.0], ["train", "sts", "training_loss", 2.0]),
    ]
    metrics = {"sst.accuracy": 0.5, "para.accuracy": 0.5, "sts.pearson": 0.6}
    written(tmp_path, {"": (run, {"metrics": metrics, "evaluations": records})})
    found = of_ending(read(tmp_path).runs[run.run_id])
    assert found["gap"] == pytest.approx((0.4 + 0.1) / 2)
    assert found["training_loss"] == 1.5


def test_errors_of_the_predictions_are_those_of_numpy(tmp_path: Path) -> None:
    of = plan("004/7")
    run = of.runs[1, "", 0]
    random = np.random.default_rng(0)
    labels, predicted = random.uniform(0, 5, 50), random.uniform(0, 5, 50)
    columns = {
        "task": ["sts"] * 50,
        "example_id": [str(at) for at in range(50)],
        "prediction": predicted.tolist(),
        "label": labels.tolist(),
    }
    written(tmp_path, {"": (run, {"metrics": {"sts.pearson": 0.1}, "predictions": columns})})
    found = from_predictions(tmp_path, [run.run_id])[run.run_id]
    mse = np.mean((predicted - labels) ** 2)
    assert found["sts.rmse"] == pytest.approx(np.sqrt(mse))
    assert found["sts.mae"] == pytest.approx(np.mean(np.abs(predicted - labels)))
    assert found["sts.r2"] == pytest.approx(1 - mse / np.var(labels))
    assert from_predictions(tmp_path, []) == {}
