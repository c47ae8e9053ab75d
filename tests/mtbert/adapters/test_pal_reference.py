"""PALs against a plain reading of the paper's equations: transformers' BERT, padded, TS added by hooks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig as TheirConfig
from transformers import BertModel

from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from mtbert.member import initial_state
from mtbert.optimizer import owned_by
from mtbert.run import Run
from mtbert.slots import State
from mtbert.techniques import PAL, PALForm
from mtbert.weights import published_name
from tests.mtbert import toys
from tests.mtbert.adapters.contract import disturbed, outputs, packed, total_loss
from tests.mtbert.adapters.test_against_peft import largest_difference, padded
from tests.mtbert.adapters.test_pal import JOINT, LOW_RANK, pal

EXAMPLES = 6
CASES: dict[str, dict[str, Any]] = {
    "shared pair": pal(),
    "pair of each layer": pal(projections="per_layer"),
    "all shared": pal(attention="shared"),
    "attention alone shared": pal(projections="per_layer", attention="shared"),
    "beside the attention": pal(place="attention"),
    "gelu": pal(activation="gelu"),
    "low-rank": LOW_RANK,
    "low-rank beside the attention, gelu": {**LOW_RANK, "place": "attention", "activation": "gelu"},
    "low-rank shared": {**LOW_RANK, "projections": "shared"},
    "one task": pal(tasks=["sts"], place="attention"),
    "last layer": pal(layers=[1], hidden=4, heads=1),
    "mixed": pal(upper={**LOW_RANK, "start": 1}),
    "mixed the other way": {**LOW_RANK, "upper": pal(start=1, activation="gelu")},
    "two shared pairs": pal(upper=pal(start=1)),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


class TaskSpecific(nn.Module):
    """TS(h) = V^D g(V^E h), with g multi-head attention without W^o or the identity (Eq. 6)."""

    def __init__(self, form: PALForm, linears: Mapping[str, nn.Linear]) -> None:
        super().__init__()
        self.form = form
        self.linears = nn.ModuleDict(linears)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """[n, width, hidden], [n, width] → [n, width, hidden]"""
        gelu = nn.GELU() if self.form.activation == "gelu" else nn.Identity()
        small = self.linears["encoder"](h)
        if self.form.form == "low_rank":
            out: Tensor = self.linears["decoder"](gelu(small))
            return out
        size = self.form.hidden // self.form.heads
        heads = []
        for head in range(self.form.heads):
            part = slice(head * size, (head + 1) * size)
            q, k, v = (self.linears[name](small)[..., part] for name in ("query", "key", "value"))
            scores = q @ k.transpose(1, 2) / math.sqrt(size)
            scores = scores.masked_fill(mask[:, None, :] == 0, float("-inf"))
            heads.append(torch.softmax(scores, dim=-1) @ v)
        result: Tensor = gelu(self.linears["decoder"](torch.cat(heads, dim=-1)))
        return result


class Reference(nn.Module):
    """BERT with a function for each task and layer, and linear heads."""

    def __init__(self, backbone: Backbone, run: Run, state: State) -> None:
        super().__init__()
        parallel = run.configuration.parallel
        assert parallel is not None
        self.parallel: PAL = parallel
        config = TheirConfig(
            **vars(backbone.config),
            attn_implementation="eager",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.bert = BertModel(config).double()
        self.bert.load_state_dict({published_name(k): v for k, v in backbone.state_dict().items()})
        self.bert.requires_grad_(run.configuration.backbone == "trained")
        self.ours = {published_name(name): f"backbone.{name}" for name in backbone.config.shapes()}
        self.linears: dict[str, nn.Linear] = {}
        self.functions = {
            (task, layer): self.function(task, layer, state)
            for task in parallel.tasks or toys.TASKS
            for layer in parallel.layers or range(2)
        }
        self.heads = {task: self.linear(f"heads.{task}", state) for task in toys.TASKS}

    def linear(self, name: str, state: State) -> nn.Linear:
        """A linear layer with these tensors, one and the same whenever its name is asked for."""
        if name not in self.linears:
            out, into = state[f"{name}.weight"].shape
            self.linears[name] = nn.Linear(into, out, dtype=torch.float64)
            with torch.no_grad():
                self.linears[name].weight.copy_(state[f"{name}.weight"])
                self.linears[name].bias.copy_(state[f"{name}.bias"])
        return self.linears[name]

    def function(self, task: str, layer: int, state: State) -> TaskSpecific:
        upper = self.parallel.upper is not None and layer >= self.parallel.upper.start
        form = self.parallel.upper if upper else self.parallel
        assert form is not None
        common = f"parallel.{task}.{'upper' if upper else 'shared'}"
        own = f"parallel.{task}.layer.{layer}"
        pair = common if form.projections == "shared" else own
        names = {"encoder": f"{pair}.encoder", "decoder": f"{pair}.decoder"}
        if form.form == "attention":
            inner = common if form.attention == "shared" else own
            names |= {name: f"{inner}.{name}" for name in ("query", "key", "value")}
        return TaskSpecific(form, {name: self.linear(of, state) for name, of in names.items()})

    def forward(self, data: TokenisedData, task: str) -> Tensor:
        """The outputs of a task's first examples. [examples, outputs]"""
        inputs = padded(data, task, EXAMPLES)
        kept, handles = {}, []
        for at, layer in enumerate(self.bert.encoder.layer):
            if (task, at) not in self.functions:
                continue
            function = self.functions[task, at]

            def keep(module: nn.Module, given: tuple[Any, ...], at: int = at) -> None:  # noqa: ARG001
                kept[at] = given[0]

            def add(
                module: nn.Module,  # noqa: ARG001
                given: tuple[Tensor, ...],
                at: int = at,
                function: TaskSpecific = function,
            ) -> tuple[Tensor]:
                return (given[0] + function(kept[at], inputs["attention_mask"]),)

            part = layer.output if self.parallel.place == "layer" else layer.attention.output
            handles.append(layer.register_forward_pre_hook(keep))
            handles.append(part.LayerNorm.register_forward_pre_hook(add))
        pooled = self.bert(**inputs).pooler_output
        for handle in handles:
            handle.remove()
        assert len(kept) * 2 == len(handles)
        result: Tensor = self.heads[task](pooled)
        return result

    def by_our_names(self) -> dict[str, Tensor]:
        """What is trained, by the names of a checkpoint here."""
        found = {self.ours[n]: value for n, value in self.bert.named_parameters() if value.requires_grad}
        for name, linear in self.linears.items():
            found |= {f"{name}.weight": linear.weight, f"{name}.bias": linear.bias}
        return found

    def loss(self, data: TokenisedData) -> Tensor:
        """Cross-entropy, binary cross-entropy on a logit, squared error: their sum."""
        labels = {
            task: torch.from_numpy(data.splits[task, "train"].labels[:EXAMPLES]).double()
            for task in toys.TASKS
        }
        logit = self(data, "para")[:, 0]
        return (
            nn.functional.cross_entropy(self(data, "sst"), labels["sst"].long())
            + nn.functional.binary_cross_entropy_with_logits(logit, labels["para"])
            + nn.functional.mse_loss(self(data, "sts")[:, 0], labels["sts"])
        )


