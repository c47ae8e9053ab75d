"""One run in training: where it stands in its stages, what it has seen, and its best so far."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mtbert import heads, weighting
from mtbert.adapters import low_rank
from mtbert.adapters.places import PLACES
from mtbert.bert import BertConfig
from mtbert.configuration import Configuration, Training
from mtbert.counts import check_training
from mtbert.run import Run
from mtbert.schedules import Plan, plan
from mtbert.schema import ConfigError
from mtbert.slots import State
from mtbert.tasks import Task
from mtbert.techniques import StaticWeights


@dataclass
class Best:
    """The evaluation whose weights are kept.

    Attributes:
        value: of what is kept by; None while it is undefined.
        predictions: columns, or empty where the evaluation did not see all of dev.
    """

    step: int
    value: float | None
    state: State
    predictions: dict[str, list[Any]] = field(default_factory=dict)
    rows: list[list[Any]] = field(default_factory=list)
    score: float | None = None


class Member:
    """A run's own course: its stages and plans, its counters, its best."""

    def __init__(self, run: Run, tasks: Mapping[str, Task], sizes: Mapping[str, int]) -> None:
        self.run = run
        self.configuration = run.configuration
        if self.configuration.merge is not None:
            raise ConfigError(
                "configuration.merge: a merged model has no steps to train; python -m mtbert merge makes it"
            )
        self.stages = self.configuration.stage_list()
        self.plans = [plan(stage, sizes, run.seed, at) for at, stage in enumerate(self.stages)]
        self.tasks = trained_tasks(self.configuration, tasks)
        self.total_steps = sum(each.steps for each in self.plans)
        self.stage_index = self.position = self.step = 0
        self.tokens = 0
        self.evaluations_without_better = 0
        self.seconds = {"training": 0.0, "evaluation": 0.0}
        self.losses: dict[str, Tensor] = {}
        self.loss_counts: dict[str, int] = {}
        self.latest_losses: dict[str, Tensor] = {}  # what HuqPervin weighs by
        self.best: Best | None = None
        self.admitted_at = time.perf_counter()
        self.seconds_startup: float | None = None

    @property
    def stage(self) -> Training:
        return self.stages[self.stage_index]

    @property
    def plan(self) -> Plan:
        return self.plans[self.stage_index]

    @property
    def reached_tasks(self) -> list[str]:
        """The tasks whose heads have been trained by now."""
        begun = self.stage_index + (self.position > 0)
        reached = {task for each in self.plans[:begun] for task in each.tasks}
        return [task for task in self.tasks if task in reached]

    @property
    def finished(self) -> bool:
        return self.step >= self.total_steps

    @property
    def epoch(self) -> float:
        """Epochs done, of all stages."""
        before = sum(each.epochs_at(each.steps) for each in self.plans[: self.stage_index])
        return before + self.plan.epochs_at(self.position)

    def took_step(self) -> bool:
        """Count a step; true where it ended a stage and another begins."""
        self.step += 1
        self.position += 1
        if self.position < self.plan.steps or self.stage_index + 1 == len(self.plans):
            return False
        self.stage_index, self.position = self.stage_index + 1, 0
        return True

    def evaluation_due(self) -> bool:
        """Whether the step just counted is one to evaluate at."""
        every = self.configuration.evaluation.every
        if self.finished:
            return True
        if every is None:
            return False
        if self.configuration.evaluation.unit == "steps":
            return self.step % every == 0
        if self.position == 0:
            return True  # a stage has ended, and with it an epoch
        done = self.plan.epochs_at(self.position)
        return done == int(done) and int(done) % every == 0

    def mean_losses(self) -> dict[tuple[str, str], float]:
        """The mean of each task's training loss since this was asked last, and of what SMART added to it.

        By (task, metric).
        """
        metrics = {"training_loss": self.tasks, "smart_penalty": map(penalty_of, self.tasks)}
        means = {
            (task, metric): float(self.losses[name]) / self.loss_counts[name]
            for metric, names in metrics.items()
            for task, name in zip(self.tasks, names, strict=True)
            if name in self.losses
        }
        self.losses, self.loss_counts = {}, {}
        return means

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says beside the tensors."""
        best = self.best
        return {
            "run_id": self.run.run_id,
            "stage": self.stage_index,
            "position": self.position,
            "step": self.step,
            "tokens": self.tokens,
            "without_better": self.evaluations_without_better,
            "seconds": self.seconds,
            "loss_counts": self.loss_counts,
            "best": None
            if best is None
            else {
                "step": best.step,
                "value": best.value,
                "predictions": best.predictions,
                "rows": best.rows,
                "score": best.score,
            },
        }

    def restore(self, facts: Mapping[str, Any], losses: State, latest: State, best: State) -> None:
        """Stand where the checkpoint stood."""
        self.stage_index, self.position, self.step = facts["stage"], facts["position"], facts["step"]
        self.tokens = facts["tokens"]
        self.evaluations_without_better = facts["without_better"]
        self.seconds = dict(facts["seconds"])
        self.losses, self.loss_counts = dict(losses), dict(facts["loss_counts"])
        self.latest_losses = dict(latest)
        if facts["best"] is not None:
            self.best = Best(**facts["best"], state=best)


def add_losses(losses: Iterable[tuple[Member, str, Tensor]]) -> None:
    """Remember a step's mean losses, and what was added to them (`penalty_of`), on their device."""
    known, new, owners = [], [], []
    for member, name, loss in losses:
        if name not in member.losses:
            member.losses[name] = loss.detach().clone()
        else:
            known.append(member.losses[name])
            new.append(loss.detach())
            owners.append((member, name))
        member.loss_counts[name] = member.loss_counts.get(name, 0) + 1
    if known:
        for (member, name), total in zip(owners, torch._foreach_add(known, new), strict=True):
            member.losses[name] = total


