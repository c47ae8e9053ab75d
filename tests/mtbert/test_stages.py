"""Stages: each with its own tasks, parts, dropout and length, the optimizer kept or fresh."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from tests.mtbert import toys


def test_stages_follow_each_other_with_their_own_tasks_and_parts(
    backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.stepwise(
        low_rank=toys.lora(),
        stages=[
            {"steps": 2, "tasks": ["sts"], "trains": ["heads"]},
            {"steps": 2, "tasks": ["sst", "sts"], "schedule": {"kind": "round_robin"}},
            {"steps": 1, "schedule": {"kind": "joint"}, "trains": ["adapters"]},
        ],
        training={"steps": None},
    )
    states, records = toys.after_each_step(run, data, backbone)
    assert toys.trained_tasks(records) == [{"sts"}, {"sts"}, {"sst"}, {"sts"}, {"sst", "para", "sts"}]
    steps = [toys.moved(before, after) for before, after in pairwise(states)]
    assert all(name.startswith("heads.sts") for name in steps[0] | steps[1])
    assert any(name.startswith("low_rank") for name in steps[2])
    assert {name.split(".")[0] for name in steps[4]} == {"low_rank"}
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    evaluated = [set(toys.values(record, "dev", "loss")) for record in records]
    assert evaluated == [{"sts"}, {"sts"}, {"sst", "sts"}, {"sst", "sts"}, {"sst", "para", "sts"}]


@pytest.mark.parametrize("optimizer", ["keep", "fresh"])
def test_a_stage_keeps_the_optimizer_or_takes_a_fresh_one(
    optimizer: str, backbone: Backbone, data: TokenisedData
) -> None:
    """Against AdamW's own first step: with fresh moments every entry moves by the rate."""
    rate = 1e-3
    common = {"learning_rate": {"heads": rate}, "warmup": 0.0, "decay": "constant", "clip": None}
    run = toys.stepwise(
        training={**common, "steps": None, "tasks": ["sst"]},
        stages=[{"steps": 3}, {"steps": 1, "optimizer": optimizer}],
    )
    states, _ = toys.after_each_step(run, data, backbone)
    change = (states[4]["heads.sst.weight"] - states[3]["heads.sst.weight"]).abs()
    first = (states[1]["heads.sst.weight"] - states[0]["heads.sst.weight"]).abs()
    assert torch.allclose(first, torch.full_like(first, rate), rtol=1e-3)
    assert torch.allclose(change, torch.full_like(change, rate), rtol=1e-3) == (optimizer == "fresh")


def test_a_kept_optimizer_serves_a_stage_as_if_nothing_had_ended(
    backbone: Backbone, data: TokenisedData
) -> None:
    common = {"schedule": {"kind": "joint"}, "warmup": 0.0, "decay": "constant", "batch_size": 60}
    data = toys.random_data((60, 60, 60))  # a batch holds all, in whatever order
    whole = toys.stepwise(low_rank=toys.lora(), training={**common, "steps": 4})
    halves = toys.stepwise(
        low_rank=toys.lora(), training={**common, "steps": None}, stages=[{"steps": 2}, {"steps": 2}]
    )
    one = toys.weights(toys.ended(toys.train_alone(data, backbone, whole)))
    other = toys.weights(toys.ended(toys.train_alone(data, backbone, halves)))
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=1e-9, atol=1e-12)


def test_dropout_of_a_stage_is_its_own(backbone: Backbone, data: TokenisedData) -> None:
    none, heavy = {"steps": 2}, {"steps": 2, "dropout": {"backbone": 0.5}}
    common = {"low_rank": toys.lora(), "training": {"steps": None}}
    plain, _ = toys.after_each_step(toys.stepwise(**common, stages=[none, none]), data, backbone)
    late, _ = toys.after_each_step(toys.stepwise(**common, stages=[none, heavy]), data, backbone)
    assert not toys.moved(plain[2], late[2])
    assert toys.moved(plain[3], late[3])


def test_masks_do_not_repeat_where_a_stage_begins(backbone: Backbone) -> None:
    """One example, and rates of zero: what a step's loss tells is its mask."""
    data = toys.random_data((1,), tasks={"sst": toys.TASKS["sst"]})
    run = toys.stepwise(
        training={
            "steps": None,
            "batch_size": 1,
            "learning_rate": {"heads": 0},
            "dropout": {"backbone": 0.5},
        },
        stages=[{"steps": 3}, {"steps": 3}],
    )
    _, records = toys.after_each_step(run, data, backbone)
    losses = [toys.values(record, "train", "training_loss")["sst"] for record in records]
    assert len(set(losses)) == 6
