"""LoRA, DoRA and trained biases against the peft library: outputs, gradients, twenty steps of AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig as TheirConfig
from transformers import BertModel

from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from mtbert.member import initial_state
from mtbert.optimizer import owned_by
from mtbert.run import Run
from mtbert.slots import State
from mtbert.techniques import DoRA, LowRank
from mtbert.weights import published_name
from tests.mtbert import toys
from tests.mtbert.adapters.contract import disturbed, outputs, packed, total_loss

MODULES = {
    "query": "query",
    "key": "key",
    "value": "value",
    "attention_out": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "pooler": "pooler.dense",
}
CASES: dict[str, dict[str, Any]] = {
    "query and value": {"low_rank": toys.lora(alpha=3.0)},
    "all linear": {"low_rank": toys.lora(rank=3, alpha=2.0, targets=["all_linear"])},
    "scaled by the root": {
        "low_rank": toys.lora(alpha=3.0, scaling="alpha_over_sqrt_rank", targets=["key", "ffn_in"])
    },
    "one layer": {"low_rank": toys.lora(layers=[1], targets=["query", "attention_out"])},
    "with biases": {"low_rank": toys.lora(targets=["all_linear"]), "biases": "trained"},
    "dora": {"low_rank": toys.lora(kind="dora", alpha=3.0)},
    "dora, all linear": {"low_rank": toys.lora(kind="dora", rank=3, alpha=2.0, targets=["all_linear"])},
    "dora, one layer": {
        "low_rank": toys.lora(kind="dora", layers=[1], scaling="alpha_over_sqrt_rank", targets=["ffn_in"])
    },
    "dora, with biases": {
        "low_rank": toys.lora(kind="dora", targets=["all_linear"]),
        "biases": "trained",
    },
}
STEPS, SIZE = 20, 24
pytestmark = [
    pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
RATES = {"adapters": 1e-2, "heads": 3e-3}


class Peer(nn.Module):
    """transformers' BERT with peft's LoRA and linear heads, over padded batches."""

    def __init__(self, backbone: Backbone, run: Run, state: State) -> None:
        super().__init__()
        lora = run.configuration.low_rank
        assert lora is not None
        torch.manual_seed(0)
        config = TheirConfig(**vars(backbone.config), attn_implementation="eager")
        base = BertModel(config).double().eval()
        base.load_state_dict({published_name(k): v for k, v in backbone.state_dict().items()})
        self.bert = get_peft_model(base, peft_config(lora, run.configuration.biases))
        self.bert.double().eval()
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(backbone.config.hidden_size, task.outputs, dtype=torch.float64)
                for name, task in toys.TASKS.items()
            }
        )
        self.weights = backbone.state_dict()
        with torch.no_grad():
            for name, value in self.by_our_names().items():
                value.copy_(state[name] + self.origin(name))

    def by_our_names(self) -> dict[str, Tensor]:
        """What is trained, by the names of a checkpoint here."""
        found: dict[str, Tensor] = {}
        sites = {published_name(f"{site}.x").removesuffix(".x"): site for site in all_sites()}
        for name, value in self.bert.named_parameters():
            if value.requires_grad:
                path = name.removeprefix("base_model.model.")
                module, _, rest = path.partition(".lora_") if ".lora_" in path else path.rpartition(".")
                module = module.removesuffix(".base_layer")
                if rest == "bias":
                    found[f"biases.{sites[module]}"] = value
                else:
                    factor = rest.split(".")[0].removesuffix("_vector")
                    found[f"low_rank.shared.{sites[module]}.{factor}"] = value
        for task, head in self.heads.items():
            found[f"heads.{task}.weight"], found[f"heads.{task}.bias"] = head.weight, head.bias
        return found

    def origin(self, name: str) -> Tensor:
        """What we keep a difference from: a frozen bias, or the norms of frozen rows; else zero."""
        if name.startswith("biases."):
            return self.weights[f"{name.removeprefix('biases.')}.bias"]
        if name.endswith(".magnitude"):
            site = name.removeprefix("low_rank.shared.").removesuffix(".magnitude")
            return self.weights[f"{site}.weight"].norm(dim=1)
        return torch.zeros((), dtype=torch.float64)

    def as_we_keep_it(self) -> State:
        """What is trained, as our checkpoints have it."""
        return {name: value - self.origin(name) for name, value in self.by_our_names().items()}

    def forward(self, data: TokenisedData, task: str, size: int) -> Tensor:
        """The outputs of a task's first examples. [size, outputs]"""
        found = self.bert(**padded(data, task, size))
        result: Tensor = self.heads[task](found.pooler_output)
        return result


def all_sites() -> list[str]:
    return [f"layer.{layer}.{name}" for layer in range(2) for name in list(MODULES)[:-1]] + ["pooler"]


def peft_config(lora: LowRank, biases: str) -> LoraConfig:
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        use_dora=isinstance(lora, DoRA),
        use_rslora=lora.scaling == "alpha_over_sqrt_rank",
        target_modules=[MODULES[target] for target in lora.targets],
        layers_to_transform=None if lora.layers is None else list(lora.layers),
        bias="lora_only" if biases == "trained" else "none",
    )


