"""The places of a configuration that add tensors, by the name of their part, as they act at a site."""

from __future__ import annotations

from collections.abc import Mapping

from mtbert.adapters import bias, low_rank, pal
from mtbert.adapters.base import Place

PLACES: Mapping[str, Place] = {"low_rank": low_rank, "parallel": pal, "biases": bias}
