"""Training: what moves and what stays, stages, rates, weights, order, and that it learns."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.data.tokenise import TokenisedData
from mtbert.member import initial_state
from mtbert.trainer import failed
from tests.mtbert import toys

KINDS = ["proportional", "random", "round_robin", "annealed", "sequential", "random_epoch", "joint"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_schedule_trains_the_tasks_that_its_plan_says(
    kind: str, backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.stepwise(low_rank=toys.lora(), training={"schedule": {"kind": kind}, "steps": 8})
    states, records = toys.after_each_step(run, data, backbone)
    tasks = toys.trained_tasks(records)
    assert len(tasks) == 8
    if kind == "joint":
        assert all(of == {"sst", "para", "sts"} for of in tasks)
    else:
        assert all(len(of) == 1 for of in tasks)
    for (before, after), of in zip(pairwise(states), tasks, strict=True):
        heads = {name.split(".")[1] for name in toys.moved(before, after) if name.startswith("heads.")}
        assert heads == of


def test_a_slot_without_tokens_in_a_step_is_not_stepped(backbone: Backbone, data: TokenisedData) -> None:
    """Heads and each task's own LoRA rest where other tasks train, momentum and weight decay or not."""
    run = toys.stepwise(
        low_rank=toys.lora(sharing="per_task"),
        training={
            "schedule": {"kind": "round_robin"},
            "steps": 6,
            "weight_decay": {"adapters": 0.1, "heads": 0.1},
            "warmup": 0.0,
        },
    )
    states, records = toys.after_each_step(run, data, backbone)
    for (before, after), (task,) in zip(pairwise(states), toys.trained_tasks(records), strict=True):
        assert {name.split(".")[1] for name in toys.moved(before, after)} == {task}


def test_a_shared_lora_on_a_head_rests_where_other_tasks_train(
    backbone: Backbone, data: TokenisedData
) -> None:
    """What sits at the heads sees its own task's tokens alone, though the rest of it is shared."""
    run = toys.stepwise(
        low_rank=toys.lora(targets=["query", "heads"]),
        training={"schedule": {"kind": "round_robin"}, "steps": 6, "warmup": 0.0},
    )
    states, records = toys.after_each_step(run, data, backbone)
    for (before, after), (task,) in zip(pairwise(states), toys.trained_tasks(records), strict=True):
        at_heads = {name for name in toys.moved(before, after) if ".heads." in name}
        assert {name.split(".heads.")[1].split(".")[0] for name in at_heads} == {task}


def test_an_untouched_part_of_the_backbone_is_not_stepped(backbone: Backbone, data: TokenisedData) -> None:
    """The pooler has no gradient where features do not come from it."""
    run = toys.stepwise(
        backbone="trained", features="cls", training={"steps": 2, "weight_decay": {"backbone": 0.5}}
    )
    states, _ = toys.after_each_step(run, data, backbone)
    changed = toys.moved(states[0], states[-1])
    assert "backbone.layer.0.query.weight" in changed
    assert "backbone.pooler.weight" not in changed


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"heads"}),
        ({"low_rank": toys.lora()}, {"heads", "low_rank"}),
        ({"low_rank": toys.lora(targets=["query", "heads"]), "heads": {"trained": False}}, {"low_rank"}),
        ({"biases": "trained"}, {"heads", "biases"}),
        ({"backbone": "trained"}, {"heads", "backbone"}),
        ({"low_rank": toys.lora(), "training": {"trains": ["heads"]}}, {"heads"}),
        ({"low_rank": toys.lora(), "training": {"trains": ["adapters"]}}, {"low_rank"}),
        (
            {"backbone": "trained", "low_rank": toys.lora(), "training": {"trains": ["backbone"]}},
            {"backbone"},
        ),
    ],
)
def test_only_the_parts_that_are_trained_move(
    changes: dict[str, Any], expected: set[str], backbone: Backbone, data: TokenisedData
) -> None:
    training = {"schedule": {"kind": "joint"}, **changes.get("training", {})}
    states, _ = toys.after_each_step(toys.stepwise(**{**changes, "training": training}), data, backbone)
    assert {name.split(".")[0] for name in toys.moved(states[0], states[-1])} == expected


def test_full_fine_tuning_trains_every_tensor(backbone: Backbone, data: TokenisedData) -> None:
    run = toys.stepwise(backbone="trained", training={"schedule": {"kind": "joint"}})
    states, _ = toys.after_each_step(run, data, backbone)
    expected = {f"backbone.{name}" for name in backbone.config.shapes()}
    assert toys.moved(states[0], states[-1]) >= expected


