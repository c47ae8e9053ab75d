"""What can be combined, combines, and whatever leaves the backbone frozen trains in one pack."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from mtbert.run import Run
from tests.mtbert import toys
from tests.mtbert.adapters.contract import assert_same_events

JOINT = {"schedule": {"kind": "joint"}}
PAL = {"hidden": 8, "heads": 2, "dropout": 0.1, "task_dropout": {"sst": 0.3}}
SMART = {"weight": 0.1, "noise": 1e-2, "radius": 1e-2}
COSINE = {"para": {"kind": "linear_cosine"}, "sts": {"kind": "relu_cosine"}}
TECHNIQUES: dict[str, dict[str, Any]] = {
    "probe": {},
    "LoRA": {"low_rank": toys.lora(dropout=0.2)},
    "LoRA for each task": {"low_rank": toys.lora(sharing="per_task", targets=["all_linear", "heads"])},
    "DoRA": {"low_rank": {**toys.lora(rank=3), "kind": "dora"}},
    "orthogonal": {"low_rank": {**toys.lora(rank=2), "kind": "orthogonal"}, "features": "mean"},
    "biases": {"biases": "trained", "features": "cls"},
    "PAL": {"parallel": PAL},
    "low-rank PAL beside attention": {"parallel": {"form": "low_rank", "hidden": 3, "place": "attention"}},
    "SMART": {"low_rank": toys.lora(), "smart": SMART},
    "uncertainty": {"low_rank": toys.lora(), "weighting": {"kind": "uncertainty"}},
    "Huq-Pervin": {"low_rank": toys.lora(), "weighting": {"kind": "huq_pervin"}},
    "cosine heads": {
        "low_rank": toys.lora(),
        "pairs": {"encoding": "separate"},
        "heads": {"tasks": COSINE},
    },
    "report 004, Table 4": {  # PALs, LoRA, SMART and annealed sampling at once
        "low_rank": toys.lora(scaling="alpha"),
        "parallel": PAL,
        "smart": {**SMART, "ascent_steps": 0},
        "training": {"schedule": {"kind": "annealed"}, "steps_per_epoch": 2},
    },
    "everything at once": {
        "low_rank": {**toys.lora(), "kind": "dora"},
        "parallel": {**PAL, "place": "attention"},
        "biases": "trained",
        "weighting": {"kind": "uncertainty"},
        "smart": {**SMART, "bregman": {"weight": 0.5}},
        "heads": {"tasks": {"para": {"kind": "projected", "size": 4}}},
    },
}


def combined(name: str) -> Run:
    """A run of the technique that drops something everywhere."""
    changes = TECHNIQUES[name]
    dropout = {"dropout": {"backbone": 0.1, "heads": 0.1}}
    return toys.run(1, **{**changes, "training": {**changes.get("training", {}), **dropout}})


@pytest.fixture(scope="module")
def together(backbone: Backbone, data: TokenisedData) -> dict[str, list[toys.Event]]:
    """All of them trained in one pack."""
    trainer = toys.trainer(data, backbone)
    for name in TECHNIQUES:
        trainer.admit(combined(name))
    assert len(set(map(id, trainer._of_run.values()))) == 1
    return toys.finish(trainer)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_in_one_pack_each_trains_as_it_does_alone(
    name: str, together: dict[str, list[toys.Event]], backbone: Backbone, data: TokenisedData
) -> None:
    run = combined(name)
    assert_same_events(together[run.run_id], toys.train_alone(data, backbone, run))


@pytest.mark.parametrize("name", ["report 004, Table 4", "everything at once"])
def test_what_is_combined_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(
    name: str, backbone: Backbone, data: TokenisedData
) -> None:
    run = combined(name)
    first = toys.trainer(data, backbone)
    first.admit(run)
    first.advance()
    second = toys.trainer(data, backbone)
    second.admit(run, first.checkpoint(run.run_id))
    one = toys.weights(toys.ended(toys.finish(first)[run.run_id]))
    other = toys.weights(toys.ended(toys.finish(second)[run.run_id]))
    assert set(one) == set(other)
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_all_of_report_004_trains_with_the_backbone(backbone: Backbone, data: TokenisedData) -> None:
    """Its combined models train the whole of BERT beside the rest."""
    changes = {**TECHNIQUES["report 004, Table 4"], "backbone": "trained"}
    states, _ = toys.after_each_step(
        toys.stepwise(**{**changes, "training": {**changes["training"], "steps": 2}}), data, backbone
    )
    moved = toys.moved(states[0], states[-1])
    for part in ("backbone.", "low_rank.", "parallel.", "heads."):
        assert any(name.startswith(part) for name in moved), part
