"""Runs, records and whole results folders for the tests of the store and of what is asked of it."""

from __future__ import annotations

from typing import Any

from analysis.store import Writer


def run_json(config_id: str = "c1", seed: int = 0, **settings: Any) -> dict[str, Any]:
    """A run as the ledger is given it; keyword arguments make its configuration."""
    configuration = settings or {"low_rank": {"kind": "lora", "rank": 4}}
    return {
        "run_id": f"{config_id}-{seed}",
        "config_id": config_id,
        "seed": seed,
        "data": "data1",
        "model": "model1",
        "method_version": 1,
        "configuration": configuration,
    }


def evaluation(step: int, score: float | None = 0.5) -> dict[str, Any]:
    rows = [["dev", "sst", "accuracy", 0.25], ["dev", "sts", "pearson", None], ["dev", "", "score", score]]
    times = {"seconds_training": step / 10, "seconds_evaluation": step / 100, "tokens": 7 * step}
    return {"step": step, "epoch": step / 50, "rows": rows, "score": score, **times}


def ending(
    status: str = "completed", step: int = 100, score: float | None = 0.5, **more: Any
) -> dict[str, Any]:
    return {
        "status": status,
        "error": {"kind": "error", "message": "it broke", "traceback": "line 1"}
        if status == "failed"
        else None,
        "step": step,
        "kept_step": step,
        "score": score,
        "metrics": {"sst.accuracy": score, "sts.pearson": None},
        "trainable": 1000,
        "total": 5000,
        "tokens": 7 * step,
        "seconds_training": step / 10,
        "seconds_evaluation": step / 100,
        "seconds_startup": 0.25,
        "peak_memory": 2**20,
        "device": "cpu",
        "host": "here",
        "versions": {"torch": "2.13.0"},
        **more,
    }


def predictions(rows: int = 2) -> dict[str, list[Any]]:
    ids = [f"example{row}" for row in range(rows)]
    values = [float(row) for row in range(rows)]
    return {"task": ["sst"] * rows, "example_id": ids, "prediction": values, "label": values}


def train(writer: Writer, run: dict[str, Any], record: dict[str, Any], sweep: str | None = None) -> int:
    """Begins a run, evaluates it twice, and ends it with the record; returns the attempt."""
    attempt = writer.begin(run, sweep, retry_failed=True).attempt
    assert attempt is not None
    for step in (record["step"] // 2, record["step"]):
        writer.evaluation(run["run_id"], attempt, evaluation(step))
    writer.end(run["run_id"], attempt, record, predictions(), b"weights of " + run["run_id"].encode())
    return attempt
