"""Checkpoints: tensors and plain facts in one blob, nothing unpickled, and a run goes on exactly."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from mtbert.bert import Backbone
from mtbert.checkpoint import CheckpointError, pack_tensors, unpack_tensors
from mtbert.counts import count
from mtbert.data.tokenise import TokenisedData
from mtbert.run import Run
from tests.mtbert import toys
from tests.mtbert.adapters.contract import assert_same_events, assert_same_state

FACTS = {"run_id": "a-0", "none": None, "text": 'é\n"', "list": [1, 2.5, True], "nested": {"a": {}}}


def tensors() -> dict[str, torch.Tensor]:
    return {
        "a": torch.randn(3, 4).T,  # not contiguous
        "empty": torch.zeros(0, 2),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "low": torch.randn(5).bfloat16(),
    }


def test_tensors_and_facts_come_back_as_they_were() -> None:
    stored = tensors()
    found, facts = unpack_tensors(pack_tensors(stored, FACTS))
    assert facts == FACTS
    assert_same_state(found, stored, exactly=True)
    assert {name: value.dtype for name, value in found.items()} == {
        name: value.dtype for name, value in stored.items()
    }


def test_facts_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        pack_tensors({}, {"loss": float("nan")})


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_cut_blob_is_refused(share: float) -> None:
    blob = pack_tensors(tensors(), FACTS)
    with pytest.raises(CheckpointError):
        unpack_tensors(blob[: int(len(blob) * share)])


def test_what_is_not_a_checkpoint_is_refused() -> None:
    foreign = pack_tensors({}, {}).replace(b"mtbert", b"others")
    for blob in (b"", b"nonsense, but long enough", pickle.dumps({"a": 1}), foreign, json.dumps({}).encode()):
        with pytest.raises(CheckpointError, match="not a checkpoint"):
            unpack_tensors(blob)


def test_a_checkpoint_that_cannot_be_loaded_leaves_the_pack_as_it_was(
    backbone: Backbone, data: TokenisedData
) -> None:
    healthy, other = toys.run(0, low_rank=toys.lora()), toys.run(1, low_rank=toys.lora(rank=2))
    of = toys.trainer(data, backbone)
    of.admit(healthy)
    with pytest.raises(ValueError, match="checkpoint"):
        of.admit(other, b"nonsense")
    with pytest.raises(ValueError, match="checkpoint"):
        of.admit(other, of.checkpoint(healthy.run_id))
    with pytest.raises(ValueError, match="checkpoint"):
        of.admit(other, without_a_tensor(other, backbone, data))
    assert of.members == (healthy.run_id,)
    assert_same_events(toys.finish(of)[healthy.run_id], toys.train_alone(data, backbone, healthy))


def without_a_tensor(run: Run, backbone: Backbone, data: TokenisedData) -> bytes:
    """A run's own checkpoint with one of its tensors missing."""
    of = toys.trainer(data, backbone)
    of.admit(run)
    tensors, facts = unpack_tensors(of.checkpoint(run.run_id))
    del tensors["now.heads.sst.weight"]
    return pack_tensors(tensors, facts)


RESUMED: dict[str, dict[str, Any]] = {
    "lora with dropouts": {
        "low_rank": toys.lora(dropout=0.1),
        "training": {"dropout": {"backbone": 0.1, "attention": 0.2, "heads": 0.3}},
    },
    "a lora for each task": {"low_rank": toys.lora(sharing="per_task"), "biases": "trained"},
    "stages": {
        "low_rank": toys.lora(),
        "stages": [
            {"steps": 3, "tasks": ["sst"]},
            {"steps": 2, "optimizer": "fresh", "schedule": {"kind": "sequential"}},
            {"steps": 3, "schedule": {"kind": "joint"}, "dropout": {"backbone": 0.2}},
        ],
    },
    "full fine-tuning": {"backbone": "trained", "training": {"dropout": {"backbone": 0.1}}},
    "full with frozen lora layers": {"backbone": "trained", "low_rank": toys.lora(targets=["query"])},
    "smart": {
        "low_rank": toys.lora(dropout=0.1),
        "smart": {"noise": 0.1, "ascent_steps": 2},
        "training": {"dropout": {"backbone": 0.1}},
    },
    "smart with a proximal term": {
        "low_rank": toys.lora(dropout=0.1),
        "biases": "trained",
        "smart": {"noise": 0.1, "bregman": {"momentum": 0.8}},
        "training": {"dropout": {"backbone": 0.1}},
    },
    "full fine-tuning with a proximal term": {
        "backbone": "trained",
        "smart": {"noise": 0.1, "bregman": {"momentum": 0.8}},
        "training": {"dropout": {"backbone": 0.1}},
    },
    "subset of dev": {"low_rank": toys.lora(), "evaluation": {"dev_limit": 7, "every": 3}},
    "patience": {
        "evaluation": {"patience": 3, "every": 2},
        "training": {"steps": 12, "learning_rate": {"heads": 0}},  # nothing gets better: it ends at 8
    },
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED.keys())
def test_resuming_after_any_step_is_bit_identical(
    changes: dict[str, Any], backbone32: Backbone, data: TokenisedData
) -> None:
    """In float32, alone: a companion of another pack, evaluated at every step, stops the trainer at each."""
    training = {"steps": 8, "epochs": None, **changes.get("training", {})}
    if "stages" in changes:
        training = {**changes.get("training", {}), "steps": None}
    run = toys.run(3, **{**changes, "training": training, "precision": "float32"})
    whole = toys.train_alone(data, backbone32, run)
    companion = toys.run(0, max_length=8, precision="float32", training={"steps": 8},
                         evaluation={"every": 1, "train_limit": 0})  # fmt: skip
    first = toys.trainer(data, backbone32)
    first.admit(run)
    first.admit(companion)
    before: list[toys.Event] = []
    resumed = 0
    while run.run_id in first.members:
        before += [event for event in first.advance() if event.run_id == run.run_id]
        if run.run_id in first.members:
            second = toys.trainer(data, backbone32)
            second.admit(run, first.checkpoint(run.run_id))
            assert second.step_of(run.run_id) == first.step_of(run.run_id)
            assert_identical([*before, *toys.finish(second)[run.run_id]], whole)
            resumed += 1
    assert_identical(before, whole)
    assert resumed >= 5


