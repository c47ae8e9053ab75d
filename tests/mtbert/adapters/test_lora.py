"""LoRA keeps the contract in every form: targets, layers, scalings, shared or one for each task."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mtbert.bert import Backbone
from mtbert.configuration import Configuration
from mtbert.data.tokenise import TokenisedData
from mtbert.member import initial_state
from mtbert.slots import State
from mtbert.techniques import LowRank
from tests.mtbert import toys
from tests.mtbert.adapters.contract import AdapterContract, Changes, outputs

LAYER = ["query", "key", "value", "attention_out", "ffn_in", "ffn_out"]


def joint(**low_rank: Any) -> Changes:
    """A LoRA in a training of all tasks in every step."""
    return {"low_rank": toys.lora(**low_rank), "training": {"schedule": {"kind": "joint"}}}


PER_TASK = {
    "sharing": "per_task",
    "dropout": 0.1,
    "tasks": {
        "sst": {"rank": 2, "alpha": 3.0, "dropout": 0.3, "targets": ["value"]},
        "sts": {"rank": 6, "targets": ["all_linear", "heads"], "dropout": 0.0},
    },
}
VARIANTS = {
    "query and value": joint(),
    "rank 1": joint(rank=1),
    "rank 7": joint(rank=7),
    "over the rank": joint(alpha=3.0, scaling="alpha_over_rank"),
    "over its root": joint(alpha=3.0, scaling="alpha_over_sqrt_rank"),
    "alpha alone": joint(alpha=3.0, scaling="alpha"),
    "scale of one": joint(alpha=3.0, scaling="one"),
    "key": joint(targets=["key"]),
    "attention's output": joint(targets=["attention_out"]),
    "feed-forward": joint(targets=["ffn_in", "ffn_out"]),
    "pooler": joint(targets=["pooler"]),
    "heads": joint(targets=["heads"]),
    "all linear": joint(targets=["all_linear"]),
    "report 004": {**joint(targets=[*LAYER, "heads"]), "heads": {"trained": False}},
    "first layer": joint(layers=[0]),
    "last layer": joint(layers=[1], targets=LAYER),
    "one for each task": joint(sharing="per_task"),
    "each task its own": joint(**PER_TASK),
    "with dropout": joint(dropout=0.2),
    "separate sentences": {**joint(targets=["query", "heads"]), "pairs": {"encoding": "separate"}},
    "mean of tokens": {**joint(targets=LAYER), "features": "mean"},
    "first token": {**joint(targets=LAYER), "features": "cls"},
}


def of_task(configuration: Configuration, task: str) -> tuple[str, LowRank]:
    """What stands in a checkpoint's names, and the LoRA that the task uses."""
    lora = configuration.low_rank
    assert lora is not None
    return ("shared", lora) if lora.sharing == "shared" else (task, lora.of_task(task))


def scale(lora: LowRank) -> float:
    return {
        "alpha_over_rank": lora.alpha / lora.rank,
        "alpha_over_sqrt_rank": lora.alpha / math.sqrt(lora.rank),
        "alpha": lora.alpha,
        "one": 1.0,
    }[lora.scaling]


class TestLoRA(AdapterContract):
    variants = VARIANTS

    def expected_parameters(self, configuration: Configuration) -> int:
        lora = configuration.low_rank
        assert lora is not None
        hidden, wide = toys.SMALL.hidden_size, toys.SMALL.intermediate_size
        layers = toys.SMALL.num_hidden_layers if lora.layers is None else len(lora.layers)
        inputs = 2 * hidden if configuration.pairs.encoding == "separate" else hidden
        heads = {"sst": hidden + 5, "para": inputs + 1, "sts": inputs + 1}
        total = 0
        for tasks in [list(heads)] if lora.sharing == "shared" else [[task] for task in heads]:
            _, own = of_task(configuration, tasks[0])
            for target in own.targets:
                if target == "heads":
                    size = sum(heads[task] for task in tasks)
                elif target == "pooler":
                    size = 2 * hidden
                else:
                    size = layers * (hidden + wide if target.startswith("ffn") else 2 * hidden)
                total += own.rank * size
        return total

    def merged_weights(
        self, configuration: Configuration, state: State, weights: State, task: str
    ) -> tuple[State, State]:
        variant, lora = of_task(configuration, task)
        heads: State = {}
        prefix = f"low_rank.{variant}."
        for name, a in state.items():
            if name.startswith(prefix) and name.endswith(".A"):
                site = name.removeprefix(prefix).removesuffix(".A")
                change = scale(lora) * state[f"{prefix}{site}.B"] @ a
                if site.startswith("heads."):
                    heads[f"{site}.weight"] = state[f"{site}.weight"] + change
                else:
                    weights[f"{site}.weight"] = weights[f"{site}.weight"] + change
        return weights, heads


