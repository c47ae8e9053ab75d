"""DoRA keeps the contract wherever LoRA does; its norms are those of the merged weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.func import functional_call

from mtbert.adapters.base import SlotLinear
from mtbert.adapters.dora import DoRABank, norms
from mtbert.batches import Request, assemble
from mtbert.bert import Backbone, mean_pool
from mtbert.configuration import Configuration
from mtbert.data.tokenise import TokenisedData
from mtbert.hooks import UNALTERED
from mtbert.linear import Linear
from mtbert.losses import per_example
from mtbert.member import initial_state
from mtbert.optimizer import owned_by
from mtbert.slots import SlotView, State, Stretch
from mtbert.tokens import TokenBatch
from tests.mtbert import toys
from tests.mtbert.adapters import test_lora
from tests.mtbert.adapters.contract import AdapterContract, Changes, disturbed, outputs, packed, total_loss
from tests.mtbert.adapters.test_lora import joint, of_task, scale

BESIDE_BIASES = {
    "with biases": {**joint(targets=["all_linear"]), "biases": "trained"},
    "each task its own, with biases": {**joint(**test_lora.PER_TASK), "biases": "trained"},
}
VARIANTS: dict[str, Changes] = {
    name: {**changes, "low_rank": {**changes["low_rank"], "kind": "dora"}}
    for name, changes in {**test_lora.VARIANTS, **BESIDE_BIASES}.items()
}


def sites_of(state: State, variant: str) -> list[str]:
    """The sites that a variant adapts."""
    prefix = f"low_rank.{variant}."
    names = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
    return [name.removesuffix(".A") for name in names if name.endswith(".A")]


class TestDoRA(AdapterContract):
    variants = VARIANTS

    def expected_parameters(self, configuration: Configuration) -> int:
        hidden, wide = toys.SMALL.hidden_size, toys.SMALL.intermediate_size
        state = initial_state(toys.run(), toys.SMALL, toys.TASKS)
        outputs_of = {f"heads.{task}": len(state[f"heads.{task}.bias"]) for task in toys.TASKS}
        low_rank = configuration.low_rank
        assert low_rank is not None
        layers = toys.SMALL.num_hidden_layers if low_rank.layers is None else len(low_rank.layers)
        magnitudes = 0
        for tasks in [list(toys.TASKS)] if low_rank.sharing == "shared" else [[task] for task in toys.TASKS]:
            _, own = of_task(configuration, tasks[0])
            for target in own.targets:
                if target == "heads":
                    magnitudes += sum(outputs_of[f"heads.{task}"] for task in tasks)
                elif target == "pooler":
                    magnitudes += hidden
                else:
                    magnitudes += layers * (wide if target == "ffn_in" else hidden)
        biases = toys.SMALL.num_hidden_layers * (5 * hidden + wide) + hidden
        factors = test_lora.TestLoRA().expected_parameters(configuration)
        return factors + magnitudes + (biases if configuration.biases == "trained" else 0)

    def merged_weights(
        self, configuration: Configuration, state: State, weights: State, task: str
    ) -> tuple[State, State]:
        """m·(W + s·B·A)/‖W + s·B·A‖, the norms without a gradient."""
        variant, dora = of_task(configuration, task)
        heads: State = {}
        for site in sites_of(state, variant):
            of = f"low_rank.{variant}.{site}"
            original = (state if site.startswith("heads.") else weights)[f"{site}.weight"]
            direction = original + scale(dora) * state[f"{of}.B"] @ state[f"{of}.A"]
            magnitude = original.norm(dim=1).detach() + state[f"{of}.magnitude"]
            merged = (magnitude / direction.norm(dim=1).detach())[:, None] * direction
            (heads if site.startswith("heads.") else weights)[f"{site}.weight"] = merged
        for name, value in state.items():
            if name.startswith("biases."):
                bias = f"{name.removeprefix('biases.')}.bias"
                weights[bias] = weights[bias] + value
        return weights, heads

    def test_gradients_are_those_of_finite_differences(
        self, changes: Changes, backbone: Backbone, data: TokenisedData
    ) -> None:
        """Not of differences, which see the norm move: of autograd through merged weights, the norm fixed."""
        run = toys.run(**changes)
        start = disturbed(run)
        pack = packed([run], [start], backbone)
        total_loss(pack, [run], data).backward()
        state = {name: value.clone().requires_grad_() for name, value in start.items()}
        total = torch.zeros((), dtype=torch.float64)
        for task in toys.TASKS:
            merged = self.merged_weights(run.configuration, state, dict(backbone.state_dict()), task)
            total = total + reference_loss(run.configuration, backbone, *merged, state, task, data)
        total.backward()  # type: ignore[no-untyped-call]
        found: State = {}
        for leaf in owned_by(0, pack, None):
            assert leaf.gradient is not None
            found |= leaf.read(leaf.gradient)
        assert found
        for name, gradient in found.items():
            wanted = state[name].grad
            assert wanted is not None
            assert torch.allclose(gradient, wanted, rtol=1e-9, atol=1e-11), name


class Features(nn.Module):
    """What a backbone makes of a batch, as one function, so that weights can be put in its place."""

    def __init__(self, backbone: Backbone, kind: str) -> None:
        super().__init__()
        self.backbone, self.kind = backbone, kind

    def forward(self, batch: TokenBatch) -> Tensor:
        """[sequences, hidden]"""
        embedded = self.backbone.embed(batch, UNALTERED)
        if self.kind == "mean":
            return mean_pool(self.backbone.encode(embedded, batch, UNALTERED, "token"), batch)
        first = self.backbone.encode(embedded, batch, UNALTERED, "sequence")
        return self.backbone.pool(first, UNALTERED) if self.kind == "pooler" else first


def reference_loss(
    configuration: Configuration,
    backbone: Backbone,
    weights: State,
    heads: State,
    state: State,
    task: str,
    data: TokenisedData,
) -> Tensor:
    """A task's loss over its first six examples, the adapter merged into weights and heads."""
    split = data.splits[task, "train"]
    batch = assemble([Request(0, task, split, np.arange(6), configuration.pairs)], data.special, 64)
    named = {f"backbone.{name}": value for name, value in weights.items()}
    x = functional_call(Features(backbone, configuration.features), named, (batch,))
    if toys.TASKS[task].sentences == 2 and configuration.pairs.encoding == "separate":
        x = torch.cat([x[:6], x[6:]], dim=1)
    weight = heads.get(f"heads.{task}.weight", state[f"heads.{task}.weight"])
    found = F.linear(x, weight, state[f"heads.{task}.bias"])
    return per_example(toys.TASKS[task], found, torch.from_numpy(split.labels[:6])).mean()


