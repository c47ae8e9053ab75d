"""The GPU's kernels against torch's operations; without a GPU they run in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="comes with torch's builds for CUDA, and on Linux with the test extra")

from mtbert import attention as plain
from mtbert.attention import AttentionView
from mtbert.dropout import AttentionDropout, Rates
from mtbert.kernels import attention as kernel
from mtbert.kernels import dropout
from mtbert.tensor_draws import column_keys, keep_factors

INTERPRETED = not torch.cuda.is_available()
"""By Triton's interpreter, whose products of bfloat16 are wrong."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LENGTHS = np.array([1, 5, 33, 16, 64, 70])
RATES = {
    "none": None,
    "one": [(0, 200, 0.3)],
    "by row": [(0, 20, 0.1), (20, 90, 0.0), (90, 200, 0.6)],
}


def keys(rows: int) -> Tensor:
    drawn = torch.randint(-(2**31), 2**31, (rows, 1), generator=torch.Generator().manual_seed(1))
    return drawn.to(torch.int32).to(DEVICE)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def gradients(function: Callable[..., Tensor], inputs: list[Tensor], towards: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    found = function(*leaves)
    return (found.detach(), *torch.autograd.grad(found, leaves, towards))


def close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], share: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert float((one.double() - other.double()).abs().max()) <= share * float(other.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rates", [[(0, 40, 0.3)], [(0, 5, 0.1), (5, 18, 0.0), (18, 40, 0.6)]])
@pytest.mark.parametrize("features", [7, 1100])
def test_dropout_is_torchs_bit_for_bit(
    dtype: torch.dtype, rates: list[tuple[int, int, float]], features: int
) -> None:
    of_rows = Rates.of(rates, DEVICE)
    assert of_rows is not None
    x, towards = normal(40, features, dtype=dtype), normal(40, features, seed=1, dtype=dtype)
    columns = column_keys("somewhere", -(-features // 2), str(DEVICE))
    factors = keep_factors(keys(40), columns, of_rows.threshold, of_rows.scale, dtype)[:, :features]

    def fused(x: Tensor) -> Tensor:
        return dropout.drop(x, keys(40), columns, *of_rows.tensors(DEVICE, dtype))

    found = gradients(fused, [x], towards)
    for each, expected in zip(found, (x * factors, towards * factors), strict=True):
        assert torch.equal(each == 0, expected == 0)
        if INTERPRETED and dtype == torch.bfloat16:  # which cuts off what hardware rounds
            close((each,), (expected,), 2**-7)
        else:
            assert torch.equal(each, expected)


def view(asking: Any, queries: Any = None) -> AttentionView:
    starts = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    return AttentionView(starts, LENGTHS, 200, asking, DEVICE, queries)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32] if INTERPRETED else [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("asking", "size", "rate"),
    [
        ("all", 16, "none"),
        ("all", 16, "by row"),
        ("all", 17, "one"),
        ("first", 16, "one"),
        ("first", 17, "by row"),
        ("elsewhere", 17, "none"),
        ("elsewhere", 16, "by row"),
    ],
)
def test_attention_is_torchs_to_rounding(dtype: torch.dtype, rate: str, size: int, asking: str) -> None:
    """Outputs and gradients; the rows past the last token are of no sequence."""
    heads, tokens = 2, int(LENGTHS.sum())
    of_batch = {
        "all": view("all"),
        "first": view("first"),
        "elsewhere": view("first", (np.array([7, 5, 3, 2, 1, 0]), 9)),
    }[asking]
    asked = {"all": 200, "first": len(LENGTHS), "elsewhere": 9}[asking]
    rates = None if RATES[rate] is None else Rates.of(RATES[rate] or [], DEVICE)
    factors = None if rates is None else AttentionDropout("layer.0", keys(200), rates, heads)
    shapes = [(asked, heads * size), (200, heads * size), (200, heads * size)]
    inputs = [normal(*shape, seed=at, dtype=dtype) for at, shape in enumerate(shapes)]
    towards = normal(asked, heads * size, seed=9, dtype=dtype)
    of_none = {"all": slice(tokens, 200), "first": slice(0, 0), "elsewhere": [4, 6, 8]}[asking]
    towards[of_none] = 0

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = None if factors is None else factors.mask(of_batch.extents.longest)
        return kernel.attention(q, k, v, heads, of_batch.extents, mask)

    def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result: Tensor = plain._Attention.apply(q, k, v, heads, of_batch, factors)  # type: ignore[no-untyped-call]
        return result

    found = gradients(fused, inputs, towards)
    expected = list(gradients(reference, inputs, towards))
    assert not found[0][of_none].any()
    expected[0][of_none] = 0
    close(found, tuple(expected), 2e-6 if dtype == torch.float32 else 2e-2)


def test_a_sequence_does_not_know_who_else_is_there() -> None:
    inputs = [normal(200, 32, seed=at) for at in range(3)]
    before = kernel.attention(*inputs, 2, view("all").extents, None)
    for tensor in inputs:
        tensor[60:] = float("nan")
    after = kernel.attention(*inputs, 2, view("all").extents, None)
    whole = int(LENGTHS[:4].sum())
    assert torch.equal(before[:whole], after[:whole])
    assert torch.isnan(after[whole : int(LENGTHS.sum())]).all()
