"""SMART's perturbation and penalty: against smart-pytorch, against plain torch, and their own promises."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert import smart
from mtbert.bert import Backbone
from mtbert.configuration import parse
from mtbert.data.tokenise import TokenisedData
from mtbert.draws import key64
from mtbert.dropout import token_keys
from mtbert.optimizer import owned_by
from mtbert.pack import Pack, PackHooks, TaskOutput
from mtbert.schema import ConfigError
from mtbert.tensor_draws import normal
from mtbert.tokens import TokenBatch
from tests.mtbert import toys
from tests.mtbert.adapters.contract import disturbed, packed
from tests.mtbert.smart_steps import DROPOUT, STEP, Step, gradients, smart_run, step_of, task_batch

smart_pytorch = pytest.importorskip("smart_pytorch")

SMART_PYTORCH = {"projection": "normalise", "radius": 1.0, "step_size": 0.5, "noise": 1e-2}


def summed_squares(one: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.mse_loss(one, other, reduction="sum")


@pytest.mark.parametrize("ascents", [0, 1, 2, 3])
@pytest.mark.parametrize("task", toys.TASKS)
def test_loss_and_gradients_are_smart_pytorch_s_on_the_same_network_and_noise(
    task: str, ascents: int, backbone: Backbone, data: TokenisedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = smart_run(**{**SMART_PYTORCH, "ascent_steps": ascents, "weight": 3.0})
    step = step_of(run, backbone, data, task)
    (penalty,) = step.penalties().values()
    penalty.backward()
    mine = {name: value.clone() for name, value in gradients(step.pack).items()}
    step.pack.zero_gradients()

    again = step_of(run, backbone, data, task)
    drawn = normal(
        token_keys(again.batch, {0: key64(run.seed, "smart noise", STEP)}), "smart", 16, torch.float64
    )
    monkeypatch.setattr(
        smart_pytorch.smart_pytorch.torch,
        "randn_like",
        lambda _embedded, requires_grad: drawn.requires_grad_(requires_grad),
    )

    def logits(outputs: Tensor) -> Tensor:
        return torch.cat([outputs, torch.zeros_like(outputs)], 1) if task == "para" else outputs

    def network(x: Tensor) -> Tensor:
        hooks = PackHooks(again.pack, again.batch, None, {})
        return logits(again.pack.outputs(x, again.batch, hooks)[0].outputs)

    loss = summed_squares if task == "sts" else smart_pytorch.sym_kl_loss
    theirs = smart_pytorch.SMARTLoss(
        network, loss, num_steps=ascents, step_size=SMART_PYTORCH["step_size"], noise_var=1e-2
    )
    wanted = 3.0 * theirs(again.embedded, logits(again.clean[0].outputs)) / 6  # it sums over the examples
    again.pack.zero_gradients()  # its ascents leave gradients of python functions nowhere, but to be sure
    wanted.backward()
    assert float(penalty.detach()) == pytest.approx(float(wanted.detach()), rel=1e-10)
    assert float(penalty.detach()) > 1e-6
    for name, value in gradients(again.pack).items():
        assert torch.allclose(mine[name], value, rtol=1e-8, atol=1e-12), name


@pytest.mark.parametrize("task", toys.TASKS)
def test_the_penalty_s_gradient_is_that_of_finite_differences_with_the_perturbation_fixed(
    task: str, backbone: Backbone, data: TokenisedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the divergence as the published code takes it: each logarithm against the held other side."""
    step = step_of(smart_run(ascent_steps=0, noise=0.3, weight=2.0), backbone, data, task, dropout=DROPOUT)
    (penalty,) = step.penalties().values()
    penalty.backward()
    held: list[Tensor] = []

    def surrogate(declared: Any, one: Tensor, other: Tensor) -> Tensor:
        if declared.kind == "regression":
            return (one - other)[:, 0] ** 2
        if declared.kind == "binary":
            one, other = (torch.cat([of, torch.zeros_like(of)], 1) for of in (one, other))
        if not held:
            held.extend([one.softmax(-1), other.softmax(-1)])
        p, q = held
        return -(q * one.log_softmax(-1) + p * other.log_softmax(-1)).sum(-1)

    monkeypatch.setattr(smart, "divergence", surrogate)

    def value() -> float:
        with torch.no_grad():
            step.clean = step.pack.outputs(step.embedded, step.batch, step.hooks)
            return float(next(iter(step.penalties().values())))

    value()
    draw = torch.Generator().manual_seed(0)
    for leaf in owned_by(0, step.pack, None):
        assert leaf.gradient is not None
        if not leaf.touched(0, [task]):
            continue
        direction = torch.randn(leaf.parameter.shape, generator=draw, dtype=torch.float64)
        with torch.no_grad():
            values = []
            for sign in (1, -2, 1):
                leaf.parameter.add_(direction, alpha=sign * 1e-5)
                values.append(value())
        slope = float((leaf.gradient * direction).sum())
        assert abs(slope) > 1e-4
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("ascents", [1, 2, 5])
def test_the_perturbation_stays_in_its_ball(ascents: int, backbone: Backbone, data: TokenisedData) -> None:
    clipped = step_of(smart_run(ascent_steps=ascents, radius=7e-3), backbone, data).perturbation()
    largest = clipped.abs().amax(-1)
    assert (largest <= 7e-3).all()
    assert (largest == 7e-3).all()  # noise of 1e-2 reaches the surface in some entry of every token
    scaled = step_of(smart_run(**{**SMART_PYTORCH, "radius": 0.2, "ascent_steps": ascents}), backbone, data)
    assert torch.allclose(scaled.perturbation().abs().amax(-1), torch.tensor(0.2).double(), rtol=1e-2)