def gradients(
    run: Run, state: State, backbone: Backbone, data: TokenisedData
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Ours and the reference's by name, those that are truly zero left out."""
    reference = Reference(backbone, run, state)
    reference.loss(data).backward()  # type: ignore[no-untyped-call]
    used = backbone.trainable_copy() if run.configuration.backbone == "trained" else backbone
    pack = packed([run], [state], used)
    total_loss(pack, [run], data).backward()  # type: ignore[no-untyped-call]
    found: dict[str, Tensor] = {}
    for leaf in owned_by(0, pack, used if used is not backbone else None):
        gradient = leaf.parameter.grad if leaf.gradient is None else leaf.gradient
        assert gradient is not None
        found |= leaf.read(gradient)
    wanted = {name: value.grad for name, value in reference.by_our_names().items()}
    for name in list(wanted):
        if name.endswith("key.bias"):  # adds the same to all scores of a row, which softmax ignores
            assert float(found.pop(name).abs().max()) < 1e-12
            assert float(wanted.pop(name).abs().max()) < 1e-12  # type: ignore[union-attr]
    return found, wanted  # type: ignore[return-value]


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("trained", ["frozen", "trained"])
def test_outputs_and_gradients_are_those_of_the_paper_s_equations(
    fields: dict[str, Any], trained: str, backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.run(parallel=fields, backbone=trained)
    state = disturbed(run)
    reference = Reference(backbone, run, state)
    mine = outputs([run], [state], backbone, data)[0]
    assert largest_difference(mine, {task: reference(data, task) for task in toys.TASKS}) < 1e-9
    found, wanted = gradients(run, state, backbone, data)
    assert any(name.startswith("backbone.") for name in wanted) == (trained == "trained")
    assert largest_difference(found, wanted) < 1e-8


@pytest.mark.parametrize("features", ["cls", "mean"])
def test_what_the_last_layer_s_first_tokens_ask_is_what_all_tokens_ask(
    features: str, backbone: Backbone, data: TokenisedData
) -> None:
    """The same [CLS] vectors beside a member that wants the mean, which makes all tokens ask."""
    run = toys.run(0, parallel=pal(), features="cls")
    beside = toys.run(1, features=features)
    states = [disturbed(run), disturbed(beside)]
    alone = outputs([run], states[:1], backbone, data)[0]
    assert largest_difference(outputs([run, beside], states, backbone, data)[0], alone) < 1e-9


def test_ten_steps_of_adamw_with_a_trained_backbone_give_the_reference_s_weights(
    backbone: Backbone,
) -> None:
    """All examples in every step, so that their order does not matter."""
    data = toys.random_data((EXAMPLES, EXAMPLES, EXAMPLES), dev=4)
    rates = {"backbone": 1e-3, "adapters": 1e-2, "heads": 3e-3}
    training = {
        "steps": 10, "batch_size": EXAMPLES, "learning_rate": rates, "warmup": 0.0, "decay": "constant",
        "clip": None, **JOINT,
    }  # fmt: skip
    evaluation = {"every": 10, "train_limit": 0, "keep": "last"}
    run = toys.run(parallel=pal(), backbone="trained", training=training, evaluation=evaluation)
    reference = Reference(backbone, run, initial_state(run, toys.SMALL, toys.TASKS))
    parts: dict[str, list[Tensor]] = {"backbone": [], "parallel": [], "heads": []}
    for name, value in reference.by_our_names().items():
        parts[name.split(".")[0]].append(value)
    adamw = torch.optim.AdamW(
        [
            {"params": parts["backbone"], "lr": rates["backbone"]},
            {"params": parts["parallel"], "lr": rates["adapters"]},
            {"params": parts["heads"], "lr": rates["heads"]},
        ],
        weight_decay=0.0,
    )
    for _ in range(10):
        adamw.zero_grad()
        reference.loss(data).backward()  # type: ignore[no-untyped-call]
        for name, value in reference.by_our_names().items():
            if name.endswith("key.bias"):  # what AdamW makes of the rounding of zero is nobody's
                assert value.grad is not None
                value.grad.zero_()
        adamw.step()
    mine = toys.weights(toys.ended(toys.train_alone(data, backbone, run)))
    wanted = reference.by_our_names()
    assert set(mine) == set(wanted)
    for name in [name for name in mine if name.endswith("key.bias")]:
        assert float((mine.pop(name) - wanted.pop(name)).detach().abs().max()) < 1e-5
    assert largest_difference(mine, wanted) < 1e-7
