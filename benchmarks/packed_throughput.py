"""Member-steps per second of packs of LoRA runs over one frozen backbone, on whatever device is there.

    python benchmarks/packed_throughput.py --sizes 1,2,4,8,16,32,64

Weights are random (their values cost nothing), of BERT-base's size unless --model names a folder. Each
member has its own seed, data order and dropout masks. The throughput of a lone run is the first row.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import describe_machine, table
from mtbert.bert import Backbone, BertConfig
from mtbert.configuration import parse
from mtbert.data.tokenise import Ragged, SpecialTokens, TokenisedData, TokenSplit
from mtbert.group import Group
from mtbert.member import Member, initial_state
from mtbert.run import Run
from mtbert.tasks import Task
from mtbert.weights import load_base, published_sizes


def short_sentences(vocabulary: int, examples: int = 4000) -> TokenisedData:
    """One classification task over sentences of 8 to 40 random tokens."""
    draw = np.random.default_rng(0)
    task = Task(name="sst", kind="classification", sentences=1, classes=5)
    lengths = draw.integers(8, 41, examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = draw.integers(10, vocabulary, offsets[-1]).astype(np.int32)
    labels = draw.integers(0, 5, examples).astype(np.float32)
    split = TokenSplit(tuple(map(str, range(examples))), Ragged(values, offsets), None, labels)
    special = SpecialTokens(cls=1, sep=2, pad=0, mask=3)
    return TokenisedData({"sst": task}, "random", {("sst", "train"): split, ("sst", "dev"): split}, special)


def random_arrays(config: BertConfig) -> dict[str, np.ndarray]:
    """Weights as BERT draws them."""
    draw = np.random.default_rng(0)
    return {
        name: np.ones(shape, np.float32)
        if name.endswith("norm.weight")
        else draw.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        for name, shape in config.shapes().items()
    }


def base_of(model: str) -> tuple[BertConfig, Mapping[str, np.ndarray]]:
    """A folder's model, or random weights of a published one's size."""
    config = published_sizes().get(model)
    if config is not None:
        return config, random_arrays(config)
    base = load_base(model)
    return base.config, base.arrays


def member_steps(
    backbone: Backbone, data: TokenisedData, size: int, precision: str, seconds: float, device: str
) -> tuple[float, float]:
    """Member-steps per second of a pack, and the real tokens of one member's step."""
    group = Group(backbone, data, backbone.config.max_position_embeddings, device)
    configuration = parse({"precision": precision, "low_rank": {"rank": 8}, "training": {"steps": 1_000_000}})
    for seed in range(size):
        run = Run(configuration, seed, "random", "random")
        member = Member(run, data.tasks, {"sst": 4000})
        group.admit(member, initial_state(run, backbone.config, member.tasks))
    for _ in range(3):
        group.step()
    _wait(device)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or steps < 3:
        group.step()
        steps += 1
        _wait(device)
    elapsed = time.perf_counter() - began
    tokens = sum(member.tokens / member.step for member in group.members.values()) / size
    return steps * size / elapsed, tokens


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="bert-base-uncased", help="its size; a folder, or a published name"
    )
    parser.add_argument("--sizes", default="1,2,4,8,16,32,64")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured for each size")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    config, arrays = base_of(arguments.model)
    backbone = Backbone.from_arrays(config, arrays, arguments.precision, arguments.device)
    data = short_sentences(config.vocab_size)
    rows, lone = [], 0.0
    for size in map(int, arguments.sizes.split(",")):
        speed, tokens = member_steps(
            backbone, data, size, arguments.precision, arguments.seconds, arguments.device
        )
        lone = lone or speed
        rows.append([str(size), f"{speed:.2f}", f"{speed * tokens:,.0f}", f"{speed / lone:.2f}"])
    caption = f"LoRA r8 on query and value of {arguments.model}, {arguments.precision}, dropout 0.1"
    print(f"{caption}, batches of 16 sentences of 8 to 40 tokens; {describe_machine(['torch'])}\n")
    print(table(["pack", "member-steps/s", "real tokens/s", "against a lone run"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
