"""Dropout masks of all members of a batch from one kernel, each a function of its own member's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtbert.attention import Factors, Rectangle
from mtbert.draws import column_keys, keep_factors, key64, mix32, row_keys, threshold16
from mtbert.tokens import TokenBatch

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
    return torch.from_numpy(rows).to(batch.ids.device).unsqueeze(1)


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
            torch.from_numpy(np.repeat(np.array(thresholds, np.int16), counts)).to(device).unsqueeze(1),
            torch.from_numpy(np.repeat(np.array(scales), counts)).to(device).unsqueeze(1),
        )

    def select(self, rows: Tensor) -> tuple[int | Tensor, float | Tensor]:
        """Threshold and scale of these rows, shaped as `rows` with one dimension more."""
        if isinstance(self.threshold, Tensor) and isinstance(self.scale, Tensor):
            return self.threshold[rows], self.scale[rows]
        return self.threshold, self.scale


def drop(site: str, x: Tensor, keys: Tensor, rates: Rates | None) -> Tensor:
    """x with dropped entries zero and the rest scaled up. [rows, features]"""
    if rates is None:
        return x
    features = x.shape[-1]
    columns = column_keys(site, -(-features // 2), str(x.device))
    factors = keep_factors(keys, columns, rates.threshold, rates.scale, x.dtype)
    return x * factors[:, :features]


def attention_factors(site: str, keys: Tensor, rates: Rates | None, heads: int) -> Factors | None:
    """Factors of attention probabilities, keyed by the asking token, the head and the key's position."""
    if rates is None:
        return None
    device = keys.device
    by_head = column_keys(f"{site}.heads", heads, str(device)).view(1, heads, 1)

    def factors(rectangle: Rectangle, dtype: torch.dtype) -> Tensor:
        rows = torch.from_numpy(rectangle.key_rows[:, : rectangle.queries]).to(device)  # [n, queries]
        asking = mix32(keys[rows].view(len(rows), 1, -1) ^ by_head)  # [n, heads, queries]
        positions = column_keys(f"{site}.positions", rectangle.width // 2, str(device))
        threshold, scale = rates.select(rows.view(len(rows), 1, -1))
        kept = keep_factors(asking.unsqueeze(-1), positions, threshold, scale, dtype)
        return kept.view(-1, rectangle.queries, rectangle.width)

    return factors
