"""A linear layer over unpadded rows; frozen on a CPU, its weights lie as oneDNN wants them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

_PACKED_TYPES = (torch.float32, torch.bfloat16)
_PACK_FOR_ROWS = 512  # the layout is chosen for about so many rows; any number is correct


class Linear(nn.Module):
    """y = x Wᵀ + b.

    Attributes:
        weight: [out, in]; `bias`: [out].
    """

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False)
        self._packed: tuple[Tensor, Tensor, Tensor] | None = None
        self._squared_norms: Tensor | None = None

    def pack(self, dtype: torch.dtype) -> None:
        """Lay frozen weights out for oneDNN, both ways; without effect where that cannot be.

        On a CPU without bfloat16's instructions its products are taken in float32, and rounded.

        Args:
            dtype: of what will be computed with.
        """
        frozen = not self.weight.requires_grad
        if frozen and self.weight.device.type == "cpu" and dtype in _PACKED_TYPES and can_pack():
            within = torch.float32 if dtype == torch.bfloat16 and not multiplies_bfloat16() else dtype
            weight = self.weight.detach().to(dtype).to(within)
            bias = self.bias.detach().to(dtype).to(within)
            self._packed = (_reordered(weight), _reordered(weight.t().contiguous()), bias)

    def squared_norms(self) -> Tensor:
        """‖W‖² of each output's row, in float32 at least; computed once, for frozen weights alone. [out]"""
        if self._squared_norms is None:
            assert not self.weight.requires_grad
            weight = self.weight.detach().to(torch.promote_types(self.weight.dtype, torch.float32))
            self._squared_norms = weight.square().sum(1)
        return self._squared_norms

    def forward(self, x: Tensor) -> Tensor:
        """[rows, in] → [rows, out]"""
        if self._packed is None:
            return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
        result: Tensor = _PackedLinear.apply(x, *self._packed)  # type: ignore[no-untyped-call]
        return result


class _PackedLinear(torch.autograd.Function):
    """The product with frozen packed weights; only the input has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, packed_transposed: Tensor, bias: Tensor) -> Tensor:
        ctx.packed_transposed = packed_transposed
        return _product(x, packed, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _product(grad.contiguous(), ctx.packed_transposed, None), None, None, None


def can_pack() -> bool:
    """Whether this build of torch has the operations, which are not public: without them, plain products."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    )


def multiplies_bfloat16() -> bool:
    """Whether oneDNN takes products of bfloat16 on this CPU."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _reordered(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACK_FOR_ROWS)
    return packed


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(packed.dtype), packed, bias, "none", [], "")
    return result.to(x.dtype)
