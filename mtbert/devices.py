"""The device that computes: whether there is one, and moving arrays to it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtbert.schema import ConfigError


def check_device(name: str) -> None:
    """Raises ConfigError for what torch does not call a device, or finds none of on this machine."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # assertion: torch was built without it
        said = str(error).splitlines()[0]
        raise ConfigError(
            f"--device: expected one of this machine, as cpu or cuda, got {name!r} ({said})"
        ) from None


def put(array: np.ndarray, device: str | torch.device) -> Tensor:
    """The array on a device. A GPU is not waited for: the copy is queued, from memory that is not paged."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
