"""Which evaluation's weights are kept, and how long a run waits for a better one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from tests.mtbert import toys

RATES_OF_ZERO = {"learning_rate": {"adapters": 0, "heads": 0}}


def steps_of(events: list[toys.Event]) -> list[int]:
    return [record["step"] for record in toys.evaluations(events)]


def trained(data: TokenisedData, backbone: Backbone, **changes: Any) -> list[toys.Event]:
    return toys.train_alone(data, backbone, toys.run(**changes))


def best_of(records: list[dict[str, Any]], keep: str) -> int:
    """The step of the first largest value of what is kept by."""
    pick = {
        "score": lambda record: record["score"],
        "unscaled": lambda record: toys.values(record, "dev", "unscaled")[""],
        "sst": lambda record: toys.values(record, "dev", "accuracy")["sst"],
        "sts": lambda record: toys.values(record, "dev", "pearson")["sts"],
        "last": lambda record: record["step"],
    }[keep]
    found = [pick(record) for record in records]
    return int(records[int(np.argmax(found))]["step"])


@pytest.mark.parametrize("keep", ["score", "unscaled", "sst", "sts", "last"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_evaluation_s_weights_and_metrics_are_kept(
    keep: str, seed: int, backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.run(
        seed,
        low_rank=toys.lora(),
        training={"steps": 8, "learning_rate": {"adapters": 0.05, "heads": 0.05}},
        evaluation={"every": 1, "keep": keep, "train_limit": 0},
    )
    of = toys.trainer(data, backbone)
    of.admit(run)
    events, states = [], {}
    while of.members:
        found = of.advance()
        events += found
        if of.members:
            states[of.step_of(run.run_id)] = toys.now(of.checkpoint(run.run_id))
    records, end = toys.evaluations(events), toys.ended(events)
    kept = best_of(records, keep)
    assert end.record["kept_step"] == kept
    (record,) = [record for record in records if record["step"] == kept]
    assert end.record["score"] == record["score"]
    assert end.record["metrics"] == {
        f"{task}.{metric}": value for split, task, metric, value in record["rows"] if split == "dev" and task
    }
    if kept in states:
        kept_weights = toys.weights(end)
        assert all(torch.equal(kept_weights[name], value) for name, value in states[kept].items())


@pytest.mark.parametrize(("patience", "last"), [(1, 4), (2, 6), (4, 10), (None, 20)])
def test_a_run_ends_after_as_many_evaluations_without_a_better_one(
    patience: int | None, last: int, backbone: Backbone, data: TokenisedData
) -> None:
    """With rates of zero no evaluation after the first is better."""
    events = trained(
        data, backbone, training={**RATES_OF_ZERO, "steps": 20},
        evaluation={"every": 2, "patience": patience, "train_limit": 0},
    )  # fmt: skip
    assert steps_of(events)[-1] == last
    end = toys.ended(events).record
    assert (end["status"], end["step"], end["kept_step"]) == ("completed", last, 2)


def test_patience_does_not_run_out_while_there_is_nothing_to_compare(
    backbone: Backbone, data: TokenisedData
) -> None:
    events = trained(
        data,
        backbone,
        training={"tasks": ["sst"], "steps": 8},  # so that no score is defined
        evaluation={"every": 1, "patience": 2, "train_limit": 0},
    )
    assert all(record["score"] is None for record in toys.evaluations(events))
    assert steps_of(events) == list(range(1, 9))


def test_patience_starts_again_at_each_better_evaluation(backbone: Backbone, data: TokenisedData) -> None:
    training = {"steps": 24, "learning_rate": {"adapters": 0.05, "heads": 0.05}, "decay": "constant"}

    def records(**evaluation: Any) -> list[dict[str, Any]]:
        run = toys.run(
            5,  # a seed whose evaluations get better after others did not
            low_rank=toys.lora(),
            training=training,
            evaluation={"every": 1, "train_limit": 0, "keep": "sts", **evaluation},
        )
        return toys.evaluations(toys.train_alone(data, backbone, run))

    best, waited, began_again, expected = -np.inf, 0, 0, 0
    for record in records():
        value = toys.values(record, "dev", "pearson")["sts"]
        assert value is not None
        better = value > best
        began_again += better and waited > 0
        best, waited = (value, 0) if better else (best, waited + 1)
        expected = record["step"]
        if waited == 3:
            break
    assert began_again
    assert records(patience=3)[-1]["step"] == expected < 24


def test_where_nothing_can_be_compared_the_latest_weights_are_kept(
    backbone: Backbone, data: TokenisedData
) -> None:
    """A single-task run has no score: the first evaluation is no better than the last."""
    events = trained(data, backbone, low_rank=toys.lora(), training={"tasks": ["sst"], "steps": 9})
    assert toys.ended(events).record["kept_step"] == 9


def test_a_defined_score_is_better_than_none(backbone: Backbone, data: TokenisedData) -> None:
    """The first stage has no score, the second has."""
    events = trained(
        data, backbone, low_rank=toys.lora(), training={"steps": None},
        stages=[{"steps": 3, "tasks": ["sst"]}, {"steps": 3}], evaluation={"every": 3},
    )  # fmt: skip
    first, second = toys.evaluations(events)
    assert first["score"] is None
    assert second["score"] is not None
    assert toys.ended(events).record["kept_step"] == 6