def test_a_is_uniform_within_one_over_the_root_of_its_inputs_and_b_is_zero() -> None:
    run = toys.run(low_rank=toys.lora(rank=16, targets=["query", "ffn_out"]))
    state = initial_state(run, toys.SMALL, toys.TASKS)
    for name, value in state.items():
        if name.endswith(".B"):
            assert (value == 0).all()
        elif name.endswith(".A"):
            bound = 1 / math.sqrt(value.shape[1])
            assert value.abs().max() <= bound
            assert value.abs().max() > 0.95 * bound
            assert float(value.var()) == pytest.approx(bound**2 / 3, rel=0.25)


def test_initial_values_depend_on_the_seed_and_the_tensor_alone() -> None:
    states = [
        initial_state(run, toys.SMALL, toys.TASKS)
        for run in (
            toys.run(0, low_rank=toys.lora()),
            toys.run(0, low_rank=toys.lora(targets=["query", "key"]), training={"steps": 9}),
            toys.run(1, low_rank=toys.lora()),
        )
    ]
    query = "low_rank.shared.layer.0.query.A"
    assert torch.equal(states[0][query], states[1][query])
    assert torch.equal(states[0]["heads.sst.weight"], states[1]["heads.sst.weight"])
    assert not torch.equal(states[0][query], states[2][query])
    assert not torch.equal(states[0][query], states[0]["low_rank.shared.layer.1.query.A"])
    assert not torch.equal(states[0][query], states[0]["low_rank.shared.layer.0.value.A"])


def test_spare_ranks_of_a_bank_stay_exactly_zero(backbone: Backbone, data: TokenisedData) -> None:
    """Lower ranks are padded: through AdamW with weight decay and dropout."""
    decay = {"weight_decay": {"adapters": 0.1}, "dropout": {"adapters": 0.2}}
    low = toys.run(0, low_rank=toys.lora(rank=1), training=decay)
    high = toys.run(1, low_rank=toys.lora(rank=5), training=decay)
    of = toys.trainer(data, backbone)
    of.admit(low)
    of.admit(high)
    of.advance()
    stack = of._of_run[low.run_id].pack.adapters[0].stack
    assert stack.values.shape[0] == 2
    for name, leaf in stack.leaf.items():
        spare = leaf[0, 1:] if name.endswith(".A") else leaf[0, :, 1:]
        assert (spare == 0).all()
        assert spare.numel() > 0
        own = leaf[0, :1] if name.endswith(".A") else leaf[0, :, :1]
        assert (own != 0).any()


def test_a_task_s_own_lora_leaves_the_other_tasks_alone(backbone: Backbone, data: TokenisedData) -> None:
    run = toys.run(low_rank=toys.lora(sharing="per_task"))
    state = {name: value.double() for name, value in initial_state(run, toys.SMALL, toys.TASKS).items()}
    before = outputs([run], [state], backbone, data)[0]
    for name in state:
        if name.startswith("low_rank.para") and name.endswith(".B"):
            state[name] = torch.ones_like(state[name])
    after = outputs([run], [state], backbone, data)[0]
    assert torch.equal(before["sst"], after["sst"])
    assert torch.equal(before["sts"], after["sts"])
    assert not torch.allclose(before["para"], after["para"])
