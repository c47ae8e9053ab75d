"""Runs in one pack: each equals itself alone, and one's misfortune is its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.bert import Backbone
from mtbert.checkpoint import pack_tensors, unpack_tensors
from mtbert.data.tokenise import TokenisedData
from mtbert.run import Run
from mtbert.schema import ConfigError
from tests.mtbert import toys
from tests.mtbert.adapters.contract import assert_same_events, assert_same_state

DROPOUT = {"backbone": 0.1, "attention": 0.2, "adapters": 0.1, "heads": 0.3}


def mixed_runs() -> list[Run]:
    """Members that differ in everything but the backbone, its precision and the maximum length."""
    own = {"sst": {"rank": 3, "targets": ["value"]}, "sts": {"dropout": 0.5}}
    return [
        toys.run(0, low_rank=toys.lora(rank=4)),
        toys.run(1, low_rank=toys.lora(rank=2, dropout=0.1, sharing="per_task", tasks=own)),
        toys.run(2, training={"dropout": DROPOUT, "decay": "constant", "clip": None}),
        toys.run(
            3,
            low_rank=toys.lora(rank=3, targets=["all_linear", "heads"], scaling="alpha"),
            heads={"trained": False},
            features="mean",
            training={"schedule": {"kind": "joint"}, "steps": 9, "batch_size": 5},
        ),
        toys.run(
            4,
            biases="trained",
            features="cls",
            pairs={"encoding": "separate"},
            training={"steps": 10, "dropout": {"backbone": 0.3}, "weight_decay": {"heads": 0.1}},
        ),
        toys.run(
            5,
            low_rank=toys.lora(rank=8, layers=[1]),
            biases="trained",
            weighting={"weights": {"sst": 4, "sts": 0.5}},
            stages=[
                {"steps": 4, "tasks": ["sst"]},
                {"steps": 6, "optimizer": "fresh", "schedule": {"kind": "sequential"}, "dropout": DROPOUT},
            ],
        ),
        toys.run(6, low_rank=toys.lora(rank=1), training={"tasks": ["para"], "steps": 7}),
        toys.run(0, low_rank=toys.lora(rank=6), training={"learning_rate": {"adapters": 0.05}}),
    ]


@pytest.fixture(scope="module")
def alone(backbone: Backbone, data: TokenisedData) -> dict[str, list[toys.Event]]:
    return {run.run_id: toys.train_alone(data, backbone, run) for run in mixed_runs()}


def test_mixed_members_equal_each_alone(
    alone: dict[str, list[toys.Event]], backbone: Backbone, data: TokenisedData
) -> None:
    together = toys.train(data, backbone, *mixed_runs())
    assert set(together) == set(alone)
    for run_id, events in together.items():
        assert_same_events(events, alone[run_id])


def test_the_order_of_members_changes_nothing(
    alone: dict[str, list[toys.Event]], backbone: Backbone, data: TokenisedData
) -> None:
    for run_id, events in toys.train(data, backbone, *reversed(mixed_runs())).items():
        assert_same_events(events, alone[run_id])


def test_members_that_join_leave_and_come_back_equal_each_alone(
    alone: dict[str, list[toys.Event]], backbone: Backbone, data: TokenisedData
) -> None:
    runs = mixed_runs()
    of = toys.trainer(data, backbone)
    found: dict[str, list[toys.Event]] = {run.run_id: [] for run in runs}

    def advance() -> None:
        for event in of.advance():
            found[event.run_id].append(event)

    for run in runs[:3]:
        of.admit(run)
    advance()
    for run in runs[3:6]:
        of.admit(run)
    leaving = [run for run in (runs[1], runs[4]) if run.run_id in of.members]
    assert leaving
    saved = {run.run_id: of.checkpoint(run.run_id) for run in leaving}
    for run in leaving:
        of.remove(run.run_id)
    advance()
    other = toys.trainer(data, backbone)  # as if on another machine
    for run in leaving:
        other.admit(run, saved[run.run_id])
    for run in runs[6:]:
        of.admit(run)
    while of.members:
        advance()
    for run_id, events in toys.finish(other).items():
        found[run_id] += events
    for run_id, events in found.items():
        assert_same_events(events, alone[run_id])


def test_a_removed_member_leaves_no_trace(backbone: Backbone, data: TokenisedData) -> None:
    runs = mixed_runs()[:3]
    of = toys.trainer(data, backbone)
    for run in runs:
        of.admit(run)
    of.remove(runs[1].run_id)
    assert of.members == (runs[0].run_id, runs[2].run_id)
    assert set(toys.finish(of)) == {runs[0].run_id, runs[2].run_id}
    assert of.members == ()


def doctored(checkpoint: bytes, change: Callable[[str, Tensor], Tensor]) -> bytes:
    """A checkpoint with its trained tensors changed."""
    tensors, facts = unpack_tensors(checkpoint)
    return pack_tensors(
        {n: change(n, value) if n.startswith("now.") else value for n, value in tensors.items()}, facts
    )


def planted(value: float, name_part: str) -> Callable[[str, Tensor], Tensor]:
    """Puts a value into one entry of each tensor whose name holds the part."""

    def change(name: str, tensor: Tensor) -> Tensor:
        if name_part in name:
            tensor = tensor.clone()
            tensor.view(-1)[0] = value
        return tensor

    return change


def ill_and_healthy(ill_at: int, **changes: Any) -> tuple[list[Run], str]:
    """Four runs of which one will be ill; each takes five steps to its evaluation."""
    common = {
        "precision": "float32",
        "evaluation": {"every": 5, "train_limit": 5},
        "training": {"steps": 10, "dropout": {"backbone": 0.1}, **changes},
    }
    runs = [
        toys.run(0, low_rank=toys.lora(rank=4), **common),
        toys.run(1, low_rank=toys.lora(rank=2), biases="trained", **common),
        toys.run(2, low_rank=toys.lora(rank=3, sharing="per_task", targets=["value", "ffn_in"]), **common),
        toys.run(3, features="mean", **common),
    ]
    ill = toys.run(9, low_rank=toys.lora(rank=2), biases="trained", features="mean", **common)
    runs.insert(ill_at, ill)
    return runs, ill.run_id


def first_evaluations(
    runs: list[Run], checkpoints: dict[str, bytes], backbone: Backbone, data: TokenisedData
) -> tuple[dict[str, toys.Event], dict[str, bytes]]:
    """Train to the first evaluations: the events, and the checkpoints of those who go on."""
    of = toys.trainer(data, backbone)
    for run in runs:
        of.admit(run, checkpoints.get(run.run_id))
    events = {event.run_id: event for event in of.advance()}
    return events, {run_id: of.checkpoint(run_id) for run_id in of.members}


@pytest.mark.parametrize("ill_at", [0, 2, 4], ids=["first", "in the middle", "last"])
@pytest.mark.parametrize(
    ("place", "value"),
    [(".A", np.nan), (".B", np.nan), ("biases.", np.nan), ("heads.", np.nan), (".A", np.inf)],
)
def test_one_member_s_nan_leaves_the_others_bit_identical(
    place: str, value: float, ill_at: int, backbone32: Backbone, data: TokenisedData
) -> None:
    runs, ill = ill_and_healthy(ill_at)
    lone = toys.trainer(data, backbone32)
    lone.admit(next(run for run in runs if run.run_id == ill))
    sick = doctored(lone.checkpoint(ill), planted(value, place))
    before, healthy = first_evaluations(runs, {}, backbone32, data)
    after, beside_ill = first_evaluations(runs, {ill: sick}, backbone32, data)
    assert after[ill].record["status"] == "diverged"  # type: ignore[union-attr]
    assert set(beside_ill) == set(healthy) - {ill}
    for run_id, checkpoint in beside_ill.items():
        one, other = unpack_tensors(healthy[run_id])[0], unpack_tensors(checkpoint)[0]
        assert_same_state(one, other, exactly=True)  # weights, moments, losses, the best
        assert before[run_id].record["rows"] == after[run_id].record["rows"]  # type: ignore[union-attr]


def test_a_diverged_member_ends_and_its_pack_goes_on(backbone: Backbone, data: TokenisedData) -> None:
    healthy = toys.run(0, low_rank=toys.lora())
    rates = {"learning_rate": {"adapters": 1e200, "heads": 1e200}, "steps": 40}
    wild = toys.run(1, low_rank=toys.lora(), training=rates, evaluation={"every": None})
    together = toys.train(data, backbone, healthy, wild)
    end = toys.ended(together[wild.run_id])
    assert end.record["status"] == "diverged"
    assert (end.record["score"], end.record["kept_step"], end.record["metrics"]) == (None, None, {})
    assert end.weights == b""
    assert end.predictions == {} or all(not column for column in end.predictions.values())
    assert end.record["step"] <= 16
    assert_same_events(together[healthy.run_id], toys.train_alone(data, backbone, healthy))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"training": {"tasks": ["cola"]}}, "tasks"),
        ({"evaluation": {"keep": "cola"}}, "keep"),
        ({"weighting": {"weights": {"cola": 2}}}, "weights"),
        ({"smart": {"weights": {"cola": 2}}}, "smart.weights"),
        ({"smart": {"noises": {"cola": 2}}}, "smart.noises"),
        ({"low_rank": toys.lora(layers=[1, 7])}, "layers"),
        ({"low_rank": toys.lora(sharing="per_task", tasks={"cola": {"rank": 1}})}, "low_rank.tasks"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_and_its_pack_goes_on(
    changes: dict[str, Any], named: str, backbone: Backbone, data: TokenisedData
) -> None:
    healthy = toys.run(0, low_rank=toys.lora())
    of = toys.trainer(data, backbone)
    of.admit(healthy)
    with pytest.raises(ConfigError, match=named):
        of.admit(toys.run(1, **changes))
    assert of.members == (healthy.run_id,)
    assert_same_events(toys.finish(of)[healthy.run_id], toys.train_alone(data, backbone, healthy))


def test_training_never_writes_to_the_frozen_backbone(data: TokenisedData) -> None:
    arrays = toys.arrays()
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    frozen = Backbone.from_arrays(toys.SMALL, arrays)
    runs = [
        toys.run(seed, precision="float32", **changes)
        for seed, changes in enumerate(
            [
                {"low_rank": toys.lora(), "biases": "trained"},
                {"backbone": "trained"},
                {"backbone": "trained", "smart": {"bregman": {}}},
                {"backbone": "trained", "low_rank": toys.lora(targets=["query"])},
            ]
        )
    ]
    toys.train(data, frozen, *runs)
    for name, parameter in frozen.named_parameters():
        assert (arrays[name] == before[name]).all()
        assert (parameter.numpy() == before[name]).all()
        assert parameter.grad is None


def test_full_fine_tuning_is_not_packed_with_others(backbone: Backbone, data: TokenisedData) -> None:
    full = [toys.run(seed, backbone="trained") for seed in (0, 1)]
    lora = toys.run(0, low_rank=toys.lora())
    together = toys.train(data, backbone, full[0], lora, full[1])
    for run in (*full, lora):
        assert_same_events(together[run.run_id], toys.train_alone(data, backbone, run))
    assert not np.array_equal(
        toys.weights(toys.ended(together[full[0].run_id]))["backbone.pooler.weight"],
        toys.weights(toys.ended(together[full[1].run_id]))["backbone.pooler.weight"],
    )


def test_runs_of_other_maximum_lengths_advance_side_by_side(backbone: Backbone, data: TokenisedData) -> None:
    runs = [toys.run(0, max_length=length, low_rank=toys.lora()) for length in (8, 16, None)]
    together = toys.train(data, backbone, *runs)
    tokens = [toys.evaluations(together[run.run_id])[-1]["tokens"] for run in runs]
    assert tokens[0] < tokens[1] < tokens[2]
    for run in runs:
        assert_same_events(together[run.run_id], toys.train_alone(data, backbone, run))


def test_float32_packs_differ_from_lone_runs_by_rounding_alone(
    backbone32: Backbone, data: TokenisedData
) -> None:
    common = {"precision": "float32", "evaluation": {"every": 4, "train_limit": 0}, "training": {"steps": 4}}
    runs = [toys.run(seed, low_rank=toys.lora(rank=2 + seed), **common) for seed in range(3)]
    together = toys.train(data, backbone32, *runs)
    for run in runs:
        mine = toys.weights(toys.ended(together[run.run_id]))
        lone = toys.weights(toys.ended(toys.train_alone(data, backbone32, run)))
        for name, value in lone.items():
            assert torch.allclose(mine[name], value, rtol=1e-3, atol=1e-3)
