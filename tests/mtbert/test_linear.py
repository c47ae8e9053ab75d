"""Linear layers, plain and packed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtbert import linear


def test_can_pack_asks_for_the_operations_that_packing_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        """A build of torch without the private operations."""

    monkeypatch.setattr(torch.ops, "mkldnn", Bare())
    assert not linear.can_pack()
    layer = linear.Linear(3, 2)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    layer.pack(layer.weight.dtype)
    x = torch.randn(4, 2)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("rows", [1, 3, 32, 500])
def test_a_packed_linear_layer_has_its_product_and_its_input_s_gradient(rows: int) -> None:
    layer, wanted = linear.Linear(48, 20), nn.Linear(20, 48)
    with torch.no_grad():
        layer.weight.copy_(wanted.weight)
        layer.bias.copy_(wanted.bias)
    layer.pack(layer.weight.dtype)
    x = torch.randn(rows, 20, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    weight = torch.randn(rows, 48)
    (layer(x) * weight).sum().backward()
    (wanted(other) * weight).sum().backward()
    assert torch.allclose(layer(x), wanted(other), rtol=1e-5, atol=1e-5)
    assert x.grad is not None
    assert other.grad is not None
    assert torch.allclose(x.grad, other.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("without", [False, True])
def test_a_packed_layer_in_bfloat16_rounds_what_float32_comes_to(
    without: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if without:  # else as this CPU has it
        monkeypatch.setattr(linear, "multiplies_bfloat16", lambda: False)
    layer = linear.Linear(48, 20)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    layer.pack(torch.bfloat16)
    x = torch.randn(30, 20, dtype=torch.bfloat16, requires_grad=True)
    weight, bias = (each.detach().bfloat16().float() for each in (layer.weight, layer.bias))
    grad = torch.randn(30, 48, dtype=torch.bfloat16)
    found = layer(x)
    found.backward(grad)
    assert found.dtype == torch.bfloat16
    assert x.grad is not None
    assert torch.allclose(found.float(), nn.functional.linear(x.float(), weight, bias), rtol=8e-3, atol=1e-4)
    assert torch.allclose(x.grad.float(), grad.float() @ weight, rtol=8e-3, atol=1e-4)


def test_a_layer_whose_weights_are_trained_is_not_packed() -> None:
    layer = linear.Linear(3, 2)
    layer.requires_grad_(True)
    nn.init.normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    layer.pack(layer.weight.dtype)
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        layer.weight.zero_()
    assert (layer(torch.ones(1, 2)) == 0).all()