def padded(data: TokenisedData, task: str, size: int) -> dict[str, Tensor]:
    """[CLS] first [SEP] second [SEP] of the first examples, padded to the longest."""
    split = data.splits[task, "train"]
    rows, types = [], []
    for at in range(size):
        sides = [split.first] if split.second is None else [split.first, split.second]
        row, segments = [toys.SPECIAL.cls], [0]
        for segment, side in enumerate(sides):
            words = side.values[side.offsets[at] : side.offsets[at + 1]].tolist()
            row += [*words, toys.SPECIAL.sep]
            segments += [segment] * (len(words) + 1)
        rows.append(row)
        types.append(segments)
    width = max(map(len, rows))
    pad = lambda of: torch.tensor([row + [0] * (width - len(row)) for row in of])  # noqa: E731
    return {
        "input_ids": pad(rows),
        "token_type_ids": pad(types),
        "attention_mask": pad([[1] * len(row) for row in rows]),
    }


def losses(peer: Peer, data: TokenisedData, size: int) -> dict[str, Tensor]:
    """Cross-entropy, binary cross-entropy on a logit, squared error."""
    functions = {
        "sst": lambda x, y: nn.functional.cross_entropy(x, y.long()),
        "para": lambda x, y: nn.functional.binary_cross_entropy_with_logits(x[:, 0], y.double()),
        "sts": lambda x, y: nn.functional.mse_loss(x[:, 0], y.double()),
    }
    return {
        task: loss(peer(data, task, size), torch.from_numpy(data.splits[task, "train"].labels[:size]))
        for task, loss in functions.items()
    }


def largest_difference(mine: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Of all tensors, relative to the largest entry of each."""
    assert set(mine) == set(wanted)
    return max(
        float((mine[name] - wanted[name]).detach().abs().max() / wanted[name].detach().abs().max())
        for name in wanted
    )


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_outputs_and_gradients_are_peft_s(
    changes: dict[str, Any], backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.run(**changes)
    state = disturbed(run)
    peer = Peer(backbone, run, state)
    mine = outputs([run], [state], backbone, data)[0]
    assert largest_difference(mine, {task: peer(data, task, 6) for task in toys.TASKS}) < 1e-9
    sum(losses(peer, data, 6).values()).backward()  # type: ignore[union-attr]
    pack = packed([run], [state], backbone)
    total_loss(pack, [run], data).backward()
    found: State = {}
    for leaf in owned_by(0, pack, None):
        assert leaf.gradient is not None
        found |= leaf.read(leaf.gradient)
    wanted = {name: value.grad for name, value in peer.by_our_names().items()}
    for name in list(wanted):
        if name.startswith("biases.") and name.endswith("key"):  # truly zero: only rounding is left
            assert float(found.pop(name).abs().max()) < 1e-12
            assert float(wanted.pop(name).abs().max()) < 1e-12  # type: ignore[union-attr]
    assert largest_difference(found, wanted) < 1e-9  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_twenty_steps_of_adamw_give_peft_s_losses_and_weights(
    changes: dict[str, Any], backbone: Backbone
) -> None:
    """All examples in every step, so that their order does not matter."""
    data = toys.random_data((SIZE, SIZE, SIZE), dev=4)
    training = {
        "steps": STEPS, "batch_size": SIZE, "schedule": {"kind": "joint"}, "learning_rate": RATES,
        "warmup": 0.0, "decay": "constant", "clip": None,
        "weight_decay": {"adapters": 0.0 if "biases" in changes else 0.1, "heads": 0.05},
    }  # fmt: skip
    evaluation = {"every": 1, "train_limit": 0, "keep": "last"}
    run = toys.run(**changes, training=training, evaluation=evaluation)
    peer = Peer(backbone, run, initial_state(run, toys.SMALL, toys.TASKS))
    parts: dict[str, list[Tensor]] = {"adapters": [], "heads": [], "magnitudes": []}
    magnitudes = {name: v for name, v in peer.by_our_names().items() if name.endswith(".magnitude")}
    for name, value in peer.by_our_names().items():
        part = "heads" if name.startswith("heads.") else "magnitudes" if name in magnitudes else "adapters"
        parts[part].append(value)
    rates = {**RATES, "magnitudes": RATES["adapters"]}
    decay = {**training["weight_decay"], "magnitudes": 0.0}
    adamw = torch.optim.AdamW(
        [{"params": of, "lr": rates[part], "weight_decay": decay[part]} for part, of in parts.items() if of]
    )
    wanted: dict[str, list[float]] = {task: [] for task in toys.TASKS}
    for _ in range(STEPS):
        adamw.zero_grad()
        found = losses(peer, data, SIZE)
        for task, loss in found.items():
            wanted[task].append(float(loss.detach()))
        sum(found.values()).backward()  # type: ignore[union-attr]
        silence_zero_gradients(peer)
        with torch.no_grad():
            for name, value in magnitudes.items():  # ours decay towards the norms that they began with
                value -= rates["adapters"] * decay["adapters"] * (value - peer.origin(name))
        adamw.step()
    events = toys.train_alone(data, backbone, run)
    for task, reference in wanted.items():
        got = [toys.values(r, "train", "training_loss")[task] for r in toys.evaluations(events)]
        assert np.allclose(got, reference, rtol=1e-8, atol=0)
    if "biases" not in changes:
        assert largest_difference(toys.weights(toys.ended(events)), peer.as_we_keep_it()) < 1e-7


def silence_zero_gradients(peer: Peer) -> None:
    """The key's bias changes no output: what AdamW makes of its gradient's rounding is nobody's."""
    for name, value in peer.by_our_names().items():
        if name.startswith("biases.") and name.endswith("key"):
            assert value.grad is not None
            value.grad.zero_()