def test_norms_are_those_of_the_merged_weights_in_any_precision() -> None:
    """Of float32 factors, whatever the backbone computes in."""
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 16, generator=draw), torch.randn(2, 32, 3, generator=draw)
    for precision in ("float32", "bfloat16"):
        linear = toys.backbone(precision).linear("layer.0.ffn_in")
        weight = linear.weight.double()
        original, adapted = norms(a, b, linear)
        assert adapted.dtype == original.dtype == torch.float32
        assert torch.allclose(original[0].double(), weight.norm(dim=1), rtol=1e-6)
        for slot in range(2):
            merged = weight + b[slot].double() @ a[slot].double()
            assert torch.allclose(adapted[slot].double(), merged.norm(dim=1), rtol=1e-6)


def test_norms_of_slots_with_weights_of_their_own() -> None:
    draw = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    a, b, own = normal(2, 3, 16), normal(2, 5, 3), SlotLinear(normal(2, 5, 16), normal(2, 5))
    original, adapted = norms(a, b, own)
    assert torch.allclose(original, own.weight.norm(dim=-1))
    assert torch.allclose(adapted, (own.weight + b @ a).norm(dim=-1))


def test_the_norms_of_a_frozen_layer_are_computed_once() -> None:
    linear = toys.backbone().linear("layer.1.query")
    assert linear.squared_norms() is linear.squared_norms()
    trained = Linear(3, 2)
    trained.weight.requires_grad_()
    with pytest.raises(AssertionError):
        trained.squared_norms()


