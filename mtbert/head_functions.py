"""What each kind of head computes and has, over stacked slots: pure functions of vectors and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

from mtbert.techniques import (
    CompressedHead,
    Head,
    LinearCosineHead,
    LinearHead,
    ProjectedHead,
    ReLUCosineHead,
)

COSINE_EPSILON = 1e-8  # norms below it count as it: the cosine of a zero vector is zero, its gradient finite


@dataclass(frozen=True, eq=False)
class HeadInput:
    """What a head computes from.

    Attributes:
        x: each example's vector, or both sentences' side by side. [slots, examples, features]
        vectors: 1 or 2, of how many sentences' vectors the features are.
        weights: by name, [slots, *shape].
        drop: dropout of what is between a head's layers. [slots, examples, …] in and out
    """

    x: Tensor
    vectors: int
    weights: Mapping[str, Tensor]
    drop: Callable[[Tensor], Tensor]

    @property
    def sentences(self) -> tuple[Tensor, Tensor]:
        """The two vectors that are compared; where there is but one, that one twice (report 002, Eq. 3)."""
        if self.vectors == 1:
            return self.x, self.x
        first, second = self.x.chunk(2, dim=-1)
        return first, second


def head_shapes(head: Head, outputs: int, hidden: int, vectors: int) -> dict[str, tuple[int, ...]]:
    """A head's tensors by their names within it; none where it has no parameters."""
    features = hidden * vectors
    match head:
        case LinearHead():
            return _linear("", outputs, features)
        case ProjectedHead():
            return _linear("first.", head.size, hidden) | _linear("second.", head.size, hidden)
        case ReLUCosineHead():
            return {}
        case LinearCosineHead():
            product = {"elementwise": hidden, "dot": 1, "none": 0}[head.product]
            return _linear("", outputs, features + product)
        case CompressedHead():
            return _linear("compression.", head.size, features) | _linear("", outputs, head.size)


def head_outputs(head: Head, given: HeadInput) -> Tensor:
    """What a head gives. [slots, examples, outputs]"""
    match head:
        case LinearHead():
            return _affine(given.x, given.weights)
        case ProjectedHead():
            return projected(head, given)
        case ReLUCosineHead():
            return torch.relu(cosine(*given.sentences)) * head.scale
        case LinearCosineHead():
            return linear_cosine(head, given)
        case CompressedHead():
            narrow = _affine(given.x, given.weights, "compression.")
            return _affine(given.drop(narrow), given.weights)


def projected(head: ProjectedHead, given: HeadInput) -> Tensor:
    """Two projections and their aggregate: report 002, Eq. 2 or 3 with Eq. 4 or 5."""
    first, second = given.sentences
    one, other = _affine(first, given.weights, "first."), _affine(second, given.weights, "second.")
    if head.aggregate == "inner_product":
        return (one * other).sum(dim=-1, keepdim=True)
    return (cosine(one, other) + head.shift) * head.scale


def linear_cosine(head: LinearCosineHead, given: HeadInput) -> Tensor:
    """A linear layer over both vectors and their product, and the cosine: report 003, section 4.2.3."""
    first, second = given.sentences
    features = {
        "elementwise": lambda: torch.cat([given.x, first * second], dim=-1),
        "dot": lambda: torch.cat([given.x, (first * second).sum(dim=-1, keepdim=True)], dim=-1),
        "none": lambda: given.x,
    }[head.product]()
    linear = _affine(features, given.weights)
    return linear + cosine(first, second) if head.cosine else linear


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """The cosine similarity along the last dimension, kept with size one."""
    return F.cosine_similarity(one, other, dim=-1, eps=COSINE_EPSILON).unsqueeze(-1)


def _linear(prefix: str, outputs: int, features: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}weight": (outputs, features), f"{prefix}bias": (outputs,)}


def _affine(x: Tensor, weights: Mapping[str, Tensor], prefix: str = "") -> Tensor:
    """x Wᵀ + b, slot by slot. [slots, examples, features] → [slots, examples, outputs]"""
    return torch.baddbmm(weights[f"{prefix}bias"][:, None, :], x, weights[f"{prefix}weight"].mT)
