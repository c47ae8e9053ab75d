"""One step of a small pack with SMART, taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mtbert.batches import Request, assemble
from mtbert.bert import Backbone
from mtbert.configuration import Dropout
from mtbert.data.tokenise import TokenisedData
from mtbert.dropout import step_key
from mtbert.optimizer import owned_by
from mtbert.pack import Pack, PackHooks, TaskOutput
from mtbert.run import Run
from mtbert.smart import Penalties, Smoothness, by_member
from mtbert.tokens import TokenBatch
from tests.mtbert import toys
from tests.mtbert.adapters.contract import NO_DROPOUT, disturbed, packed

STEP = 5
DROPOUT = Dropout(backbone=0.1, attention=0.2, adapters=0.1, heads=0.1)


def smart_run(seed: int = 0, **fields: Any) -> Run:
    """A run with a LoRA and SMART, of a size that shows in float64."""
    settings = {"noise": 1e-2, "radius": 1e-2, "step_size": 1e-3, **fields}
    return toys.run(seed, low_rank=toys.lora(targets=["query", "value", "ffn_in"]), smart=settings)


def task_batch(
    data: TokenisedData, runs: Sequence[Run], tasks: Sequence[str], examples: int = 6
) -> TokenBatch:
    """The runs' first examples of these tasks."""
    return assemble(
        [
            Request(at, task, data.splits[task, "train"], np.arange(examples), run.configuration.pairs)
            for at, run in enumerate(runs)
            for task in tasks
        ],
        data.special,
        64,
    )


class Step:
    """One step of a pack: its clean branch, and what SMART adds."""

    def __init__(
        self, pack: Pack, batch: TokenBatch, runs: Sequence[Run], dropout: Dropout = NO_DROPOUT
    ) -> None:
        self.pack, self.batch = pack, batch
        origins = {at: (run.seed, STEP) for at, run in enumerate(runs)}
        dropouts = dict.fromkeys(origins, dropout)
        self.keys = {at: step_key(*of) for at, of in origins.items()}
        self.hooks = PackHooks(pack, batch, dropouts, self.keys)
        self.smoothness = Smoothness(pack, batch, dropouts, origins)
        self.embedded = pack.backbone.embed(batch, self.hooks)
        self.clean: list[TaskOutput] = pack.outputs(self.smoothness.shifted(self.embedded), batch, self.hooks)

    def penalties(self) -> Penalties:
        return self.smoothness.penalties(self.embedded, self.clean)

    def perturbation(self) -> Tensor:
        found = self.smoothness.perturbation(self.embedded.detach(), by_member(self.clean))
        return found[: self.batch.tokens]


def step_of(run: Run, backbone: Backbone, data: TokenisedData, task: str = "sst", **kind: Any) -> Step:
    """A step of a lone run whose tensors have moved from their start."""
    return Step(packed([run], [disturbed(run)], backbone), task_batch(data, [run], [task]), [run], **kind)


def gradients(pack: Pack, member: int = 0) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for leaf in owned_by(member, pack, None):
        assert leaf.gradient is not None
        found |= leaf.read(leaf.gradient)
    return found
