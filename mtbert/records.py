"""What a trainer says of its runs, as plain data: the ledger's own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Evaluated:
    """A run reached an evaluation; `record` says step, metrics and cost so far."""

    run_id: str
    record: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """A run ended, completed or diverged or failed.

    Attributes:
        predictions: columns task, example_id, prediction and label of dev at the kept step.
        weights: the best weights, adapters and heads alone, as safetensors; empty where there are none.
    """

    run_id: str
    record: dict[str, Any]
    predictions: dict[str, list[Any]] = field(default_factory=dict)
    weights: bytes = b""


@dataclass(frozen=True)
class Returned:
    """A run given back with its checkpoint, for want of memory; `step` is where it stands."""

    run_id: str
    reason: str
    step: int
    checkpoint: bytes
