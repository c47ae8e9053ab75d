"""The tasks' losses, what their outputs predict, and how far two of them are apart."""

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


def divergence(task: Task, one: Tensor, other: Tensor) -> Tensor:
    """How far apart two outputs are: KL(p‖q) + KL(q‖p) of their classes, or the squared difference.

    Jiang et al. (2020), section 3.1. A binary task's classes have p and 1 − p. The sum of both directions
    is Σ (p − q)(log p − log q), which loses no digits where p and q are nearly equal.

    The gradient flows through the logarithms alone, as in the authors' code and in smart-pytorch: that of
    the classes' logits is p − q for `one` and q − p for `other`, half the whole one where p is near q.

    Args:
        one, other: [examples, outputs].

    Returns:
        [examples], in at least float32.
    """
    if task.kind == "regression":
        return (one - other).squeeze(-1).square()
    log_p, log_q = (_log_probabilities(task, outputs) for outputs in (one, other))
    return ((log_p.exp() - log_q.exp()).detach() * (log_p - log_q)).sum(dim=-1)


def _log_probabilities(task: Task, outputs: Tensor) -> Tensor:
    """[examples, classes]; a lone logit z stands against a second one of zero."""
    return F.log_softmax(F.pad(outputs, (0, 1)) if task.kind == "binary" else outputs, dim=-1)


def predicted(task: Task, outputs: Tensor) -> Tensor:
    """The class, 0 or 1, or the value; float64 [examples]"""
    if task.kind == "classification":
        return outputs.argmax(dim=-1).double()
    if task.kind == "binary":
        return (outputs.squeeze(-1) > 0).double()
    return outputs.squeeze(-1).to(torch.float64)
