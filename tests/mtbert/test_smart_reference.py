"""A step of training with SMART against plain torch over transformers' BertModel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor
from transformers import BertConfig as TheirConfig
from transformers import BertModel

from mtbert import smart
from mtbert.batches import Request, assemble
from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.configuration import Pairs
from mtbert.data.tokenise import TokenisedData
from mtbert.member import initial_state
from mtbert.slots import State
from mtbert.weights import published_name
from tests.mtbert import toys

sym_kl_loss = pytest.importorskip("smart_pytorch").sym_kl_loss


def pattern(rows: Tensor, purpose: str, columns: int, dtype: torch.dtype) -> Tensor:  # noqa: ARG001
    """Noise that is the same for every token: the reference need not know the order of the examples."""
    return torch.linspace(-2, 1.5, columns, dtype=dtype).expand(len(rows), -1)


class Reference:
    """F = L + λR of one batch, over transformers' BertModel, one sequence at a time."""

    def __init__(self, task: str, data: TokenisedData, heads: State) -> None:
        self.task = toys.TASKS[task]
        config = TheirConfig(
            vocab_size=toys.VOCABULARY,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
            attn_implementation="eager",
        )
        self.model = BertModel(config).double().eval()
        weights = {published_name(name): torch.from_numpy(a).double() for name, a in toys.arrays().items()}
        self.model.load_state_dict(weights, strict=False)
        self.head = torch.nn.Linear(16, self.task.outputs).double()
        self.head.load_state_dict({part: heads[f"heads.{task}.{part}"] for part in ("weight", "bias")})
        split = data.splits[task, "train"]
        self.labels = torch.from_numpy(split.labels).double()
        examples = np.arange(len(split.labels))
        batch = assemble([Request(0, task, split, examples, Pairs())], toys.SPECIAL, 64)
        self.embedded = [
            self.model.embeddings(
                input_ids=batch.ids[None, rows], token_type_ids=batch.segment_ids[None, rows]
            )
            for rows in (slice(int(s), int(s + n)) for s, n in zip(batch.starts, batch.lengths, strict=True))
        ]

    def outputs(self, embedded: list[Tensor]) -> Tensor:
        pooled = [self.model.pooler(self.model.encoder(x).last_hidden_state)[0] for x in embedded]
        found: Tensor = self.head(torch.stack(pooled))
        return found

    def loss(self, outputs: Tensor) -> Tensor:
        if self.task.kind == "classification":
            return F.cross_entropy(outputs, self.labels.long())
        if self.task.kind == "binary":
            return F.binary_cross_entropy_with_logits(outputs[:, 0], self.labels)
        return F.mse_loss(outputs[:, 0], self.labels)

    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        """Summed over the examples."""
        if self.task.kind == "regression":
            return F.mse_loss(one, other, reduction="sum")
        if self.task.kind == "binary":
            one, other = (torch.cat([of, torch.zeros_like(of)], 1) for of in (one, other))
        found: Tensor = sym_kl_loss(one, other)
        return found

    def penalty(self, clean: Tensor, noise: float, ascents: int, step_size: float, radius: float) -> Tensor:
        """R: the perturbation by Algorithm 1, the gradient over each token's largest entry."""
        start = noise * torch.linspace(-2, 1.5, 16, dtype=torch.float64)
        deltas = [start.expand_as(x).clone() for x in self.embedded]
        for _ in range(ascents):
            for delta in deltas:
                delta.requires_grad_()
            moved = self.outputs([x.detach() + delta for x, delta in zip(self.embedded, deltas, strict=True)])
            found = torch.autograd.grad(self.divergence(moved, clean.detach()), deltas)
            deltas = [
                (delta + step_size * g / g.abs().max(-1, keepdim=True).values).clamp(-radius, radius).detach()
                for delta, g in zip(deltas, found, strict=True)
            ]
        perturbed = self.outputs([x + delta for x, delta in zip(self.embedded, deltas, strict=True)])
        return self.divergence(perturbed, clean) / len(self.labels)


@pytest.mark.parametrize("ascents", [0, 1, 2])
@pytest.mark.parametrize("task", toys.TASKS)
def test_one_step_is_that_of_plain_torch_over_transformers(
    task: str, ascents: int, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = toys.random_data((4, 4, 4))
    settings = {"noise": 0.02, "ascent_steps": ascents, "step_size": 0.03, "radius": 0.05, "weight": 1e3}
    run = toys.run(
        backbone="trained",
        smart=settings,
        weighting={"weights": {task: 3.0}},
        training={"tasks": [task], "steps": 2, "batch_size": 4, "clip": None},
        evaluation={"every": 1, "train_limit": 0},
    )
    monkeypatch.setattr(smart, "normal", pattern)
    of = toys.trainer(data, backbone)
    of.admit(run)
    (record,) = toys.evaluations(of.advance())
    tensors, _ = unpack_tensors(of.checkpoint(run.run_id))

    heads = initial_state(run, toys.SMALL, {task: toys.TASKS[task]})
    reference = Reference(task, data, heads)
    clean = reference.outputs(reference.embedded)
    loss = reference.loss(clean)
    penalty = 1e3 * reference.penalty(clean, 0.02, ascents, 0.03, 0.05)
    (3 * (loss + penalty)).backward()  # type: ignore[no-untyped-call]
    loss, penalty = loss.detach(), penalty.detach()
    assert toys.values(record, "train", "training_loss")[task] == pytest.approx(float(loss), rel=1e-9)
    assert toys.values(record, "train", "smart_penalty")[task] == pytest.approx(float(penalty), rel=1e-9)
    assert float(penalty) > 1e-4
    theirs = {f"heads.{task}.{name}": value.grad for name, value in reference.head.named_parameters()}
    named = dict(reference.model.named_parameters())
    theirs |= {f"backbone.{name}": named[published_name(name)].grad for name in toys.SMALL.shapes()}
    for name, gradient in theirs.items():
        assert gradient is not None
        mine = tensors[f"adam.exp_avg.{name}"] / 0.1  # after one step AdamW remembers (1 - 0.9)·g
        assert torch.allclose(mine, gradient, rtol=1e-7, atol=1e-10), name