def test_without_ascents_the_perturbation_is_the_noise_as_drawn(
    backbone: Backbone, data: TokenisedData
) -> None:
    found = step_of(smart_run(ascent_steps=0, radius=1e-9), backbone, data).perturbation()
    assert float(found.std()) == pytest.approx(1e-2, rel=0.1)


@pytest.mark.parametrize("task", toys.TASKS)
@pytest.mark.parametrize(
    "kind",
    [{"step_size": 1e-4, "radius": 1.0}, {"projection": "normalise", "radius": 0.02, "step_size": 0.02}],
)
def test_every_ascent_increases_the_divergence(
    task: str, kind: dict[str, Any], backbone: Backbone, data: TokenisedData
) -> None:
    first = 0 if "projection" not in kind else 1  # the first scaling alone changes the size
    found = []
    for ascents in range(first, 5):
        step = step_of(smart_run(**{**kind, "ascent_steps": ascents}), backbone, data, task)
        found.append(float(next(iter(step.penalties().values())).detach()))
    assert all(after > before for before, after in pairwise(found)), found


def test_a_gradient_of_zero_leaves_the_perturbation_finite(backbone: Backbone, data: TokenisedData) -> None:
    for kind in ({}, SMART_PYTORCH):
        run = smart_run(**kind)
        state = {name: torch.zeros_like(value) for name, value in disturbed(run).items()}
        pack = packed([run], [state], backbone)  # heads of zero: the outputs are constant
        step = Step(pack, task_batch(data, [run], ["sst"]), [run])
        assert torch.isfinite(step.perturbation()).all()
        assert float(step.penalties()[0, "sst"].detach()) == 0


