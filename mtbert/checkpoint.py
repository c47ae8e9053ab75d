"""A run between two steps, as one safetensors blob: tensors, and the rest as JSON in its header.

Nothing that is loaded is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_HEADER = "mtbert"


class CheckpointError(ValueError):
    """Bytes that are not a checkpoint of this project."""


def pack_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """One safetensors blob; `facts` must be JSON."""
    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(facts, separators=(",", ":"), allow_nan=False)
    return save(ready, metadata={_HEADER: text})


def unpack_tensors(blob: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of `pack_tensors`.

    Raises:
        CheckpointError: not safetensors, or not written here.
    """
    try:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])
        facts: dict[str, Any] = json.loads(header["__metadata__"][_HEADER])
        return load(blob), facts
    except (ValueError, KeyError, TypeError, OverflowError, SafetensorError) as error:
        raise CheckpointError(f"not a checkpoint of mtbert ({type(error).__name__}: {error})") from None


def unpack_weights(blob: bytes, run_id: str) -> dict[str, Tensor]:
    """The best weights of a run by their names.

    Raises:
        CheckpointError: not written here, or another run's.
    """
    tensors, facts = unpack_tensors(blob)
    of = facts.get("run", {}).get("run_id")
    if of != run_id:
        raise CheckpointError(f"weights of run {of}, expected those of run {run_id}")
    return tensors
