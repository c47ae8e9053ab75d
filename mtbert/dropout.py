"""Dropout masks of all members of a batch from one kernel, each a function of its own member's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mtbert import kernels
from mtbert.attention import Rectangle
from mtbert.devices import put
from mtbert.draws import key64, row_keys, threshold16
from mtbert.tensor_draws import column_keys, keep_factors, mix32
from mtbert.tokens import TokenBatch

if TYPE_CHECKING:
    from mtbert.kernels.attention import Mask

Rated = Sequence[tuple[int, int, float]]
"""Stretches of rows with their dropout rate: (start, stop, rate), covering all rows in order."""


def token_keys(batch: TokenBatch, keys: dict[int, int]) -> Tensor:
    """A key for every token row, counted within its member. int32 [rows, 1]

    Args:
        keys: 64 bits for each member in this step.
    """
    counts: dict[int, int] = {}
    for span in batch.spans:
        counts[span.member] = counts.get(span.member, 0) + span.rows.stop - span.rows.start
    rows = np.concatenate([row_keys(keys[member], count) for member, count in counts.items()])
    return put(rows, batch.ids.device).unsqueeze(1)


def step_key(seed: int, step: int) -> int:
    """The key of a run's masks in a step."""
    return key64(seed, "dropout", step)


@dataclass(frozen=True, eq=False)
class Rates:
    """Thresholds and scales: one for all rows, or int16 and float64 [rows, 1]."""

    threshold: int | Tensor
    scale: float | Tensor

    @staticmethod
    def of(rated: Rated, device: torch.device) -> Rates | None:
        """None where nothing is dropped."""
        distinct = {rate for _, _, rate in rated}
        if distinct <= {0.0}:
            return None
        if len(distinct) == 1:
            return Rates(*threshold16(distinct.pop()))
        counts = [stop - start for start, stop, _ in rated]
        thresholds, scales = zip(*(threshold16(rate) for _, _, rate in rated), strict=True)
        return Rates(
            put(np.repeat(np.array(thresholds, np.int16), counts), device).unsqueeze(1),
            put(np.repeat(np.array(scales), counts), device).unsqueeze(1),
        )

    def select(self, rows: Tensor) -> tuple[int | Tensor, float | Tensor]:
        """Threshold and scale of these rows, shaped as `rows` with one dimension more."""
        if isinstance(self.threshold, Tensor) and isinstance(self.scale, Tensor):
            return self.threshold[rows], self.scale[rows]
        return self.threshold, self.scale

    def tensors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Thresholds, int16, and scales, of `dtype`, as tensors on a device: [rows, 1] or [1, 1]."""
        if isinstance(self.threshold, Tensor) and isinstance(self.scale, Tensor):
            return self.threshold, self.scale.to(dtype)
        threshold, scale = float(self.threshold), float(self.scale)
        return _constant(threshold, torch.int16, device), _constant(scale, dtype, device)


@lru_cache(maxsize=256)
def _constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([[value]], dtype=dtype, device=device)


def drop(site: str, x: Tensor, keys: Tensor, rates: Rates | None) -> Tensor:
    """x with dropped entries zero and the rest scaled up. [rows, features]"""
    if rates is None:
        return x
    features = x.shape[-1]
    columns = column_keys(site, -(-features // 2), str(x.device))
    if kernels.usable(x):
        from mtbert.kernels import dropout

        return dropout.drop(x, keys, columns, *rates.tensors(x.device, x.dtype))
    factors = keep_factors(keys, columns, rates.threshold, rates.scale, x.dtype)
    return x * factors[:, :features]


@dataclass(frozen=True, eq=False)
class AttentionDropout:
    """Factors of attention probabilities, keyed by the asking token, the head and the key's position.

    Attributes:
        keys: int32 [rows, 1], of the token rows.
    """

    site: str
    keys: Tensor
    rates: Rates
    heads: int

    def __call__(self, rectangle: Rectangle, dtype: torch.dtype) -> Tensor:
        """The factors of a rectangle. [sequences * heads, queries, width]"""
        rows = put(rectangle.key_rows[:, : rectangle.queries], self.keys.device)  # [n, queries]
        asking = mix32(self.keys[rows].view(len(rows), 1, -1) ^ self._by_head.view(1, -1, 1))
        threshold, scale = self.rates.select(rows.view(len(rows), 1, -1))
        positions = self._positions(rectangle.width)
        kept = keep_factors(asking.unsqueeze(-1), positions, threshold, scale, dtype)
        return kept.view(-1, rectangle.queries, rectangle.width)

    def mask(self, longest: int) -> Mask:
        """What a kernel makes the factors from, of sequences of at most so many tokens."""
        from mtbert.kernels.attention import Mask

        of_rates = self.rates.tensors(self.keys.device, torch.float32)
        return Mask(self.keys, self._by_head, self._positions(longest), *of_rates)

    @property
    def _by_head(self) -> Tensor:
        return column_keys(f"{self.site}.heads", self.heads, str(self.keys.device))

    def _positions(self, width: int) -> Tensor:
        """A key for each pair of positions. int32 [pairs]"""
        return column_keys(f"{self.site}.positions", -(-width // 2), str(self.keys.device))


def attention_factors(site: str, keys: Tensor, rates: Rates | None, heads: int) -> AttentionDropout | None:
    """What dropout multiplies attention probabilities with, or None where nothing is dropped."""
    return None if rates is None else AttentionDropout(site, keys, rates, heads)
