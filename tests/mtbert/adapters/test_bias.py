"""Trained biases keep the contract: of every linear layer and the pooler, alone and beside LoRA."""

from __future__ import annotations

from mtbert.configuration import Configuration
from mtbert.slots import State
from tests.mtbert import toys
from tests.mtbert.adapters import test_lora
from tests.mtbert.adapters.contract import AdapterContract

JOINT = {"schedule": {"kind": "joint"}}
VARIANTS = {
    "alone": {"biases": "trained", "training": JOINT},
    "heads frozen": {"biases": "trained", "heads": {"trained": False}, "training": JOINT},
    "separate sentences": {"biases": "trained", "pairs": {"encoding": "separate"}, "training": JOINT},
    "with lora": {**test_lora.VARIANTS["all linear"], "biases": "trained"},
    "with a lora for each task": {**test_lora.VARIANTS["each task its own"], "biases": "trained"},
}


class TestBiases(AdapterContract):
    variants = VARIANTS

    def expected_parameters(self, configuration: Configuration) -> int:
        hidden, wide = toys.SMALL.hidden_size, toys.SMALL.intermediate_size
        biases = toys.SMALL.num_hidden_layers * (5 * hidden + wide) + hidden
        if configuration.low_rank is None:
            return biases
        return biases + test_lora.TestLoRA().expected_parameters(configuration)

    def merged_weights(
        self, configuration: Configuration, state: State, weights: State, task: str
    ) -> tuple[State, State]:
        heads: State = {}
        if configuration.low_rank is not None:
            weights, heads = test_lora.TestLoRA().merged_weights(configuration, state, weights, task)
        for name, value in state.items():
            if name.startswith("biases."):
                bias = f"{name.removeprefix('biases.')}.bias"
                weights[bias] = weights[bias] + value
        return weights, heads
