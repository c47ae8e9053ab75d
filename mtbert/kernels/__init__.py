"""What a GPU computes in one kernel each where torch's operations would take a dozen.

Each gives what torch's operations give elsewhere: dropout masks bit for bit, the rest to rounding. Triton
comes with torch's builds for CUDA; nothing here imports it where the tensors lie elsewhere.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

TYPES = (torch.float32, torch.bfloat16)


def usable(x: Tensor) -> bool:
    """Whether there are kernels for such a tensor."""
    return x.is_cuda and x.dtype in TYPES and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
