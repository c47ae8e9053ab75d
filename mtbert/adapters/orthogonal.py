"""The fixed factors of orthogonal adaptation (Po et al. 2023, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from mtbert.draws import torch_generator


def fixed_factor(basis: int, width: int, task: int, tasks: int, rank: int) -> Tensor:
    """A task's A: columns `task`, `task + tasks`, … of one orthogonal basis, as rows. float32 [rank, width]

    Args:
        basis: the seed of the basis.
        width: of the layer's input.
        task: the task's number among the data's `tasks`.
    """
    drawn = torch.randn(width, width, generator=torch_generator(basis, "basis", width), dtype=torch.float64)
    columns: Tensor = torch.linalg.qr(drawn).Q
    return columns[:, task::tasks][:, :rank].T.float().contiguous()
