"""The tasks' losses and what their outputs predict."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

from mtbert.tasks import Task


def per_example(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, binary cross-entropy on a logit, or squared error on the task's own scale.

    Args:
        outputs: [examples, outputs]; labels: float [examples].

    Returns:
        [examples], in at least float32.
    """
    if task.kind == "classification":
        return F.cross_entropy(outputs, labels.long(), reduction="none")
    values = outputs.squeeze(-1)
    labels = labels.to(values.dtype)
    if task.kind == "binary":
        return F.binary_cross_entropy_with_logits(values, labels, reduction="none")
    return (values - labels).square()


def predicted(task: Task, outputs: Tensor) -> Tensor:
    """The class, 0 or 1, or the value; float64 [examples]"""
    if task.kind == "classification":
        return outputs.argmax(dim=-1).double()
    if task.kind == "binary":
        return (outputs.squeeze(-1) > 0).double()
    return outputs.squeeze(-1).to(torch.float64)
