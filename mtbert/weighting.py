"""How the losses of a run's tasks become one objective: a pure function of the losses and explicit state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtbert.configuration import Configuration
from mtbert.techniques import StaticWeights

Losses = Mapping[str, Tensor]
"""The mean loss of each task that a step has examples of."""


def objective(configuration: Configuration, losses: Losses) -> Tensor:
    """What a member's step descends on."""
    weighting = configuration.weighting
    assert isinstance(weighting, StaticWeights)
    weighted = [weighting.weights.get(task, 1.0) * loss for task, loss in losses.items()]
    return torch.stack(weighted).sum()
