"""Merging: one model put together from runs that were trained apart, without a step (report 002, 4.2.3).

An ensemble keeps each task's own adapter. An average is W + Σ λ·s·B·A over the tasks' runs (McMahan et al.
2017; report 002, Eq. 6), of products, not of factors. Orthogonal adaptation sums products whose A's are
orthogonal to each other (Po et al. 2023). The sums are exact as one LoRA: A's stacked, λ·s·B's side by side.
Each task's head, and what adapts it, comes from its own run, and is not weighed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mtbert.adapters import low_rank
from mtbert.adapters.factors import SHARED, key, scale
from mtbert.bert import BertConfig
from mtbert.checkpoint import pack_tensors, unpack_weights
from mtbert.configuration import Configuration, Training
from mtbert.counts import count
from mtbert.evaluation import all_finite, columns_of, metrics, summarised
from mtbert.hooks import Site
from mtbert.inference import TrainedModel
from mtbert.mergeable import COMMON, MergeKind, check
from mtbert.products import Product, products, variant_of
from mtbert.records import Ended
from mtbert.run import Run
from mtbert.schema import ConfigError, build
from mtbert.slots import State
from mtbert.tasks import Task
from mtbert.techniques import Heads, LoRA, LowRank, Merge, TaskLowRank
from mtbert.trainer import surroundings

if TYPE_CHECKING:
    from mtbert.data.tokenise import TokenisedData
    from mtbert.weights import BaseModel


@dataclass(frozen=True, eq=False)
class Merged:
    """A merged model.

    Attributes:
        run: with `configuration.merge`, the LoRA that stands for the merge, and the parents' heads.
        state: its adapters and heads by name.
        trainable: the parameters that were trained for it, in all parents.
    """

    run: Run
    state: State
    trainable: int

    @property
    def weights(self) -> bytes:
        """The state as a run's best weights are stored."""
        return pack_tensors(self.state, {"run": self.run.as_json()})


@dataclass(frozen=True, eq=False)
class _Parent:
    """The run that a task comes from. `low_rank`: the task's adapter."""

    task: str
    run: Run
    state: State
    low_rank: LowRank

    @staticmethod
    def of(task: str, run: Run, weights: bytes) -> _Parent:
        _, own = variant_of(run.configuration, task)
        return _Parent(task, run, unpack_weights(weights, run.run_id), own)

    def products(self, config: BertConfig, tasks: Mapping[str, Task]) -> Iterator[tuple[Site, Product]]:
        """What the adapter adds, by site."""
        return products(self.run.configuration, self.state, self.task, config, tasks)

    @property
    def dtype(self) -> torch.dtype:
        return next(value.dtype for name, value in self.state.items() if name.endswith(".B"))

    def head(self) -> State:
        """The task's own output layer."""
        return {name: value for name, value in self.state.items() if name.startswith(f"heads.{self.task}.")}


def merged(
    kind: MergeKind,
    parents: Mapping[str, tuple[Run, bytes]],
    tasks: Mapping[str, Task],
    config: BertConfig,
    weights: Mapping[str, float] | None = None,
) -> Merged:
    """Put a model together. Its seed is the parents' common one, or else 0.

    Args:
        parents: by task, the run that it comes from and that run's best weights; one run may serve several.
        tasks: all of the data's, in its order.
        config: of the base model.
        weights: λ by task, of all of them; None for one over their number, or 1 of an orthogonal merge.

    Raises:
        ConfigError: naming the field, of the merge or of a parent, that stands in its way.
        CheckpointError: weights that are none, or another run's.
    """
    check({task: run for task, (run, _) in parents.items()}, kind, tasks)
    runs = {task: parents[task][0] for task in tasks if task in parents}
    first = next(iter(runs.values()))
    one_seed = all(run.seed == first.seed for run in runs.values())
    names = {task: run.config_id if one_seed else run.run_id for task, run in runs.items()}
    merge = build(Merge, {"kind": kind, "parents": names, "weights": weights or {}}, "merge")
    found = [_Parent.of(task, run, parents[task][1]) for task, run in runs.items()]
    configuration = _configuration(merge, found, tasks)
    state: State = {name: value for parent in found for name, value in parent.head().items()}
    if kind == "ensemble":
        state |= _own_factors(found, config, tasks)
    else:
        state |= _stacked_factors(found, configuration, config, tasks)
    run = Run(configuration, first.seed if one_seed else 0, first.data, first.model)
    return Merged(run, state, _trainable(runs, config, tasks))


