"""Moving arrays to the device that computes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def put(array: np.ndarray, device: str | torch.device) -> Tensor:
    """The array on a device. A GPU is not waited for: the copy is queued, from memory that is not paged."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
