"""A trained run in use: its weights over the base model, predicting on any split or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtbert import heads
from mtbert.adapters.base import Admitted
from mtbert.adapters.low_rank import trained_backbone
from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.evaluation import Predictions, metrics, predict
from mtbert.features import FeatureStore, depends_on_example_alone
from mtbert.member import trained_tasks
from mtbert.pack import Pack
from mtbert.run import Run
from mtbert.schema import ConfigError
from mtbert.tasks import Task

if TYPE_CHECKING:
    from mtbert.data.tokenise import TokenisedData
    from mtbert.weights import BaseModel


class TrainedModel:
    """One run's best weights over its base model."""

    def __init__(
        self, base: BaseModel, run: Run, weights: bytes, tasks: Mapping[str, Task], device: str = "cpu"
    ) -> None:
        """
        Raises:
            ConfigError: the base model is not the one that the run was trained over.
        """
        if run.model != base.fingerprint:
            raise ConfigError(
                f"--model {base.name}: its fingerprint is {base.fingerprint}, run {run.run_id} was trained "
                f"over {run.model}; name that model"
            )
        state, _ = unpack_tensors(weights)
        hidden, configuration = base.config.hidden_size, run.configuration
        self.tasks = {  # other data may declare tasks that the run did not know
            name: task
            for name, task in trained_tasks(configuration, tasks).items()
            if all(tensor in state for tensor in heads.shapes(task, hidden, configuration))
        }
        backbone = Backbone.from_arrays(base.config, base.arrays, run.configuration.precision, device)
        if run.configuration.backbone == "trained":
            backbone = backbone.trainable_copy().requires_grad_(False)
            for name in trained_backbone(run.configuration, base.config, self.tasks):
                backbone.get_parameter(name).data.copy_(state[f"backbone.{name}"])
            backbone.pack()
        state = {name: value.to(device) for name, value in state.items()}
        self._pack = Pack(backbone, [Admitted(0, run.configuration, tuple(self.tasks), state)], tasks, device)
        longest = base.config.max_position_embeddings
        self._max_length = min(run.configuration.max_length or longest, longest)
        self._device = device

    def predict(self, data: TokenisedData, task: str, split: str) -> Predictions:
        """Predictions on a whole split."""
        examples = data.splits[task, split]
        indices = np.arange(len(examples.ids))
        of, length = self.tasks[task], self._max_length
        configuration = self._pack.admitted[0].configuration
        if not depends_on_example_alone(configuration):
            return predict(self._pack, 0, of, examples, indices, data, length, self._device)
        store = FeatureStore(data, self._device)  # as in training, so that not a bit differs
        features = partial(store.read, self._pack.backbone, length, read={0: configuration.features})
        return predict(self._pack, 0, of, examples, indices, data, length, self._device, features)

    def evaluate(self, data: TokenisedData, split: str) -> dict[str, dict[str, float | None]]:
        """The metrics of each task that the split has, with labels."""
        found = {}
        for name, task in self.tasks.items():
            examples = data.splits.get((name, split))
            if examples is not None and len(examples.ids) and np.isfinite(examples.labels).all():
                found[name] = metrics(task, self.predict(data, name, split), examples)
        return found


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
