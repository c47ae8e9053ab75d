"""A trained run in use: its weights over the base model, predicting on any split or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mtbert import heads
from mtbert.adapters.base import Admitted
from mtbert.batches import Request, assemble
from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.configuration import Configuration
from mtbert.data.examples import Dataset, Example
from mtbert.data.tokenise import TokenisedData, tokenise
from mtbert.evaluation import Predictions, metrics, predict
from mtbert.features import FeatureStore, depends_on_example_alone
from mtbert.member import trained_tasks
from mtbert.pack import Pack
from mtbert.run import Run
from mtbert.schema import ConfigError
from mtbert.slots import State
from mtbert.tasks import Task
from mtbert.techniques import Orthogonal

if TYPE_CHECKING:
    from mtbert.weights import BaseModel


class TrainedModel:
    """One run's best weights over its base model."""

    def __init__(
        self, base: BaseModel, run: Run, weights: bytes, tasks: Mapping[str, Task], device: str = "cpu"
    ) -> None:
        """
        Raises:
            ConfigError: the base model is not the one that the run was trained over; orthogonal adapters, and
                tasks among which one of those is missing that share their basis.
        """
        if run.model != base.fingerprint:
            raise ConfigError(
                f"--model {base.name}: its fingerprint is {base.fingerprint}, run {run.run_id} was trained "
                f"over {run.model}; name that model"
            )
        state, facts = unpack_tensors(weights)
        tasks = _in_place(run, facts.get("tasks"), tasks)
        self.tasks = known_tasks(run.configuration, state, tasks, base.config.hidden_size)
        backbone = Backbone.from_arrays(base.config, base.arrays, run.configuration.precision, device)
        if run.configuration.backbone == "trained":
            backbone = backbone.trainable_copy().requires_grad_(False)
            for name, value in state.items():
                if name.startswith("backbone."):
                    backbone.get_parameter(name.removeprefix("backbone.")).data.copy_(value)
            backbone.pack()
        state = {name: value.to(device) for name, value in state.items()}
        self._pack = Pack(backbone, [Admitted(0, run.configuration, tuple(self.tasks), state)], tasks, device)
        longest = base.config.max_position_embeddings
        self._max_length = min(run.configuration.max_length or longest, longest)
        self._base, self._device = base, device

    def predict(self, data: TokenisedData, task: str, split: str) -> Predictions:
        """Predictions on a whole split."""
        examples = data.splits[task, split]
        indices = np.arange(len(examples.ids))
        of, length = self.tasks[task], self._max_length
        configuration = self._pack.admitted[0].configuration
        given = (self._pack, [0], of, examples, indices, data, length, self._device)
        if not depends_on_example_alone(configuration):
            return predict(*given)[0]
        store = FeatureStore(data, self._device)  # as in training, so that not a bit differs
        features = partial(store.read, self._pack.backbone, length, read={0: configuration.features})
        return predict(*given, features)[0]

    @torch.no_grad()
    def outputs(self, task: str, first: Sequence[str], second: Sequence[str] | None = None) -> Tensor:
        """What a task's head gives for texts, in one batch: a logit by class, one logit, or the value.

        Args:
            second: the second sentences, of a task of pairs.

        Returns:
            [texts, outputs]

        Raises:
            ConfigError: no such task, or one of another number of sentences.
        """
        if task not in self.tasks:
            raise ConfigError(f"task {task!r}: expected one of {', '.join(self.tasks)}")
        if (second is None) != (self.tasks[task].sentences == 1):
            raise ConfigError(f"task {task}: expected {self.tasks[task].sentences} sentence(s) an example")
        sides = zip(first, [None] * len(first) if second is None else second, strict=True)
        examples = [Example(str(at), one, other, None) for at, (one, other) in enumerate(sides)]
        texts = Dataset({task: self.tasks[task]}, {(task, "text"): examples}, (), "", "text")
        data = tokenise(texts, self._base.tokenizer())
        pairs = self._pack.admitted[0].configuration.pairs
        request = Request(0, task, data.splits[task, "text"], np.arange(len(examples)), pairs)
        batch = assemble([request], data.special, self._max_length, self._device)
        (result,) = self._pack.forward(batch, None, {})
        return result.outputs

    def evaluate(self, data: TokenisedData, split: str) -> dict[str, dict[str, float | None]]:
        """The metrics of each task that the split has, with labels."""
        found = {}
        for name, task in self.tasks.items():
            examples = data.splits.get((name, split))
            if examples is not None and len(examples.ids) and np.isfinite(examples.labels).all():
                found[name] = metrics(task, self.predict(data, name, split), examples)
        return found


def _in_place(run: Run, told: Sequence[str] | None, tasks: Mapping[str, Task]) -> Mapping[str, Task]:
    """The tasks as the run's own data has them, where the run's adapters hang on a task's place among them.

    Args:
        told: the tasks of its data in order, as its weights tell; null in weights that do not.
    """
    if told is None or not isinstance(run.configuration.low_rank, Orthogonal):
        return tasks
    missing = [name for name in told if name not in tasks]
    if missing:
        raise ConfigError(
            f"--data: run {run.run_id} has orthogonal adapters, whose basis is shared out among the tasks "
            f"{', '.join(told)}; expected all of them, got data without {', '.join(missing)}"
        )
    return {name: tasks[name] for name in told}


def known_tasks(
    configuration: Configuration, state: State, tasks: Mapping[str, Task], hidden: int
) -> dict[str, Task]:
    """Those of the data's tasks that a run can answer; other data may declare some that it did not know.

    Args:
        state: the run's weights by name.
    """
    return {
        name: task
        for name, task in trained_tasks(configuration, tasks).items()
        if all(tensor in state for tensor in heads.shapes(task, hidden, configuration))
    }


def write_student_file(path: Path, ids: Sequence[str], values: np.ndarray, task: Task) -> None:
    """Predictions as the CS 224N project's own program writes them: a header, then `id , prediction `."""
    if task.kind == "regression":
        header = "Predicted_Similiary"  # spelt as the project spells it
    else:
        header = "Predicted_Sentiment" if task.sentences == 1 else "Predicted_Is_Paraphrase"
    said = values.astype(int) if task.kind == "classification" else values
    lines = [f"{example} , {value} \n" for example, value in zip(ids, said.tolist(), strict=True)]
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(f"id \t {header} \n" + "".join(lines), encoding="utf-8")
    temporary.replace(path)


def write_test_predictions(folder: Path, model: TrainedModel, data: TokenisedData) -> dict[str, Path]:
    """A file of predictions for each task that has a test set, in a folder that is made; paths by task."""
    written = {}
    for name, task in model.tasks.items():
        split = data.splits.get((name, "test"))
        if split is not None and len(split.ids):
            folder.mkdir(parents=True, exist_ok=True)
            written[name] = folder / f"{name}-test-output.csv"
            write_student_file(written[name], split.ids, model.predict(data, name, "test").values, task)
    return written
