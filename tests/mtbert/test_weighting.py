"""Weights of the tasks' losses: each method's formula, its state, and what it tells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.configuration import parse
from mtbert.counts import count
from mtbert.data.tokenise import TokenisedData
from mtbert.weighting import loss_weights, objective, shares
from tests.mtbert import plain, test_checkpoint, test_counts, test_inference, toys
from tests.mtbert.adapters.contract import assert_same_state

UNCERTAINTY = {"kind": "uncertainty"}
HUQ_PERVIN = {"kind": "huq_pervin"}
SHARED = {"sst": 0.7, "para": 0.5, "sts": 8.0}
"""Losses of the three tasks."""


def schooled(weighting: dict[str, Any], kind: str, **training: Any) -> Any:
    """A run of a shared LoRA at constant rates, evaluated at each step."""
    common = {"schedule": {"kind": kind}, "warmup": 0.0, "decay": "constant", "steps": 8}
    return toys.stepwise(low_rank=toys.lora(), weighting=weighting, training={**common, **training})


def log_variance(task: str) -> str:
    return f"weighting.{task}.log_variance"


def uncertain(step: plain.Step) -> plain.Gradients:
    """Gradients of Σ L/σ² + log σ, a squared error's with ½ (Kendall et al. 2018, Eq. 7 and 10)."""
    weights, own = {}, {}
    for task, loss in step.losses.items():
        log_sigma = float(step.state[log_variance(task)]) / 2
        weights[task] = (0.5 if task == "sts" else 1.0) / math.exp(log_sigma) ** 2
        # d/ds of w(s)·L + s/2
        own[log_variance(task)] = torch.tensor(0.5 - weights[task] * loss, dtype=torch.float64)
    return plain.weighted(step.gradients, weights) | own


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("kind", ["joint", "round_robin"])
def test_uncertainty_trains_as_its_equations_say(
    kind: str, clip: float | None, backbone: Backbone, data: TokenisedData
) -> None:
    """Log-variances too: without decay, part of what is clipped, at rest where their task is."""
    decay = {"heads": 0.3, "adapters": 0.2}
    run = schooled(UNCERTAINTY, kind, clip=clip, weight_decay=decay)
    states, _ = toys.after_each_step(run, data, backbone)
    for mine, wanted in zip(states, plain.train(run, data, backbone, uncertain), strict=True):
        assert_same_state(mine, wanted)
    assert all(float(states[-1][log_variance(task)]) != 0 for task in toys.TASKS)


@pytest.mark.parametrize("kind", ["joint", "round_robin", "annealed"])
def test_huq_pervin_weighs_by_shares_of_the_latest_losses(
    kind: str, backbone: Backbone, data: TokenisedData
) -> None:
    """Over the tasks that have been seen; the step's own losses are the latest of their tasks."""
    latest: dict[str, float] = {}

    def shared(step: plain.Step) -> plain.Gradients:
        latest.update(step.losses)
        weights = {task: loss / sum(latest.values()) for task, loss in latest.items()}
        return plain.weighted(step.gradients, weights)

    run = schooled(HUQ_PERVIN, kind, clip=None)
    states, records = toys.after_each_step(run, data, backbone)
    for mine, wanted in zip(states, plain.train(run, data, backbone, shared), strict=True):
        assert_same_state(mine, wanted)
    told = toys.values(records[-1], "train", "loss_weight")
    assert told == pytest.approx({task: latest[task] / sum(latest.values()) for task in told})


def test_static_weights_train_as_a_weighted_sum(backbone: Backbone, data: TokenisedData) -> None:
    """Report 000's 10, 4 and 1."""
    weights = {"sts": 10.0, "sst": 4.0, "para": 1.0}
    run = schooled({"weights": weights}, "joint", clip=None)
    states, records = toys.after_each_step(run, data, backbone)
    wanted = plain.train(run, data, backbone, lambda step: plain.weighted(step.gradients, weights))
    for mine, reference in zip(states, wanted, strict=True):
        assert_same_state(mine, reference)
    assert all(not toys.values(record, "train", "loss_weight") for record in records)


