"""AdamW by owner: rates, decay and clipping of each part, and the weights of losses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.data.tokenise import TokenisedData
from mtbert.optimizer import MemberOptimizer, Owned, rate_factor
from tests.mtbert import toys


def reference_factor(stage: dict[str, Any], step: int, steps: int) -> float:
    """Linear warm-up over the first share of steps, then linear decay to zero or a constant."""
    warm = round(stage["warmup"] * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 1.0 if stage["decay"] == "constant" else (steps - step) / (steps - warm)


@pytest.mark.parametrize("decay", ["linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_rates_warm_up_and_decay(warmup: float, decay: str) -> None:
    stage = toys.configuration(training={"warmup": warmup, "decay": decay}).training
    factors = [rate_factor(stage, step, 40) for step in range(40)]
    assert factors == pytest.approx(
        [reference_factor({"warmup": warmup, "decay": decay}, step, 40) for step in range(40)]
    )
    assert max(factors) == 1.0
    assert min(factors) > 0
    warm = round(40 * warmup)
    assert all(np.diff(factors[: warm + 1]) > 0)
    assert rate_factor(stage, 0, 1) == 1.0


def test_steps_are_adamw_s_to_the_bit_also_after_a_resume() -> None:
    """A tensor without a gradient in a step rests, its moments too."""
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(3, 4, generator=draw), torch.randn(5, generator=draw)]
    ours, theirs = ([nn.Parameter(each.clone()) for each in start] for _ in range(2))
    owned = [Owned("backbone", each, None, None, 0, f"backbone.{at}") for at, each in enumerate(ours)]
    rates = {"learning_rate": {"backbone": 1e-2}, "weight_decay": {"backbone": 0.1}}
    stage = toys.configuration(training={**rates, "clip": None}).training
    own, adamw = MemberOptimizer(0, owned), torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.1, fused=True)
    for step in range(6):
        for one, other in zip(ours, theirs, strict=True):
            gradient = torch.randn(one.shape, generator=draw)
            rests = step == 2 and one.dim() == 1
            one.grad, other.grad = (None, None) if rests else (gradient, gradient.clone())
        own.step(stage, 1.0, [])
        adamw.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
        resumed = MemberOptimizer(0, owned)
        resumed.load(own.state())
        own = resumed


def test_training_does_not_load_the_compiler() -> None:
    """A second of each worker's start, and memory for as long as it lives."""
    body = (
        "import sys; from tests.mtbert import toys; "
        "toys.train_alone(toys.random_data(), toys.backbone('float32'), toys.run(training={'steps': 2})); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", body], check=True, cwd=Path(__file__).parents[2])


def first_change(part: str, changes: dict[str, Any], data: TokenisedData, backbone: Backbone) -> Tensor:
    """How far the first step moved the entries of a part that it moved at all."""
    states, _ = toys.after_each_step(toys.stepwise(**changes), data, backbone)
    difference = [
        (states[1][name] - value).abs().flatten() for name, value in states[0].items() if part in name
    ]
    found = torch.cat(difference)
    return found[found > 1e-12]


@pytest.mark.parametrize(
    ("part", "name"), [("backbone", "backbone."), ("adapters", ".B"), ("heads", "heads.")]
)
def test_each_part_has_a_learning_rate_of_its_own(
    part: str, name: str, backbone: Backbone, data: TokenisedData
) -> None:
    """AdamW's first step moves every entry by about the rate, warm-up and all."""
    rates = {"backbone": 1e-4, "adapters": 1e-4, "heads": 1e-4, part: 3e-3}
    changes = {
        "backbone": "trained",
        "low_rank": toys.lora(),
        "training": {"learning_rate": rates, "warmup": 0.5, "steps": 8, "schedule": {"kind": "joint"},
                     "clip": None},
    }  # fmt: skip
    change = first_change(name, changes, data, backbone)
    assert float(change.median()) == pytest.approx(3e-3 / 5, rel=1e-2)  # the first of four warm steps


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("backbone", "backbone.layer.0.ffn_in.weight"),
        ("adapters", "low_rank.shared.layer.0.query.A"),
        ("heads", "heads.sst.weight"),
    ],
)
def test_weight_decay_is_decoupled_and_of_each_part(
    part: str, name: str, backbone: Backbone, data: TokenisedData
) -> None:
    """At the first step: Δ = -rate · (sign + decay · weight)."""
    rate, decay = 1e-2, 0.25
    training = {"warmup": 0.0, "tasks": ["sst"], "clip": None, "steps": 1, "learning_rate": {part: rate}}
    decays = {"backbone": 9.0, "adapters": 9.0, "heads": 9.0, part: decay}
    changes = {"backbone": "trained", "low_rank": toys.lora()}
    plain, _ = toys.after_each_step(toys.stepwise(**changes, training=training), data, backbone)
    run = toys.stepwise(**changes, training={**training, "weight_decay": decays})
    decayed, _ = toys.after_each_step(run, data, backbone)
    change = decayed[1][name] - plain[1][name]
    assert torch.allclose(change, -rate * decay * plain[0][name], rtol=1e-6, atol=1e-12)


def test_the_gradient_is_clipped_to_its_norm(backbone: Backbone, data: TokenisedData) -> None:
    """AdamW's first moment after one step is a tenth of the gradient."""
    norms = {}
    for clip in (None, 0.05, 1e9):
        run = toys.stepwise(low_rank=toys.lora(), training={"clip": clip, "steps": 2, "tasks": ["sst"]})
        of = toys.trainer(data, backbone)
        of.admit(run)
        of.advance()
        moments = unpack_tensors(of.checkpoint(run.run_id))[0]
        squares = [float(v.square().sum()) for n, v in moments.items() if n.startswith("adam.exp_avg.")]
        norms[clip] = 10 * np.sqrt(sum(squares))
    assert norms[0.05] == pytest.approx(0.05, rel=1e-4)
    assert norms[1e9] == pytest.approx(norms[None])
    assert norms[None] > 0.1


def test_a_loss_s_weight_multiplies_its_task_s_gradient(backbone: Backbone, data: TokenisedData) -> None:
    moments = {}
    for weight in (1.0, 4.0):
        weights = {"weights": {"sts": weight}} if weight != 1.0 else {}
        run = toys.stepwise(
            weighting=weights, training={"clip": None, "schedule": {"kind": "joint"}, "steps": 2}
        )
        of = toys.trainer(data, backbone)
        of.admit(run)
        (record,) = toys.evaluations(of.advance())
        tensors = unpack_tensors(of.checkpoint(run.run_id))[0]
        moments[weight] = tensors, toys.values(record, "train", "training_loss")
    (one, loss), (four, same_loss) = moments[1.0], moments[4.0]
    name = "adam.exp_avg.heads.{}.weight"
    assert torch.allclose(four[name.format("sts")], 4 * one[name.format("sts")])
    assert torch.equal(four[name.format("sst")], one[name.format("sst")])
    assert loss == same_loss  # told as it is, without the weight