def assert_identical(one: list[toys.Event], other: list[toys.Event]) -> None:
    """Everything but what clocks and memory say."""
    timed = {"seconds_training", "seconds_evaluation", "seconds_startup", "peak_memory"}
    for mine, wanted in zip(one, other, strict=True):
        assert type(mine) is type(wanted)
        of_mine, of_wanted = (
            {key: value for key, value in event.record.items() if key not in timed}  # type: ignore[union-attr]
            for event in (mine, wanted)
        )
        assert of_mine == of_wanted
    end, reference = toys.ended(one), toys.ended(other)
    assert end.predictions == reference.predictions
    assert_same_state(toys.weights(end), toys.weights(reference), exactly=True)


@pytest.mark.parametrize(
    "changes", [{"low_rank": toys.lora()}, {"low_rank": {"kind": "dora", "rank": 2}}, {}]
)
def test_of_a_member_it_holds_what_is_trained_and_its_optimizer_alone(
    changes: dict[str, Any], backbone32: Backbone, data: TokenisedData
) -> None:
    """Nothing of the frozen backbone, and nothing of the others in the pack."""
    of = toys.trainer(data, backbone32)
    joint = {"training": {"schedule": {"kind": "joint"}}, "precision": "float32"}  # all heads take steps
    runs = [
        toys.run(0, low_rank=toys.lora(rank=8), **joint),
        toys.run(1, evaluation={"every": 2}, **joint, **changes),
    ]
    for run in runs:
        of.admit(run)
    of.advance()
    tensors, _ = unpack_tensors(of.checkpoint(runs[1].run_id))
    parts: dict[str, dict[str, int]] = {}
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        parts.setdefault(part, {})[rest] = tensor.numel()
    trainable = count(runs[1].configuration, toys.SMALL, toys.TASKS).trainable
    assert set(parts) <= {"now", "adam", "best", "loss"}
    assert sum(parts["now"].values()) == sum(parts["best"].values()) == trainable
    assert set(parts["best"]) == set(parts["now"])
    moments = {name: size for name, size in parts["adam"].items() if not name.startswith("step.")}
    assert {name.split(".", 1)[1] for name in moments} == set(parts["now"])
    assert sum(moments.values()) == 2 * trainable


def test_a_checkpoint_does_not_change_what_follows(backbone32: Backbone, data: TokenisedData) -> None:
    run = toys.run(low_rank=toys.lora(), precision="float32", evaluation={"every": 1})
    of = toys.trainer(data, backbone32)
    of.admit(run)
    events: list[toys.Event] = []
    while of.members:
        assert of.checkpoint(run.run_id) == of.checkpoint(run.run_id)
        events += of.advance()
    assert_identical(events, toys.train_alone(data, backbone32, run))


def test_time_and_tokens_are_counted_through_a_resume(backbone: Backbone, data: TokenisedData) -> None:
    run = toys.run()
    first = toys.trainer(data, backbone)
    first.admit(run)
    (evaluated,) = toys.evaluations(first.advance())
    second = toys.trainer(data, backbone)
    second.admit(run, first.checkpoint(run.run_id))
    later = toys.evaluations(toys.finish(second)[run.run_id])[-1]
    assert later["tokens"] > evaluated["tokens"] > 0
    assert later["seconds_training"] > evaluated["seconds_training"] > 0
    assert later["seconds_evaluation"] > evaluated["seconds_evaluation"] > 0
    assert np.isfinite(later["seconds_training"])