def test_full_fine_tuning_with_lora_freezes_only_the_layers_that_carry_it(
    backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.stepwise(
        backbone="trained",
        low_rank=toys.lora(targets=["value", "ffn_in"], layers=[1]),
        training={"schedule": {"kind": "joint"}},
    )
    states, _ = toys.after_each_step(run, data, backbone)
    of_backbone = {name.removeprefix("backbone.") for name in states[0] if name.startswith("backbone.")}
    frozen = {f"layer.1.{name}.{of}" for name in ("value", "ffn_in") for of in ("weight", "bias")}
    assert of_backbone == set(backbone.config.shapes()) - frozen
    assert toys.moved(states[0], states[-1]) >= {f"backbone.{name}" for name in of_backbone}


def test_full_fine_tuning_in_bfloat16_loses_no_small_updates(data: TokenisedData) -> None:
    """At 1e-5 a step is below half of a bfloat16 weight's last place: masters must be finer."""
    training = {"learning_rate": {"backbone": 1e-5}, "schedule": {"kind": "joint"}, "steps": 4}
    shares = {}
    for precision in ("float32", "bfloat16"):
        run = toys.stepwise(backbone="trained", precision=precision, training={**training, "warmup": 0.0})
        states, _ = toys.after_each_step(run, data, toys.backbone(precision))
        name = "backbone.layer.0.ffn_in.weight"
        shares[precision] = float((states[0][name] != states[-1][name]).double().mean())
    assert shares["float32"] > 0.9
    assert shares["bfloat16"] > 0.9


def test_bfloat16_keeps_adapters_and_heads_in_float32(data: TokenisedData) -> None:
    run = toys.stepwise(low_rank=toys.lora(), biases="trained", precision="bfloat16")
    states, records = toys.after_each_step(run, data, toys.backbone("bfloat16"))
    assert {value.dtype for value in states[-1].values()} == {torch.float32}
    assert all(np.isfinite(row[3]) for record in records for row in record["rows"] if row[3] is not None)


def test_training_on_what_can_be_learnt_learns_it(backbone32: Backbone) -> None:
    data = toys.random_data(
        (160, 160, 160), dev=60, lengths=(1, 2), label=toys.readable_label, words=toys.FIRST_WORD + 12
    )
    run = toys.run(
        precision="float32",
        features="cls",
        low_rank=toys.lora(rank=8, targets=["all_linear"]),
        training={"steps": 200, "schedule": {"kind": "joint"}, "batch_size": 16},
        evaluation={"every": 25, "train_limit": 0},
    )
    records = toys.evaluations(toys.train_alone(data, backbone32, run))
    first, last = (toys.values(record, "train", "training_loss") for record in (records[0], records[-1]))
    for task in toys.TASKS:
        assert last[task] < 0.5 * first[task]  # type: ignore[operator]
    assert records[-1]["score"] > 0.8
    assert toys.values(records[-1], "dev", "accuracy")["sst"] > 0.6  # type: ignore[operator]


def test_losses_and_initial_values_agree_between_precisions(data: TokenisedData) -> None:
    """The same training in float32 and float64 differs by rounding alone."""
    losses = {}
    for precision in ("float32", "float64"):
        run = toys.run(low_rank=toys.lora(), precision=precision, training={"dropout": {"backbone": 0.2}})
        events = toys.train_alone(data, toys.backbone(precision), run)
        losses[precision] = toys.values(toys.evaluations(events)[0], "dev", "loss")
        state = initial_state(run, toys.SMALL, toys.TASKS)
        assert {value.dtype for value in state.values()} == {torch.float32}
    for task, value in losses["float64"].items():
        assert losses["float32"][task] == pytest.approx(value, rel=1e-3)


def test_time_that_runs_out_ends_an_advance_between_steps(backbone: Backbone, data: TokenisedData) -> None:
    run = toys.run(training={"steps": 400}, evaluation={"every": None, "train_limit": 0})
    of = toys.trainer(data, backbone)
    of.admit(run)
    assert of.advance(0.0) == []
    assert of.step_of(run.run_id) == 0
    assert of.advance(0.05) == []
    between = of.step_of(run.run_id)
    assert 0 < between < 400
    assert toys.ended(toys.finish(of)[run.run_id]).record["step"] == 400


def test_without_members_there_is_nothing_to_advance(backbone: Backbone, data: TokenisedData) -> None:
    assert toys.trainer(data, backbone).advance() == []


def test_a_run_is_admitted_once(backbone: Backbone, data: TokenisedData) -> None:
    run = toys.run()
    of = toys.trainer(data, backbone)
    of.admit(run)
    of.advance()
    with pytest.raises(ValueError, match=run.run_id):
        of.admit(run)
    assert of.step_of(run.run_id) == 3
    assert of.members == (run.run_id,)


def test_what_a_trainer_says_is_plain_json(backbone: Backbone, data: TokenisedData) -> None:
    run = toys.run(low_rank=toys.lora(), biases="trained")
    events = toys.train_alone(data, backbone, run)
    for record in toys.evaluations(events):
        assert set(json.loads(json.dumps(record, allow_nan=False))) == {
            "step", "epoch", "rows", "score", "tokens", "seconds_training", "seconds_evaluation",
        }  # fmt: skip
        for split, task, metric, value in record["rows"]:
            assert split in ("train", "dev")
            assert task in ("", *toys.TASKS)
            assert isinstance(metric, str)
            assert value is None or type(value) is float
    end = toys.ended(events)
    assert json.loads(json.dumps(end.record, allow_nan=False)) == end.record
    assert set(end.record) == {
        "status", "error", "step", "kept_step", "score", "metrics", "trainable", "total", "tokens",
        "seconds_training", "seconds_evaluation", "seconds_startup", "peak_memory", "device", "host",
        "versions",
    }  # fmt: skip
    assert (end.record["status"], end.record["error"]) == ("completed", None)
    assert end.record["peak_memory"] > 10**7
    assert json.loads(json.dumps(end.predictions, allow_nan=False)) == end.predictions
    _, facts = unpack_tensors(end.weights)
    assert facts["run"] == run.as_json()


def test_a_run_that_raised_ends_as_failed_with_what_and_where() -> None:
    run = toys.run()
    try:
        raise RuntimeError("a bug")
    except RuntimeError as error:
        end = failed(run, error, "error")
    assert end.run_id == run.run_id
    assert end.record["status"] == "failed"
    said = end.record["error"]
    assert (said["kind"], said["message"]) == ("error", "RuntimeError: a bug")
    assert "test_trainer.py" in said["traceback"]
    assert json.loads(json.dumps(end.record, allow_nan=False)) == end.record
