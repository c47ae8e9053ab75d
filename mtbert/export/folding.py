"""A trained run folded into plain layers: for each task BERT's weights, and one linear layer over them.

All of it is computed in float64 and given in float32, whatever the run was trained in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtbert.adapters.factors import key
from mtbert.export.trained import Trained
from mtbert.products import Product, products, variant_of
from mtbert.slots import State
from mtbert.techniques import CompressedHead, DoRA


class Affine(NamedTuple):
    """y = x Wᵀ + b. weight: [out, in]; bias: [out]"""

    weight: Tensor
    bias: Tensor


def is_one_backbone(trained: Trained) -> bool:
    """Whether all tasks go through the same weights of BERT."""
    low_rank = trained.configuration.low_rank
    return low_rank is None or low_rank.sharing == "shared" or len(trained.tasks) == 1


def backbone_of(trained: Trained, task: str) -> State:
    """BERT's weights as a task's examples meet them, by the names of `BertConfig.shapes`."""
    state = trained.state
    found = {name: torch.from_numpy(array.copy()) for name, array in trained.base.arrays.items()}
    for name, value in state.items():
        if name.startswith("backbone."):
            found[name.removeprefix("backbone.")] = value
        elif name.startswith("biases."):
            bias = f"{name.removeprefix('biases.')}.bias"
            found[bias] = found[bias].double() + value.double()
    for site, product in _products(trained, task):
        if not site.startswith("heads."):
            found[f"{site}.weight"] = _adapted(trained, task, site, found[f"{site}.weight"], product)
    return {name: value.float() for name, value in found.items()}


def head_of(trained: Trained, task: str) -> Affine:
    """A task's head, which is linear or two linear layers, and what adapts it, as one linear layer."""
    own = {
        name.removeprefix(f"heads.{task}."): value.double()
        for name, value in trained.state.items()
        if name.startswith(f"heads.{task}.")
    }
    weight, bias = own["weight"], own["bias"]
    if isinstance(trained.configuration.heads.of_task(task), CompressedHead):
        weight, bias = weight @ own["compression.weight"], weight @ own["compression.bias"] + bias
    for site, product in _products(trained, task):
        if site.startswith("heads."):
            weight = _adapted(trained, task, site, weight, product)
    return Affine(weight.float(), bias.float())


def magnitude(trained: Trained, task: str, site: str, weight: Tensor) -> Tensor:
    """A DoRA's m of a layer of this weight, of which its difference from ‖W‖ is kept. float64 [out]"""
    variant, _ = variant_of(trained.configuration, task)
    original: Tensor = weight.double().norm(dim=1)
    return original + trained.state[key(variant, site, "magnitude")].double()


def _products(trained: Trained, task: str) -> list[tuple[str, Product]]:
    if trained.configuration.low_rank is None:
        return []
    config = trained.base.config
    return list(products(trained.configuration, trained.state, task, config, trained.dataset.tasks))


def _adapted(trained: Trained, task: str, site: str, weight: Tensor, product: Product) -> Tensor:
    """W + s·B·A, its rows scaled to the magnitudes where there are any. float64 [out, in]"""
    summed = weight.double() + product.scale * product.b.double() @ product.a.double()
    if not isinstance(trained.configuration.low_rank, DoRA):
        return summed
    gain: Tensor = magnitude(trained, task, site, weight) / summed.norm(dim=1)
    return gain[:, None] * summed