def evaluate_merged(result: Merged, base: BaseModel, data: TokenisedData, device: str = "cpu") -> Ended:
    """The merged model on all of dev, told as any other run's ending, at step 0.

    Args:
        data: tokenised by the base model's own tokenizer; only dev is read.

    Raises:
        ConfigError: another base model, or other data, than the parents'.
    """
    run = result.run
    if data.fingerprint != run.data:
        raise ConfigError(f"merge: its parents were trained on the data {run.data}, got {data.fingerprint}")
    began = time.perf_counter()
    model = TrainedModel(base, run, result.weights, data.tasks, device)
    loaded = time.perf_counter()
    dev = {task: model.predict(data, task, "dev") for task in model.tasks}
    on_dev = {task: metrics(model.tasks[task], of, data.splits[task, "dev"]) for task, of in dev.items()}
    record: dict[str, Any] = {
        "status": "completed",
        "error": None,
        "step": 0,
        "kept_step": 0,
        "score": summarised(data.tasks, on_dev)["score"],
        "metrics": {f"{task}.{name}": value for task, of in on_dev.items() for name, value in of.items()},
        "trainable": result.trainable,
        "total": count(run.configuration, base.config, model.tasks).total,
        "tokens": 0,
        "seconds_training": 0.0,
        "seconds_evaluation": time.perf_counter() - loaded,
        "seconds_startup": loaded - began,
        **surroundings(device),
    }
    if not all_finite(dev):
        nothing: dict[str, Any] = {"status": "diverged", "kept_step": None, "score": None, "metrics": {}}
        return Ended(run.run_id, record | nothing)
    return Ended(run.run_id, record, columns_of(dev, data, "dev"), result.weights)


def _configuration(merge: Merge, parents: list[_Parent], tasks: Mapping[str, Task]) -> Configuration:
    """What the merged model is, in a trained one's words."""
    first = parents[0].run.configuration
    heads = {parent.task: parent.run.configuration.heads.of_task(parent.task) for parent in parents}
    return Configuration(
        low_rank=_own_adapters(parents) if merge.kind == "ensemble" else _stacked_adapter(parents),
        heads=Heads(first.heads.trained, heads),
        training=Training(tasks=None if set(heads) == set(tasks) else tuple(heads)),
        merge=merge,
        **{name: getattr(first, name) for name in COMMON},
    )


def _own_adapters(parents: list[_Parent]) -> LoRA:
    """Each task's own adapter in one configuration; `alpha` is the whole factor, whatever made it up."""
    of_task: list[dict[str, Any]] = [
        {"rank": of.low_rank.rank, "alpha": scale(of.low_rank), "targets": of.low_rank.targets}
        for of in parents
    ]
    first = of_task[0]
    own = {
        parent.task: TaskLowRank(**{name: value for name, value in of.items() if value != first[name]})
        for parent, of in zip(parents, of_task, strict=True)
    }
    layers = parents[0].low_rank.layers
    return LoRA(**first, layers=layers, scaling="alpha", sharing="per_task", tasks=own)


def _own_factors(parents: list[_Parent], config: BertConfig, tasks: Mapping[str, Task]) -> State:
    """Their factors, by the names that one adapter for each task gives them."""
    state: State = {}
    for parent in parents:
        for site, product in parent.products(config, tasks):
            state[key(parent.task, site, "A")] = product.a
            state[key(parent.task, site, "B")] = product.b
    return state


def _stacked_adapter(parents: list[_Parent]) -> LoRA:
    """One LoRA that has room for all products, at all sites that some parent has."""
    adapters = [parent.low_rank for parent in parents]
    layers = [adapter.layers for adapter in adapters]
    known = [of for of in layers if of is not None]
    return LoRA(
        rank=sum(adapter.rank for adapter in adapters),
        targets=tuple(target for adapter in adapters for target in adapter.targets),
        layers=tuple(layer for of in known for layer in of) if len(known) == len(layers) else None,
        scaling="one",
    )


def _stacked_factors(
    parents: list[_Parent], configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]
) -> State:
    """A's one above the other and λ·s·B's side by side: their product is the sum of the products."""
    assert configuration.merge is not None
    own = {parent.task: tasks[parent.task] for parent in parents}
    like = parents[0].dtype
    shapes = low_rank.shapes(configuration, config, own)
    state = {name: torch.zeros(shape, dtype=like) for name, shape in shapes.items()}
    begin = 0
    for parent in parents:
        part = slice(begin, begin + parent.low_rank.rank)
        begin = part.stop
        for site, product in parent.products(config, tasks):
            weight = 1.0 if site.startswith("heads.") else configuration.merge.weight_of(parent.task)
            state[key(SHARED, site, "A")][part] = product.a
            state[key(SHARED, site, "B")][:, part] = weight * product.scale * product.b
    return state


def _trainable(runs: Mapping[str, Run], config: BertConfig, tasks: Mapping[str, Task]) -> int:
    """What was trained for these tasks, a run that serves several counted once."""
    by_run: dict[str, dict[str, Task]] = {}
    for task, run in runs.items():
        by_run.setdefault(run.run_id, {})[task] = tasks[task]
    of_id = {run.run_id: run.configuration for run in runs.values()}
    return sum(count(of_id[run_id], config, own).trainable for run_id, own in by_run.items())