def not_finite(members: Sequence[Member]) -> list[Member]:
    """Those of which some remembered loss is not finite. A GPU is waited for once."""
    losses = [(member, loss) for member in members for loss in member.losses.values()]
    if not losses:
        return []
    finite = torch.isfinite(torch.stack([loss for _, loss in losses])).tolist()
    found = {id(member) for (member, _), each in zip(losses, finite, strict=True) if not each}
    return [member for member in members if id(member) in found]


def penalty_of(task: str) -> str:
    """Under what name a member remembers what was added to a task's loss; no task has a dot in its name."""
    return f"{task}.smart_penalty"


def trained_tasks(configuration: Configuration, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Those of the data's tasks that some stage of a run trains, in their order."""
    stages = configuration.stage_list()
    return {
        name: task
        for name, task in tasks.items()
        if any(stage.tasks is None or name in stage.tasks for stage in stages)
    }


def initial_state(run: Run, config: BertConfig, tasks: Mapping[str, Task]) -> State:
    """All that a run adds to the backbone, as it is before the first step."""
    configuration = run.configuration
    state: State = {}
    for place in PLACES.values():
        state |= place.initial(configuration, config, tasks, run.seed)
    for task in tasks.values():
        state |= heads.initial(task, config.hidden_size, configuration, run.seed)
    return state | weighting.initial(configuration, tasks)


def check(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> None:
    """What a configuration asks of the data and the model.

    Args:
        tasks: all of the data's.

    Raises:
        ConfigError: it names a task that it does not train, has nothing to train, or does not fit the model.
    """
    trained = trained_tasks(configuration, tasks)
    _check_names(configuration, trained)
    _check_segments(configuration, config, trained)
    low_rank.check(configuration, config, tasks, list(trained))
    check_training(configuration, config, trained)


def _check_segments(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> None:
    """A second sentence has a segment of its own, if the configuration says so."""
    pairs = configuration.pairs
    if pairs.encoding == "joint" and pairs.segment_ids and config.type_vocab_size < 2:
        for name, task in tasks.items():
            if task.sentences == 2:
                raise ConfigError(
                    "configuration.pairs.segment_ids: expected false with a model of one segment "
                    f"(type_vocab_size 1), as {name} has pairs, got true"
                )


def _check_names(configuration: Configuration, tasks: Mapping[str, Task]) -> None:
    """Every task that the configuration names is one that it trains."""
    named = dict(_named_tasks(configuration))
    if configuration.evaluation.keep not in ("score", "unscaled", "last"):
        named["evaluation.keep"] = (configuration.evaluation.keep,)
    for where, names in named.items():
        for name in names:
            if name not in tasks:
                raise ConfigError(
                    f"configuration.{where}: {name!r} is none of the trained tasks, {', '.join(tasks)}"
                )


def _named_tasks(configuration: Configuration) -> Iterator[tuple[str, Iterable[str]]]:
    """Every field that names tasks, with the names."""
    parallel, smart = configuration.parallel, configuration.smart
    yield "heads.tasks", configuration.heads.tasks
    if configuration.low_rank is not None:
        yield "low_rank.tasks", configuration.low_rank.tasks
    if parallel is not None:
        yield "parallel.tasks", parallel.tasks or ()
        yield "parallel.task_dropout", parallel.task_dropout
    if isinstance(configuration.weighting, StaticWeights):
        yield "weighting.weights", configuration.weighting.weights
    if smart is not None:
        yield "smart.weights", smart.weights
        yield "smart.noises", smart.noises