@pytest.mark.parametrize(("task", "factor"), [("sts", 1.0), ("sst", 2.0), ("para", 2.0)])
def test_a_log_variance_goes_to_where_its_loss_puts_it(task: str, factor: float, backbone: Backbone) -> None:
    """At its lowest ½·exp(-s)·L + s/2 has s = log L, and exp(-s)·L + s/2 has s = log 2L.

    Every batch is all of the data and nothing else moves, so that the loss stays.
    """
    data = toys.random_data(sizes=(20, 20, 20))
    run = toys.run(
        low_rank=toys.lora(),
        heads={"trained": False},
        weighting=UNCERTAINTY,
        training={
            "tasks": [task],
            "batch_size": 20,
            "steps": 300,
            "learning_rate": {"adapters": 0.0, "heads": 0.1},
            "clip": None,
        },
        evaluation={"every": None, "train_limit": 0},
    )
    events = toys.train_alone(data, backbone, run)
    (record,) = toys.evaluations(events)
    loss = toys.values(record, "train", "training_loss")[task]
    assert loss is not None
    s = float(toys.weights(toys.ended(events))[log_variance(task)])
    assert abs(math.log(factor * loss)) > 0.2
    assert s == pytest.approx(math.log(factor * loss), abs=1e-3)
    told = toys.values(record, "train", "loss_weight")
    assert told == pytest.approx({task: (0.5 if task == "sts" else 1.0) * math.exp(-s)})


def test_changing_weights_are_told_of_the_stages_begun(backbone: Backbone, data: TokenisedData) -> None:
    stages = [{"steps": 2, "tasks": ["sst"]}, {"steps": 4, "tasks": ["para", "sts"]}]
    training = {"schedule": {"kind": "round_robin"}, "steps": None}
    run = toys.stepwise(weighting=UNCERTAINTY, training=training, stages=stages)
    _, records = toys.after_each_step(run, data, backbone)
    told = [set(toys.values(record, "train", "loss_weight")) for record in records]
    assert told == [{"sst"}] * 2 + [{"sst", "para", "sts"}] * 4


def test_what_an_earlier_stage_saw_has_no_part_in_huq_pervin_s_sum(
    backbone: Backbone, data: TokenisedData
) -> None:
    stages = [{"steps": 3, "tasks": ["sst"]}, {"steps": 3, "tasks": ["para", "sts"]}]
    training = {"schedule": {"kind": "round_robin"}, "steps": None}
    run = toys.stepwise(weighting=HUQ_PERVIN, training=training, stages=stages)
    _, records = toys.after_each_step(run, data, backbone)
    told = [toys.values(record, "train", "loss_weight") for record in records]
    assert told[:2] == [{"sst": 1.0}] * 2
    assert told[3] == {"para": 1.0}
    assert set(told[5]) == {"para", "sts"}
    losses = {**toys.values(records[4], "train", "training_loss"),
              **toys.values(records[5], "train", "training_loss")}  # fmt: skip
    assert told[5] == pytest.approx({task: loss / sum(losses.values()) for task, loss in losses.items()})  # type: ignore[operator, arg-type]


def test_shares_of_losses_that_are_all_zero_are_equal() -> None:
    zero = torch.zeros(())
    assert {task: float(share) for task, share in shares({"a": zero, "b": zero}).items()} == {
        "a": 0.5,
        "b": 0.5,
    }
    assert {float(share) for share in shares({"a": zero}).values()} == {1.0}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_not_hidden(value: float) -> None:
    losses = {"sst": torch.tensor(value), "sts": torch.tensor(1.0)}
    weighting = toys.configuration(weighting=HUQ_PERVIN).weighting
    weights = loss_weights(weighting, toys.TASKS, {}, losses)
    assert not torch.isfinite(objective(losses, weights, {}))