@pytest.mark.parametrize("backbone_kind", ["frozen", "trained"])
def test_the_ascents_give_parameters_no_gradient(
    backbone_kind: str, backbone: Backbone, data: TokenisedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = backbone.trainable_copy() if backbone_kind == "trained" else backbone
    run = smart_run(ascent_steps=2)
    seen: list[bool] = []
    real = Pack.outputs

    def watched(pack: Pack, embedded: Tensor, batch: TokenBatch, hooks: PackHooks) -> list[TaskOutput]:
        leaves = [leaf for bank in pack.banks for leaf in bank.stack.leaf.values()]
        seen.append(any(leaf.requires_grad for leaf in leaves))
        return real(pack, embedded, batch, hooks)

    monkeypatch.setattr(Pack, "outputs", watched)
    step = step_of(run, over, data)
    step.perturbation()
    assert seen == [True, False, False]
    assert all(bank.stack.gradients is None or not bank.stack.gradients.any() for bank in step.pack.banks)
    assert all(parameter.grad is None for parameter in over.parameters())
    step.penalties()[0, "sst"].backward()
    assert seen == [True, False, False, False, False, True]
    assert any(bank.stack.gradients is not None and bank.stack.gradients.any() for bank in step.pack.banks)
    grown = [parameter.grad is not None for parameter in over.parameters()]
    assert any(grown) == (backbone_kind == "trained")


def test_weights_and_noises_are_each_task_s_own(backbone: Backbone, data: TokenisedData) -> None:
    own = {"weights": {"sst": 0.0, "sts": 4.0}, "noises": {"sts": 0.5}}
    run = smart_run(ascent_steps=0, weight=2.0, **own)
    pack, batch = packed([run], [disturbed(run)], backbone), task_batch(data, [run], list(toys.TASKS))
    step = Step(pack, batch, [run])
    found = step.penalties()
    assert set(found) == {(0, "para"), (0, "sts")}
    spreads = {span.task: float(step.perturbation()[span.rows][: batch.tokens].std()) for span in batch.spans}
    assert spreads["sts"] == pytest.approx(0.5, rel=0.1)
    assert spreads["para"] == pytest.approx(1e-2, rel=0.1)
    once = smart_run(ascent_steps=0, weight=1.0, noises={"sts": 0.5})
    plain = Step(packed([once], [disturbed(run)], backbone), batch, [once]).penalties()
    assert torch.allclose(found[0, "para"], 2 * plain[0, "para"])
    assert torch.allclose(found[0, "sts"], 4 * plain[0, "sts"])


def test_the_perturbed_branch_has_masks_of_its_own(backbone: Backbone, data: TokenisedData) -> None:
    run = smart_run(ascent_steps=0, noise=1e-12)
    assert float(step_of(run, backbone, data).penalties()[0, "sst"].detach()) < 1e-15
    dropped = step_of(run, backbone, data, dropout=DROPOUT).penalties()[0, "sst"]
    assert float(dropped.detach()) > 1e-3
    assert torch.equal(dropped, step_of(run, backbone, data, dropout=DROPOUT).penalties()[0, "sst"])


def test_with_both_branches_perturbed_dropout_alone_tells_them_apart(
    backbone: Backbone, data: TokenisedData
) -> None:
    run = smart_run(ascent_steps=0, perturb="both", noise=0.3)
    step = step_of(run, backbone, data)
    assert float(step.penalties()[0, "sst"].detach()) == 0
    noise = step.perturbation()
    assert float(noise.std()) == pytest.approx(0.3, rel=0.1)
    shifted = step.smoothness.shifted(step.embedded)[: step.batch.tokens]
    assert torch.equal(shifted, step.embedded[: step.batch.tokens] + noise)
    one = step_of(smart_run(ascent_steps=0, noise=0.3), backbone, data)
    assert one.smoothness.shifted(one.embedded) is one.embedded
    assert torch.equal(one.perturbation(), noise)
    assert not torch.allclose(one.clean[0].outputs, step.clean[0].outputs)  # the task's loss sees the noise
    assert float(step_of(run, backbone, data, dropout=DROPOUT).penalties()[0, "sst"].detach()) > 1e-3


def test_both_branches_perturbed_leave_nothing_to_ascend() -> None:
    with pytest.raises(ConfigError, match=r"smart\.ascent_steps: expected 0 with perturb: both.*got 1"):
        parse({"smart": {"perturb": "both"}})
    parse({"smart": {"perturb": "both", "ascent_steps": 0}})


def test_bfloat16_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision"):
        parse({"smart": {}, "precision": "bfloat16"})


def test_a_member_s_perturbation_is_its_own_alone_in_a_pack_and_beside_other_ascents(
    backbone: Backbone, data: TokenisedData
) -> None:
    runs = [
        smart_run(0, ascent_steps=0),
        smart_run(1, ascent_steps=2),
        toys.run(2, low_rank=toys.lora()),
        smart_run(3, ascent_steps=1, noise=0.1, weights={"sts": 0}),
        smart_run(4, **{**SMART_PYTORCH, "ascent_steps": 3}),
        smart_run(5, weight=0.0),
        smart_run(6, ascent_steps=0, perturb="both"),
    ]
    tasks = ["sst", "sts"]
    batch = task_batch(data, runs, tasks)
    pack = packed(runs, [disturbed(run, seed=at) for at, run in enumerate(runs)], backbone)
    together = Step(pack, batch, runs, DROPOUT)
    penalties, noise = together.penalties(), together.perturbation()
    for at, run in enumerate(runs):
        lone = Step(
            packed([run], [disturbed(run, seed=at)], backbone), task_batch(data, [run], tasks), [run], DROPOUT
        )
        alone = lone.penalties()
        assert {task for member, task in penalties if member == at} == {task for _, task in alone}
        for (_, task), value in alone.items():
            assert torch.allclose(penalties[at, task], value, rtol=1e-9)
        rows = np.flatnonzero(np.repeat(batch.member == at, batch.lengths))
        if alone:
            assert torch.allclose(noise[rows], lone.perturbation(), rtol=1e-9, atol=1e-15)
        else:
            assert not noise[rows].any()