def test_without_a_change_of_direction_the_magnitude_scales_the_weights_and_not_the_bias(
    backbone: Backbone, data: TokenisedData
) -> None:
    """Twice ‖W‖ for its magnitude makes a layer 2·W·x + b."""
    run = toys.run(low_rank=toys.lora(kind="dora", targets=["ffn_in"], layers=[0]))
    state = {name: value.double() for name, value in initial_state(run, toys.SMALL, toys.TASKS).items()}
    weights = {name: value.clone() for name, value in backbone.state_dict().items()}
    weight = weights["layer.0.ffn_in.weight"]
    state["low_rank.shared.layer.0.ffn_in.magnitude"] = weight.norm(dim=1)
    got = outputs([run], [state], backbone, data)[0]
    weights["layer.0.ffn_in.weight"] = 2 * weight
    doubled = Backbone.from_arrays(
        toys.SMALL, {name: value.numpy() for name, value in weights.items()}, "float64"
    )
    heads = {name: value for name, value in state.items() if name.startswith("heads.")}
    wanted = outputs([toys.run()], [heads], doubled, data)[0]
    for task in toys.TASKS:
        assert torch.allclose(got[task], wanted[task], rtol=1e-12, atol=1e-12)


class Masked(nn.Module):
    """Dropout whose mask is known."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        """[rows, in] → [rows, in]"""
        return x * self.factors


@pytest.mark.parametrize("dropped", [False, True], ids=["nothing dropped", "with dropout"])
def test_a_layer_and_its_gradients_are_peft_s(dropped: bool, backbone: Backbone) -> None:
    """The frozen product, too, reads the dropped input, beside the undropped output of the layer."""
    site, rows, rank = "layer.0.ffn_in", 7, 4
    run = toys.run(low_rank=toys.lora(kind="dora", rank=rank, alpha=3.0, targets=["ffn_in"], layers=[0]))
    state = disturbed(run)
    pack = packed([run], [state], backbone)
    (bank,) = pack.adapters
    assert isinstance(bank, DoRABank)
    linear = backbone.linear(site)
    draw = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    x = normal(rows, linear.weight.shape[1]).requires_grad_()
    factors = 2.0 * (torch.rand(x.shape, generator=draw) < 0.5).double()
    read = x * factors if dropped else x
    mine = bank.adapt(site, x, read, linear(x), linear, SlotView([Stretch(0, 0, rows)], rows, x.device))

    base = nn.Linear(*reversed(linear.weight.shape), dtype=torch.float64)
    base.load_state_dict(linear.state_dict())
    config = LoraConfig(
        r=rank, lora_alpha=3, lora_dropout=0.5 if dropped else 0.0, use_dora=True, target_modules=["0"]
    )
    peer = get_peft_model(nn.Sequential(base), config).train()  # type: ignore[arg-type]
    layer: Any = peer.base_model.model[0]  # type: ignore[union-attr,index]
    if dropped:
        layer.lora_dropout["default"] = Masked(factors)
    theirs = {
        "A": layer.lora_A["default"].weight,
        "B": layer.lora_B["default"].weight,
        "magnitude": layer.lora_magnitude_vector["default"].weight,
    }
    with torch.no_grad():
        for name, value in theirs.items():
            value.copy_(state[f"low_rank.shared.{site}.{name}"])
        theirs["magnitude"] += linear.weight.norm(dim=1)
    again = x.detach().clone().requires_grad_()
    wanted = peer(again)
    assert torch.allclose(mine, wanted, rtol=1e-12, atol=1e-12)
    direction = normal(*mine.shape)
    pack.zero_gradients()
    mine.backward(direction)  # type: ignore[no-untyped-call]
    wanted.backward(direction)
    assert x.grad is not None
    assert again.grad is not None
    assert torch.allclose(x.grad, again.grad, rtol=1e-11, atol=1e-11)
    for name, value in theirs.items():
        gradient = bank.stack.leaf[f"{site}.{name}"].grad
        assert gradient is not None
        assert torch.allclose(gradient[0], value.grad, rtol=1e-11, atol=1e-11), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_in_lower_precision_it_is_the_same_function_to_rounding(
    precision: str, backbone: Backbone, data: TokenisedData
) -> None:
    """Over packed weights, too."""
    changes: dict[str, Any] = {"low_rank": toys.lora(kind="dora", targets=["all_linear", "heads"])}
    run = toys.run(**changes)
    state = disturbed(run)
    exact = outputs([run], [state], backbone, data)[0]
    low = {name: value.float() for name, value in state.items()}
    lower = outputs([toys.run(**changes, precision=precision)], [low], toys.backbone(precision), data)[0]
    for task, values in exact.items():
        error = (lower[task].double() - values).norm() / values.norm()
        assert error < (1e-5 if precision == "float32" else 0.1)