def test_huq_pervin_s_weights_are_no_way_for_gradients() -> None:
    """They are numbers to the step: of Σ w·L only L is differentiated."""
    run = schooled(HUQ_PERVIN, "joint")
    losses = {task: torch.tensor(value, requires_grad=True) for task, value in SHARED.items()}
    latest = {task: loss.detach() for task, loss in losses.items()}
    weights = loss_weights(run.configuration.weighting, toys.TASKS, {}, latest)
    objective(losses, weights, {}).backward()  # type: ignore[no-untyped-call]
    for task, loss in losses.items():
        assert float(loss.grad) == pytest.approx(SHARED[task] / sum(SHARED.values()))  # type: ignore[arg-type]


def test_log_variances_rest_where_a_stage_does_not_train_the_heads(
    backbone: Backbone, data: TokenisedData
) -> None:
    training = {"schedule": {"kind": "joint"}, "trains": ["adapters"]}
    run = toys.stepwise(low_rank=toys.lora(), weighting=UNCERTAINTY, training=training)
    states, _ = toys.after_each_step(run, data, backbone)
    assert {name.split(".")[0] for name in toys.moved(states[0], states[-1])} == {"low_rank"}


def test_log_variances_are_counted_as_a_part_of_their_own() -> None:
    plainly = count(parse({}), toys.SMALL, toys.TASKS)
    for weighting in (HUQ_PERVIN, {"weights": {"sst": 2}}):
        assert count(parse({"weighting": weighting}), toys.SMALL, toys.TASKS) == plainly
    counts = count(parse({"weighting": UNCERTAINTY}), toys.SMALL, toys.TASKS)
    assert counts.parts == {**plainly.parts, "weighting": (3, 3)}
    assert counts.trainable == plainly.trainable + 3


@pytest.mark.parametrize("tasks", [["sst", "para", "sts"], ["para", "sts"]])
def test_what_is_counted_of_a_weighting_is_what_adamw_moves(tasks: list[str]) -> None:
    test_counts.test_what_is_counted_is_what_adamw_moves(
        {"low_rank": toys.lora(), "weighting": UNCERTAINTY, "training": {"tasks": tasks}}
    )


def test_a_model_trained_with_uncertainty_predicts_what_its_run_told(data: TokenisedData) -> None:
    test_inference.test_a_trained_model_predicts_what_its_run_told(
        {"weighting": UNCERTAINTY, "low_rank": toys.lora()}, data
    )


RESUMED: dict[str, dict[str, Any]] = {
    "uncertainty": {"weighting": UNCERTAINTY, "low_rank": toys.lora(dropout=0.1)},
    "uncertainty with stages": {
        "weighting": UNCERTAINTY,
        "stages": [{"steps": 4}, {"steps": 4, "optimizer": "fresh", "tasks": ["sst", "sts"]}],
    },
    "huq_pervin": {"weighting": HUQ_PERVIN, "low_rank": toys.lora()},
    "huq_pervin, round robin": {
        "weighting": HUQ_PERVIN,
        "training": {"schedule": {"kind": "round_robin"}},
        "evaluation": {"every": 4},
    },
    "gradient surgery": {
        "weighting": {"kind": "gradient_surgery"},
        "low_rank": toys.lora(dropout=0.1),
        "training": {"schedule": {"kind": "joint"}},
    },
    "gradient surgery of everything": {
        "weighting": {"kind": "gradient_surgery"},
        "backbone": "trained",
        "training": {"schedule": {"kind": "joint"}, "dropout": {"backbone": 0.1}},
    },
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED.keys())
def test_resuming_is_bit_identical(
    changes: dict[str, Any], backbone32: Backbone, data: TokenisedData
) -> None:
    test_checkpoint.test_resuming_after_any_step_is_bit_identical(changes, backbone32, data)


def test_a_checkpoint_holds_the_latest_losses_as_tensors(backbone: Backbone, data: TokenisedData) -> None:
    run = schooled(HUQ_PERVIN, "joint")
    of = toys.trainer(data, backbone)
    of.admit(run)
    (record,) = toys.evaluations(of.advance())
    tensors, _ = unpack_tensors(of.checkpoint(run.run_id))
    latest = {name: float(value) for name, value in tensors.items() if name.startswith("latest.")}
    losses = toys.values(record, "train", "training_loss")
    assert latest == {f"latest.{task}": loss for task, loss in losses.items()}
    assert np.isfinite(list(latest.values())).all()
