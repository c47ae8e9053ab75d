"""Orthogonal adaptation: for each task a LoRA whose A is fixed, no two alike (Po et al. 2023, section 3.3).

The rows of every A are columns of one orthogonal basis, which depends on `basis` and the width of the
layer's input alone: neither on the run's seed nor on the site. Of T tasks in the data, trained in this run
or not, task number t takes columns t, t + T, t + 2T, …: disjoint whatever the ranks. So A_i·A_jᵀ is zero for
two tasks and the identity for one, and runs that trained apart, a task each, can be added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mtbert.adapters import factors
from mtbert.adapters.base import Admitted, Shapes
from mtbert.adapters.lora import LoRABank
from mtbert.bert import BertConfig
from mtbert.configuration import Configuration
from mtbert.draws import generator
from mtbert.hooks import Site
from mtbert.schema import ConfigError
from mtbert.tasks import Task
from mtbert.techniques import Orthogonal


def fixed_factor(basis: int, width: int, task: int, tasks: int, rank: int) -> Tensor:
    """A of one task at every layer whose input has this width. float64 [rank, width]

    Args:
        basis: the seed of the basis.
        task: the task's number among all `tasks` of the data, from 0.

    Raises:
        ConfigError: the basis has too few columns for all tasks to have this rank.
    """
    check_rank(width, tasks, rank)
    columns = _basis(basis, width, tasks * rank)
    return torch.from_numpy(columns[:, task::tasks].T.copy())


def check_rank(width: int, tasks: int, rank: int) -> None:
    """
    Raises:
        ConfigError: as `fixed_factor`.
    """
    if tasks * rank > width:
        raise ConfigError(
            f"low_rank.rank: expected at most {width // tasks} with kind: orthogonal, for {tasks} tasks "
            f"share the {width} columns of a layer's input, got {rank}"
        )


@lru_cache(maxsize=64)
def _basis(seed: int, width: int, columns: int) -> np.ndarray:
    """The first columns of the basis: Q of a Gaussian's QR with a positive diagonal. float64 [width, columns]

    Each column is drawn by itself and depends on those before it alone, so that fewer are a part of more.
    """
    drawn = [generator("orthogonal", seed, width, at).standard_normal(width) for at in range(columns)]
    q, r = np.linalg.qr(np.stack(drawn, axis=1))
    unique: np.ndarray = q * np.sign(np.diag(r))  # QR leaves each column's sign open
    return unique


def check(
    configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task], trained: Sequence[str]
) -> None:
    """
    Args:
        tasks: all of the data's; `trained`: those of the run.

    Raises:
        ConfigError: a rank for which the basis of some layer has too few columns.
    """
    assert configuration.low_rank is not None
    for task, low_rank in factors.variants(configuration.low_rank, trained).items():
        for site in factors.sites(low_rank, config, [task]):
            _, into = factors.site_shape(site, config, tasks, configuration)
            check_rank(into, len(tasks), low_rank.rank)


class OrthogonalBank(LoRABank):
    """The orthogonal adapters of several members: LoRAs that train B alone."""

    @staticmethod
    def trained_shapes(rank: int, out: int, into: int) -> Shapes:  # noqa: ARG004 - the signature of every kind's
        """B."""
        return {"B": (out, rank)}

    @staticmethod
    def fixed_shapes(rank: int, out: int, into: int) -> Shapes:  # noqa: ARG004
        """A, which every layer of one width has alike."""
        return {"A": (rank, into)}

    def __init__(
        self,
        admitted: Sequence[Admitted],
        config: BertConfig,
        tasks: Mapping[str, Task],
        dtype: torch.dtype,
        device: str,
        head: str | None,
    ) -> None:
        super().__init__(admitted, config, tasks, dtype, device, head)
        names = list(tasks)
        numbers = {slot: names.index(task) for (_, task), slot in self._slots.items()}
        known: dict[tuple[int, tuple[bool, ...]], Tensor] = {}
        self._fixed: dict[Site, Tensor] = {}
        for site in self.sites:
            _, into = factors.site_shape(site, config, tasks, admitted[0].configuration)
            owners = tuple(self.owners(site))
            if (into, owners) not in known:
                stacked = self.scales.new_zeros(len(owners), self.stack.shapes[f"{site}.B"][1], into)
                for slot, number in numbers.items():
                    low_rank = self.variants[slot]
                    assert isinstance(low_rank, Orthogonal)
                    if owners[slot]:  # elsewhere B is padding, whose gradient must be zero
                        a = fixed_factor(low_rank.basis, into, number, len(tasks), low_rank.rank)
                        stacked[slot, : low_rank.rank] = a
                known[into, owners] = stacked
            self._fixed[site] = known[into, owners]

    def first_factor(self, site: Site) -> Tensor:
        """A of every slot. [slots, rank, in]"""
        return self._fixed[site]
