"""A trained run with all that it was trained over: what every export starts from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mtbert.checkpoint import unpack_weights
from mtbert.configuration import Configuration
from mtbert.inference import known_tasks
from mtbert.schema import ConfigError
from mtbert.slots import State
from mtbert.tasks import Task

if TYPE_CHECKING:
    from mtbert.data.examples import Dataset
    from mtbert.inputs import Inputs
    from mtbert.run import Run
    from mtbert.weights import BaseModel


@dataclass(frozen=True, eq=False)
class Trained:
    """A run, its best weights as they are stored, and the base model and data of its fingerprints.

    Raises:
        ConfigError: another base model, or other data.
    """

    run: Run
    weights: bytes
    base: BaseModel
    dataset: Dataset
    inputs: Inputs

    def __post_init__(self) -> None:
        wanted = {"model": self.run.model, "data": self.run.data}
        found = {"model": self.base.fingerprint, "data": self.dataset.fingerprint}
        for name, fingerprint in wanted.items():
            if found[name] != fingerprint:
                raise ConfigError(
                    f"--{name} {getattr(self.inputs, name)}: its fingerprint is {found[name]}, run "
                    f"{self.run.run_id} was trained over {fingerprint}; name that, with the same --limit, "
                    "--holdout and --cfimdb"
                )

    @property
    def configuration(self) -> Configuration:
        return self.run.configuration

    @cached_property
    def state(self) -> State:
        """The run's tensors by their names in a checkpoint."""
        return unpack_weights(self.weights, self.run.run_id)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Those that the run answers, in the data's order."""
        hidden = self.base.config.hidden_size
        return known_tasks(self.configuration, self.state, self.dataset.tasks, hidden)

    @property
    def max_length(self) -> int:
        """Tokens of a sequence, at most."""
        longest = self.base.config.max_position_embeddings
        return min(self.configuration.max_length or longest, longest)

    @property
    def base_name(self) -> str:
        """The base model as any library loads it: a name on the hub, or the folder that it lies in."""
        return str(self.base.folder.resolve()) if self.is_local else self.base.name

    @property
    def is_local(self) -> bool:
        """Whether the base model is a folder, or the embedded demo, and has no name on the hub."""
        return self.base.name == "demo" or Path(self.base.name).expanduser().is_dir()
