"""What the benchmarks share: the machine in a line, a table, a process apart, and the documented peer."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mtbert.batches import Request, encode
from mtbert.configuration import Configuration
from mtbert.data.tokenise import TokenisedData
from mtbert.losses import per_example
from mtbert.slots import State

Answer = TypeVar("Answer")


def describe_machine(packages: Sequence[str]) -> str:
    """Processor, threads and versions, as the table's caption."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(names, platform.processor())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"{device}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, {versions}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def apart(function: Callable[..., Answer], *arguments: Any) -> Answer:
    """The function's answer from a new process, as every command that starts a sweep has one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


class Peer(nn.Module):
    """One BERT with a PEFT LoRA and a linear head for each task, as the two libraries' guides have it."""

    def __init__(self, folder: str | Path, configuration: Configuration, data: TokenisedData) -> None:
        super().__init__()
        from peft import LoraConfig, get_peft_model
        from transformers import BertModel

        lora = configuration.low_rank
        assert lora is not None
        dropout = configuration.training.dropout
        bert = BertModel.from_pretrained(
            folder, hidden_dropout_prob=dropout.backbone, attention_probs_dropout_prob=dropout.attention_rate
        )
        settings = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number does
            lora_dropout=lora.dropout,
            target_modules=list(lora.targets),
        )
        self.bert = get_peft_model(bert, settings)
        self.dropout = nn.Dropout(dropout.heads)
        hidden = bert.config.hidden_size
        self.heads = nn.ModuleDict({n: nn.Linear(hidden, task.outputs) for n, task in data.tasks.items()})

    def start_from(self, state: State) -> None:
        """Take this project's initial values, so that both sides start alike."""
        names = dict(self.bert.named_parameters())
        with torch.no_grad():
            for key, value in state.items():
                if key.startswith("heads."):
                    _, task, kind = key.split(".")
                    getattr(self.heads[task], kind).copy_(value)
                else:
                    _, _, _, layer, site, factor = key.split(".")
                    name = f"base_model.model.encoder.layer.{layer}.attention.self.{site}.lora_{factor}"
                    names[f"{name}.default.weight"].copy_(value)

    def loss(self, data: TokenisedData, task: str, indices: np.ndarray, pairs, max_length: int) -> Tensor:  # type: ignore[no-untyped-def]
        """The loss of a batch that is padded to its longest sequence."""
        split = data.splits[task, "train"]
        encoded = encode(Request(0, task, split, indices, pairs), data.special, max_length)
        width = int(encoded.lengths.max())
        inside = np.arange(width) < encoded.lengths[:, None]
        ids, segments = np.full(inside.shape, data.special.pad), np.zeros(inside.shape, dtype=np.int64)
        ids[inside], segments[inside] = encoded.ids, encoded.segments
        output = self.bert(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(inside.astype(np.int64)),
            token_type_ids=torch.from_numpy(segments),
        )
        logits = self.heads[task](self.dropout(output.pooler_output))
        labels = torch.from_numpy(split.labels[indices])
        return per_example(data.tasks[task], logits.float(), labels).mean()
