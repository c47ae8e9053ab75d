"""Gradient surgery (PCGrad): of two tasks' conflicting gradients each is projected off the other.

Yu et al. (2020), Algorithm 1, over the parameters that several of a step's tasks share. Each task's loss
has a backward pass of its own, through one forward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from mtbert.configuration import Part
from mtbert.optimizer import Owned
from mtbert.weighting import Losses


class Surgery:
    """One member's step: the gradients of its tasks, taken one after the other and then put together.

    Attributes:
        losses: of the step's tasks, in the order in which they are to be taken.
    """

    def __init__(
        self, losses: Losses, leaves: Sequence[Owned], moving: Collection[Part], draw: np.random.Generator
    ) -> None:
        """
        Args:
            leaves: all that the member owns.
            moving: the parts that the stage trains; others have no say in what conflicts.
            draw: of the order in which the others are gone through.
        """
        self.losses = list(losses.values())
        self._tasks = list(losses)
        self._leaves, self._moving = leaves, moving
        self._orders = drawn_orders(len(losses), draw)
        self._taken: list[list[Tensor | None]] = []  # by task and leaf

    def take(self, member: int) -> None:
        """Copy what the backward pass of the next task's loss gave the leaves that it touched."""
        task = self._tasks[len(self._taken)]
        self._taken.append(
            [leaf.take_gradient() if leaf.touched(member, [task]) else None for leaf in self._leaves]
        )

    def put_together(self) -> None:
        """Give each leaf the sum of the tasks' gradients, those of shared leaves projected."""
        by_leaf = list(zip(self._leaves, zip(*self._taken, strict=True), strict=True))
        shared = [leaf.part in self._moving and _count(found) > 1 for leaf, found in by_leaf]
        products = inner_products(
            found for (_, found), is_shared in zip(by_leaf, shared, strict=True) if is_shared
        )
        ones = [1.0] * len(self._tasks)
        factors = ones if products is None else combined(products, self._orders)
        for (leaf, found), is_shared in zip(by_leaf, shared, strict=True):
            parts = zip(factors if is_shared else ones, found, strict=True)
            terms = [factor * gradient for factor, gradient in parts if gradient is not None]
            if terms:
                leaf.put_gradient(torch.stack(terms).sum(0))


def drawn_orders(tasks: int, draw: np.random.Generator) -> list[list[int]]:
    """For each task the others, in the order in which it is projected off them."""
    return [[other for other in draw.permutation(tasks).tolist() if other != task] for task in range(tasks)]


def inner_products(leaves: Iterable[Sequence[Tensor | None]]) -> Tensor | None:
    """g_i·g_j of the tasks' gradients over all these leaves; None if there are none. [tasks, tasks]

    Args:
        leaves: each one's gradient by task, None where a task has none.
    """
    total: Tensor | None = None
    for found in leaves:
        like = next(gradient for gradient in found if gradient is not None)
        rows = torch.stack([(torch.zeros_like(like) if of is None else of).flatten() for of in found])
        total = rows @ rows.T if total is None else total + rows @ rows.T
    return total


def combined(products: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """By what each task's gradient is multiplied in the sum of the projected ones. [tasks]

    Every projected gradient is a sum of the tasks' own, Σ c_k g_k, so that the c and the inner products
    [tasks, tasks] say all. A gradient that is not finite is in the sum whatever it is compared with, so
    that no comparison hides it; one without length conflicts with nothing.
    """
    own = torch.eye(len(products), dtype=products.dtype, device=products.device)
    projected = []
    for task, order in enumerate(orders):
        c = own[task]
        for other in order:
            product, square = c @ products[other], products[other, other]
            conflict = (product < 0) & (square > 0)
            c = c - torch.where(conflict, product / square, 0.0) * own[other]
        projected.append(c)
    return torch.stack(projected).sum(0)


def _count(found: Iterable[Tensor | None]) -> int:
    return sum(gradient is not None for gradient in found)
