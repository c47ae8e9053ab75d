"""Which task's batches each step takes: a pure function of the stage, the sizes and the seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mtbert.configuration import Configuration, Training
from mtbert.draws import generator
from mtbert.schema import ConfigError

JOINT = -1  # stands for every task in a plan's row


@dataclass(frozen=True, eq=False)
class Plan:
    """A stage laid out step by step.

    Attributes:
        tasks: the stage's, in order.
        choice: int64 [steps], an index into `tasks`, or `JOINT` for a batch of each.
        epoch_ends: int64, ascending: after how many steps each epoch ends; the last may end past `steps`.
    """

    tasks: tuple[str, ...]
    choice: np.ndarray
    epoch_ends: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.choice)

    def epochs_at(self, step: int) -> float:
        """How many epochs so many steps are."""
        ends = np.concatenate([[0], self.epoch_ends])
        return float(np.interp(step, ends, np.arange(len(ends))))

    def at(self, step: int) -> list[tuple[str, int]]:
        """The tasks of a step (from 0), each with how many of its batches went before."""
        choice = int(self.choice[step])
        if choice == JOINT:
            return [(task, step) for task in self.tasks]
        return [(self.tasks[choice], int(np.count_nonzero(self.choice[:step] == choice)))]


def plan(stage: Training, sizes: Mapping[str, int], seed: int, index: int) -> Plan:
    """The plan of the stage at `index` of a run.

    Args:
        sizes: training examples by task, in the order of their declaration.

    Raises:
        ConfigError: tasks that the data lacks, an order that is not one of the stage's tasks, or a sequential
            epoch without a step for each of them.
    """
    tasks = _tasks(stage, sizes)
    passes = np.array([-(-sizes[task] // stage.batch_size) for task in tasks])
    joint = stage.schedule.kind == "joint"
    whole = int(passes.max() if joint else passes.sum())
    per_epoch = stage.steps_per_epoch or whole
    draw = generator(seed, "schedule", index)
    if stage.schedule.kind == "random_epoch":
        return Plan(tasks, *_random_epochs(stage, passes, draw))
    steps = stage.steps or _epochs_wanted(stage) * per_epoch
    choices: dict[str, Callable[[], np.ndarray]] = {
        "joint": lambda: np.full(steps, JOINT),
        "round_robin": lambda: np.arange(steps) % len(tasks),
        "random": lambda: draw.integers(len(tasks), size=steps),
        "proportional": lambda: _sampled(draw, np.tile(passes / passes.sum(), (steps, 1))),
        "annealed": lambda: _sampled(
            draw, annealed([sizes[task] for task in tasks], steps, per_epoch, stage.schedule.constant)
        ),
        "sequential": lambda: _sequential(stage, tasks, passes, steps),
    }
    ends = np.arange(per_epoch, steps + per_epoch, per_epoch)
    return Plan(tasks, choices[stage.schedule.kind](), ends)


def annealed(sizes: list[int], steps: int, per_epoch: int, constant: float) -> np.ndarray:
    """Annealed sampling, p ∝ N^a with a = 1 - c (e - 1) / (E - 1) in epoch e of E.

    Stickland & Murray (2019), section 4.1; report 004, Eq. 1, where c = 0.8.

    Returns:
        Probabilities [steps, tasks].
    """
    epoch = np.arange(steps) // per_epoch
    epochs = -(-steps // per_epoch)
    exponent = 1 - constant * epoch / max(epochs - 1, 1)
    weight = np.asarray(sizes, dtype=np.float64)[None, :] ** exponent[:, None]
    result: np.ndarray = weight / weight.sum(axis=1, keepdims=True)
    return result


def total_steps(configuration: Configuration, sizes: Mapping[str, int], seed: int) -> int:
    """The steps that a run takes if nothing stops it."""
    stages = configuration.stage_list()
    return sum(plan(stage, sizes, seed, index).steps for index, stage in enumerate(stages))


def _tasks(stage: Training, sizes: Mapping[str, int]) -> tuple[str, ...]:
    wanted = tuple(sizes) if stage.tasks is None else stage.tasks
    for task in wanted:
        if task not in sizes:
            raise ConfigError(f"training.tasks: the data has no task {task!r}; it has {', '.join(sizes)}")
    order = stage.schedule.order
    if order is not None and sorted(order) != sorted(wanted):
        raise ConfigError(
            f"training.schedule.order: expected the tasks {', '.join(wanted)} in some order, got {order}"
        )
    return tuple(task for task in sizes if task in wanted)


def _epochs_wanted(stage: Training) -> int:
    return stage.epochs or 3


def _sampled(draw: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """An index for each row of probabilities, by the inverse of its distribution function."""
    uniform = draw.random(len(probabilities))[:, None]
    found = (probabilities.cumsum(axis=1) < uniform).sum(axis=1)
    choice: np.ndarray = np.minimum(found, probabilities.shape[1] - 1)
    return choice


def _random_epochs(
    stage: Training, passes: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One task drawn for each epoch, and a whole pass over it (report 004's baseline): choice, epoch ends."""
    parts: list[np.ndarray] = []
    done = 0
    while done < stage.steps if stage.steps is not None else len(parts) < _epochs_wanted(stage):
        task = int(draw.integers(len(passes)))
        parts.append(np.full(stage.steps_per_epoch or int(passes[task]), task))
        done += len(parts[-1])
    return np.concatenate(parts)[: stage.steps], np.cumsum([len(part) for part in parts])


def _sequential(stage: Training, tasks: tuple[str, ...], passes: np.ndarray, steps: int) -> np.ndarray:
    """In each epoch a pass over each task in order (report 002).

    A shorter epoch is shared out likewise, but each task has a step.
    """
    order = [tasks.index(task) for task in stage.schedule.order or tasks]
    counts = passes[order]
    if stage.steps_per_epoch is not None:
        edges = np.round(np.cumsum(counts) / counts.sum() * stage.steps_per_epoch).astype(np.int64)
        counts = np.diff(edges, prepend=0)
        if len(order) > stage.steps_per_epoch:
            raise ConfigError(
                f"training.steps_per_epoch: expected at least {len(order)} with a sequential schedule, a "
                f"step for each task, got {stage.steps_per_epoch}"
            )
        while not counts.all():
            counts[np.argmax(counts)] -= 1
            counts[np.argmin(counts)] += 1
    epoch = np.repeat(order, counts)
    return np.resize(epoch, steps)
