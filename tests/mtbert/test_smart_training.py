"""Training with SMART: what each field does, and the promises of every training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.data.tokenise import TokenisedData
from mtbert.run import Run
from mtbert.slots import State
from tests.mtbert import toys
from tests.mtbert.adapters.contract import assert_same_events, assert_same_state
from tests.mtbert.test_pack import doctored, planted

DROPOUT = {"backbone": 0.1, "attention": 0.2, "adapters": 0.1, "heads": 0.1}
SHOWS = {"noise": 0.05, "radius": 0.05, "step_size": 0.02}
"""A perturbation large enough to matter over a few steps."""
LoRA = toys.lora(dropout=0.1, targets=["query", "value", "ffn_out"])


def weights_of(run: Run, backbone: Backbone, data: TokenisedData) -> State:
    return toys.weights(toys.ended(toys.train_alone(data, backbone, run)))


def last_weights(backbone: Backbone, data: TokenisedData, **changes: Any) -> State:
    base = {"low_rank": LoRA, "evaluation": {"keep": "last"}, "training": {"dropout": DROPOUT}}
    return weights_of(toys.run(**{**base, **changes}), backbone, data)


def test_a_weight_of_zero_trains_as_if_there_were_no_smart(backbone: Backbone, data: TokenisedData) -> None:
    plain = last_weights(backbone, data)
    assert_same_state(last_weights(backbone, data, smart={**SHOWS, "weight": 0}), plain, exactly=True)
    of_tasks = dict.fromkeys(toys.TASKS, 0.0)
    assert_same_state(last_weights(backbone, data, smart={**SHOWS, "weights": of_tasks}), plain, exactly=True)
    assert toys.moved(last_weights(backbone, data, smart=SHOWS), plain) == set(plain)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight", 3.0),
        ("weights", {"sst": 3.0}),
        ("noise", 0.02),
        ("noises", {"sts": 0.2}),
        ("ascent_steps", 2),
        ("step_size", 0.01),
        ("radius", 0.03),
        ("projection", "normalise"),
        ("bregman", {"weight": 5.0}),
    ],
)
def test_each_field_changes_training_by_itself(
    field: str, value: Any, backbone: Backbone, data: TokenisedData
) -> None:
    base = last_weights(backbone, data, smart=SHOWS)
    assert toys.moved(last_weights(backbone, data, smart={**SHOWS, field: value}), base)


def test_both_branches_without_dropout_train_on_noise_alone(backbone: Backbone, data: TokenisedData) -> None:
    none = {"training": {"dropout": {"backbone": 0.0, "heads": 0.0}}, "low_rank": toys.lora()}
    both = {**SHOWS, "perturb": "both", "ascent_steps": 0}
    found = last_weights(backbone, data, **none, smart=both)
    assert_same_state(found, last_weights(backbone, data, **none, smart={**both, "weight": 0}))
    assert toys.moved(found, last_weights(backbone, data, **none)) == set(found)


def test_the_penalty_is_told_beside_the_plain_loss(backbone: Backbone, data: TokenisedData) -> None:
    changes = {
        "low_rank": toys.lora(),
        "evaluation": {"every": 1, "train_limit": 0},
        "training": {"steps": 3},
    }
    plain = toys.evaluations(toys.train_alone(data, backbone, toys.run(**changes)))
    found = toys.evaluations(toys.train_alone(data, backbone, toys.run(**changes, smart=SHOWS)))
    assert toys.values(found[0], "train", "training_loss") == toys.values(plain[0], "train", "training_loss")
    for record in found:
        penalties = toys.values(record, "train", "smart_penalty")
        assert set(penalties) == set(toys.values(record, "train", "training_loss"))
        assert all(value is not None and value > 0 for value in penalties.values())
    assert not any(toys.values(record, "train", "smart_penalty") for record in plain)


def member(seed: int, **changes: Any) -> Run:
    """A run that keeps its last step: the best of two that tie would hang on rounding."""
    return toys.run(seed, **changes, evaluation={"keep": "last"})


def mixed_runs() -> list[Run]:
    """Members that differ in everything that SMART has, and some that have none."""
    joint = {"schedule": {"kind": "joint"}, "steps": 5}
    return [
        member(0, low_rank=LoRA, smart={**SHOWS, "ascent_steps": 0}, training={"dropout": DROPOUT}),
        member(1, low_rank=toys.lora(rank=2), smart={**SHOWS, "weights": {"sst": 0}}, training=joint),
        member(2, low_rank=toys.lora(), training={"dropout": DROPOUT}),
        member(
            3,
            biases="trained",
            features="mean",
            pairs={"encoding": "separate"},
            smart={**SHOWS, "ascent_steps": 3, "projection": "normalise", "radius": 0.5},
            training={**joint, "dropout": DROPOUT},
        ),
        member(4, smart={**SHOWS, "ascent_steps": 0, "perturb": "both"}, training={"dropout": DROPOUT}),
        member(
            5, low_rank=LoRA, smart={"weight": 0, "bregman": {"momentum": 0.5}}, training={"dropout": DROPOUT}
        ),
        member(
            6,
            low_rank=toys.lora(sharing="per_task", rank=3),
            smart={**SHOWS, "noises": {"para": 0.3}, "bregman": {"weight": 3.0, "momentum": 0.7}},
            training={"steps": 8},
        ),
    ]


@pytest.fixture(scope="module")
def alone(backbone: Backbone, data: TokenisedData) -> dict[str, list[toys.Event]]:
    return {run.run_id: toys.train_alone(data, backbone, run) for run in mixed_runs()}


@pytest.mark.parametrize("order", [list, reversed], ids=["in order", "reversed"])
def test_mixed_members_equal_each_alone(
    order: Callable[[list[Run]], Any],
    alone: dict[str, list[toys.Event]],
    backbone: Backbone,
    data: TokenisedData,
) -> None:
    for run_id, events in toys.train(data, backbone, *order(mixed_runs())).items():
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

    for run in (runs[0], runs[3], runs[5], runs[6]):
        of.admit(run)
    advance()
    for run in (runs[1], runs[2], runs[4]):
        of.admit(run)
    leaving = [run for run in (runs[5], runs[6]) if run.run_id in of.members]
    assert len(leaving) == 2
    saved = {run.run_id: of.checkpoint(run.run_id) for run in leaving}
    for run in leaving:
        of.remove(run.run_id)
    advance()
    for run in leaving:
        of.admit(run, saved[run.run_id])
    while of.members:
        advance()
    for run_id, events in found.items():
        assert_same_events(events, alone[run_id])


@pytest.mark.parametrize("ill_at", [0, 2, 4])
@pytest.mark.parametrize("place", [".A", ".B", "heads."])
def test_one_member_s_nan_leaves_the_others_bit_identical(
    place: str, ill_at: int, backbone32: Backbone, data: TokenisedData
) -> None:
    common = {
        "precision": "float32",
        "evaluation": {"every": 4, "train_limit": 0},
        "training": {"steps": 8, "dropout": DROPOUT},
    }
    runs = [
        toys.run(0, low_rank=toys.lora(), smart={**SHOWS, "ascent_steps": 2}, **common),
        toys.run(1, low_rank=toys.lora(rank=2), smart={**SHOWS, "bregman": {}}, **common),
        toys.run(2, features="mean", smart={**SHOWS, "perturb": "both", "ascent_steps": 0}, **common),
        toys.run(3, low_rank=toys.lora(rank=1), **common),
    ]
    ill = toys.run(9, low_rank=toys.lora(rank=3), smart={**SHOWS, "bregman": {}}, **common)
    runs.insert(ill_at, ill)
    lone = toys.trainer(data, backbone32)
    lone.admit(ill)
    sick = doctored(lone.checkpoint(ill.run_id), planted(np.nan, place))

    def advanced(checkpoints: dict[str, bytes]) -> dict[str, State]:
        of = toys.trainer(data, backbone32)
        for run in runs:
            of.admit(run, checkpoints.get(run.run_id))
        of.advance()
        return {run_id: unpack_tensors(of.checkpoint(run_id))[0] for run_id in of.members}

    healthy, beside = advanced({}), advanced({ill.run_id: sick})
    assert set(beside) == set(healthy) - {ill.run_id}
    for run_id, state in beside.items():
        assert_same_state(state, healthy[run_id], exactly=True)
