"""What a sweep's runs train on: loaded and checked once, and put once where all workers map it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mtbert.configuration import Configuration

if TYPE_CHECKING:
    from mtbert.counts import Counts
    from mtbert.data.examples import Dataset
    from mtbert.data.tokenise import TokenisedData
    from mtbert.inputs import Inputs
    from mtbert.weights import BaseModel
    from sweeps.trainable import Trainer


class Material(Protocol):
    """What the driver knows of a sweep's base model and data; tests put their own in its place.

    Attributes:
        model: fingerprint of the base model.
        data: fingerprint of the data.
        sizes: training examples by task.
        notices: what was skipped in reading, to be told.
        inputs: where model and data came from, as each run's record says it.
        trainer: makes a worker's trainer from `parcel`; found by its import path there.
    """

    @property
    def model(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def notices(self) -> Sequence[str]: ...
    @property
    def inputs(self) -> Mapping[str, Any]: ...
    @property
    def trainer(self) -> Callable[[Any], Trainer]: ...
    def count(self, configuration: Configuration) -> Counts: ...
    def metrics(self, configuration: Configuration) -> tuple[str, ...]: ...
    def workload(self, configuration: Configuration) -> Workload: ...
    def truncation(self, configuration: Configuration) -> str | None: ...
    def parcel(self, device: str) -> dict[str, Any]: ...
    def examples(self) -> dict[str, list[Any]]: ...


@dataclass(frozen=True)
class Workload:
    """The size of a run's work, for estimates.

    Attributes:
        linear: weights of the backbone's linear layers, each used once for every token.
        tokens_per_step: of a training batch, on average.
        tokens_per_evaluation: of dev and the evaluated part of train.
        width: hidden size, layers: number of layers.
    """

    linear: int
    tokens_per_step: float
    tokens_per_evaluation: float
    width: int
    layers: int


class LoadedMaterial:
    """A real sweep's base model and data, tokenised when first needed.

    Raises:
        ModelError, DataError: with the file, what is wrong in it, and the way out.
    """

    def __init__(self, inputs: Inputs) -> None:
        from mtbert.weights import load_base

        self._inputs = inputs
        self._dataset: Dataset = inputs.dataset()
        self._base: BaseModel = load_base(inputs.model)

    @property
    def model(self) -> str:
        return self._base.fingerprint

    @property
    def data(self) -> str:
        return self._dataset.fingerprint

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Training examples by task, in the order of their declaration."""
        counts = {task: len(self._dataset.examples.get((task, "train"), ())) for task in self._dataset.tasks}
        return {task: count for task, count in counts.items() if count}

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(self._dataset.notices)

    @property
    def inputs(self) -> dict[str, Any]:
        """The flags' values, with folders named so that they are found from anywhere."""
        values = dict(vars(self._inputs))
        for name in ("model", "data"):
            path = Path(values[name]).expanduser()
            values[name] = str(path.resolve()) if path.exists() else values[name]
        return values

    @property
    def trainer(self) -> Callable[[Any], Trainer]:
        return make_trainer

    @cached_property
    def tokens(self) -> TokenisedData:
        from mtbert.data.tokenise import tokenise

        return tokenise(self._dataset, self._base.tokenizer(), splits=("train", "dev"))

    def count(self, configuration: Configuration) -> Counts:
        """The parameters that the configuration trains, and has; refuses what this model cannot be."""
        from mtbert.counts import count
        from mtbert.member import check, trained_tasks

        check(configuration, self._base.config, self._dataset.tasks)
        return count(configuration, self._base.config, trained_tasks(configuration, self._dataset.tasks))

    def metrics(self, configuration: Configuration) -> tuple[str, ...]:
        """The names of all that the end of a run says of its tasks: `sst.accuracy`."""
        from mtbert.member import trained_tasks

        tasks = trained_tasks(configuration, self._dataset.tasks)
        return tuple(f"{name}.{metric}" for name, task in tasks.items() for metric in task.metrics)

    def workload(self, configuration: Configuration) -> Workload:
        """How much a run of this configuration has to compute."""
        config = self._base.config
        hidden, layers, inner = config.hidden_size, config.num_hidden_layers, config.intermediate_size
        mean = {key: self._mean_tokens(key) for key in self.tokens.splits}
        batch = configuration.training.batch_size
        training = [mean[task, "train"] for task in self.sizes]
        evaluation = configuration.evaluation
        dev = sum(
            min(evaluation.dev_limit or len(split.ids), len(split.ids)) * mean[task, name]
            for (task, name), split in self.tokens.splits.items()
            if name == "dev"
        )
        return Workload(
            linear=layers * (4 * hidden * hidden + 2 * hidden * inner),
            tokens_per_step=batch * sum(training) / max(1, len(training)),
            tokens_per_evaluation=dev + evaluation.train_limit * sum(training),
            width=hidden,
            layers=layers,
        )

    def truncation(self, configuration: Configuration) -> str | None:
        """How many sequences the configuration's length cuts, in words; None where none."""
        from mtbert.data.tokenise import truncated

        longest = self._base.config.max_position_embeddings
        length = min(configuration.max_length or longest, longest)
        cut = {
            key: count for key, count in truncated(self.tokens, configuration.pairs, length).items() if count
        }
        parts = ", ".join(f"{count} of {task} {split}" for (task, split), count in cut.items())
        return f"cut to {length} tokens: {parts}" if cut else None

    def _mean_tokens(self, key: tuple[str, str]) -> float:
        split = self.tokens.splits[key]
        count = max(1, len(split.ids))
        second = 0 if split.second is None else len(split.second.values) / count + 1
        return len(split.first.values) / count + 2 + second  # [CLS], [SEP], and [SEP] of a second sentence

    def parcel(self, device: str) -> dict[str, Any]:
        """What workers are sent: plain data and arrays, which the object store keeps apart from it."""
        return {
            "config": self._base.config,
            "weights": self._base.arrays,
            "description": self.tokens.describe(),
            "tokens": self.tokens.arrays(),
            "device": device,
        }

    def examples(self) -> dict[str, list[Any]]:
        """The sentences, as the columns of the table `examples`."""
        from mtbert.data.examples import columns_of

        return columns_of(self._dataset)


def make_trainer(parcel: dict[str, Any]) -> Trainer:
    """A worker's trainer over the parcel's arrays, which stay where they are mapped.

    Args:
        parcel: a material's, and `folder`: on the driver's machine, for files that its workers share.
    """
    import torch

    from mtbert.bert import Backbone
    from mtbert.data.tokenise import TokenisedData
    from mtbert.trainer import Trainer as RealTrainer

    device = parcel["device"]
    if device == "cpu":
        torch.set_num_threads(1)  # two processes of one thread beat one of two by 15%
    made: dict[str, Backbone] = {}

    def backbone(precision: str) -> Backbone:
        if precision not in made:
            made[precision] = Backbone.from_arrays(parcel["config"], parcel["weights"], precision, device)
        return made[precision]

    data = TokenisedData.from_arrays(parcel["description"], parcel["tokens"])
    return RealTrainer(backbone, data, device, shared_folder(parcel["folder"]))


def shared_folder(folder: str) -> Path | None:
    """The sweep's folder, on the machine that has it: the driver's; elsewhere processes share nothing."""
    return Path(folder) if os.access(folder, os.W_OK) else None


def checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of the arrays' bytes: tells whether somebody wrote into what all workers share."""
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(np.ascontiguousarray(arrays[name]).data, value)
    return value
