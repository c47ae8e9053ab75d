"""How many parameters a configuration trains and has, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from mtbert import heads, weighting
from mtbert.adapters.base import size
from mtbert.adapters.low_rank import trained_backbone
from mtbert.adapters.places import PLACES
from mtbert.bert import BertConfig
from mtbert.configuration import PARTS, Configuration, Part
from mtbert.schema import ConfigError
from mtbert.tasks import Task


@dataclass(frozen=True)
class Counts:
    """Parameters of the whole model, what was added included.

    Attributes:
        parts: (trainable, total) by part: backbone, each place that adds something, heads,
            weighting where it trains something.
    """

    parts: Mapping[str, tuple[int, int]]

    @property
    def trainable(self) -> int:
        return sum(trainable for trainable, _ in self.parts.values())

    @property
    def total(self) -> int:
        return sum(total for _, total in self.parts.values())


def count(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> Counts:
    """What the configuration trains over these tasks. Allocates nothing.

    Trained biases replace the backbone's, so that they add nothing to the total.
    """
    backbone = {name: prod(shape) for name, shape in config.shapes().items()}
    trained = trained_backbone(configuration, config, tasks)
    parts = {"backbone": (sum(backbone[name] for name in trained), sum(backbone.values()))}
    for name, place in PLACES.items():
        trainable = size(place.shapes(configuration, config, tasks))
        if trainable:
            parts[name] = (trainable, place.total(configuration, config, tasks))
    head = sum(size(heads.shapes(task, config.hidden_size, configuration)) for task in tasks.values())
    parts["heads"] = (head if configuration.heads.trained else 0, head)
    log_variances = size(weighting.shapes(configuration, tasks))
    if log_variances:
        parts["weighting"] = (log_variances, log_variances)
    return Counts(parts)


def check_training(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> None:
    """Every stage has something to train beside the weights of its losses.

    Args:
        tasks: those that the run trains.

    Raises:
        ConfigError: a stage of heads without parameters over a backbone that nothing alters.
    """
    for at, stage in enumerate(configuration.stage_list()):
        own = {name: task for name, task in tasks.items() if stage.tasks is None or name in stage.tasks}
        moving = PARTS if stage.trains is None else stage.trains
        parts = count(configuration, config, own).parts
        if not any(parts[name][0] for name in parts if name != "weighting" and _part(name) in moving):
            where = f"stages[{at}]" if configuration.stages else "training"
            kinds = ", ".join(f"{name} {configuration.heads.of_task(name).kind}" for name in own)
            raise ConfigError(
                f"configuration.{where}: nothing to train: expected parameters among {', '.join(moving)}, "
                f"got none for the heads {kinds}; train an adapter, the biases or the backbone, or "
                "a task with another head"
            )


def _part(name: str) -> Part:
    """The part that something counted belongs to."""
    return "heads" if name == "heads" else "backbone" if name == "backbone" else "adapters"
