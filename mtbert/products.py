"""What a low-rank adapter adds to linear layers, as products: for all that takes a trained run apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from mtbert.adapters.factors import key, scale, site_shape, sites, variants
from mtbert.adapters.orthogonal import fixed_factor
from mtbert.bert import BertConfig
from mtbert.configuration import Configuration
from mtbert.hooks import Site
from mtbert.slots import State
from mtbert.tasks import Task
from mtbert.techniques import LowRank, Orthogonal


class Product(NamedTuple):
    """What an adapter adds to a linear layer's weight: scale · b · a. a: [rank, in]; b: [out, rank]"""

    a: Tensor
    b: Tensor
    scale: float


def variant_of(configuration: Configuration, task: str) -> tuple[str, LowRank]:
    """The adapter that a task uses, and its name in a checkpoint; the configuration has one."""
    assert configuration.low_rank is not None
    ((name, low_rank),) = variants(configuration.low_rank, [task]).items()
    return name, low_rank


def products(
    configuration: Configuration, state: State, task: str, config: BertConfig, tasks: Mapping[str, Task]
) -> Iterator[tuple[Site, Product]]:
    """What the adapter of a task adds, by site, the task's own head among them.

    Args:
        state: the run's best weights by name.
        tasks: all of the data's, in its order.
    """
    variant, low_rank = variant_of(configuration, task)
    for site in sites(low_rank, config, [task]):
        b = state[key(variant, site, "B")]
        if isinstance(low_rank, Orthogonal):
            _, width = site_shape(site, config, tasks, configuration)
            number = list(tasks).index(task)
            a = fixed_factor(low_rank.basis, width, number, len(tasks), low_rank.rank).to(b)
        else:
            a = state[key(variant, site, "A")]
        yield site, Product(a, b, scale(low_rank))
