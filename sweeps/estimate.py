"""How long a run will take and how much memory, before it runs: from the ledger, or from its arithmetic."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from analysis.store.state import RunState, State
from mtbert.configuration import Configuration
from mtbert.run import Run
from sweeps.publish import Material, Workload

if TYPE_CHECKING:
    from mtbert.counts import Counts

PROCESS_BYTES = 450e6
"""A worker with torch loaded, before it holds a model."""
EFFICIENCY = 0.5
"""Of the time of a run that its linear products take, the rest being attention, dropout and the optimizer."""
START_SECONDS = 12.0
"""Ray, the keeper and the first workers."""


@dataclass(frozen=True)
class Pace:
    """Seconds that a run of so many steps takes, evaluations included, and how that is known."""

    per_step: float
    source: str


def pace(state: State, material: Material, run: Run, steps: int, device: str) -> Pace:
    """The pace of runs like this one: as earlier ones had it, or else by its arithmetic."""
    known = pace_in_ledger(state, material.model, material.data)
    if known is not None:
        return known
    work = material.workload(run.configuration)
    return pace_by_arithmetic(run.configuration, work, steps, device)


def pace_in_ledger(state: State, model: str, data: str) -> Pace | None:
    """From ended runs of this base model: those on this data where there are any."""
    ended = [run for run in state.runs.values() if run.run["model"] == model and _per_step(run)]
    same = [run for run in ended if run.run["data"] == data]
    chosen = same or ended
    if not chosen:
        return None
    what = "this model and data" if same else "this model on other data"
    return Pace(median(_per_step(run) for run in chosen), f"from {len(chosen)} earlier runs of {what}")


def pace_by_arithmetic(configuration: Configuration, work: Workload, steps: int, device: str) -> Pace:
    """From the linear layers' operations and a short measurement of what one core does of them."""
    every = configuration.evaluation.every or steps
    evaluations = max(1, steps // every)
    passes = 6 if configuration.backbone == "trained" else 4  # forward, and backward to inputs and weights
    operations = passes * work.linear * work.tokens_per_step
    operations += 2 * work.linear * work.tokens_per_evaluation * evaluations / steps
    rate = _operations_per_second(work.width)
    source = "from its operations and a short measurement of one core"
    if device != "cpu":
        source += ", so too long for a GPU"
    return Pace(operations / (rate * EFFICIENCY), source)


def memory_of_run(configuration: Configuration, counts: Counts, work: Workload) -> float:
    """Bytes that a worker needs for one run, beside the weights that all map."""
    trained = 4.0 * counts.trainable * 5  # weights, gradients, two moments, the best so far
    copied = {"float32": 0.0, "bfloat16": 2.0, "float64": 8.0}[configuration.precision] * counts.total
    size = {"float32": 4, "bfloat16": 2, "float64": 8}[configuration.precision]
    kept = work.tokens_per_step * 1.5 * work.layers * work.width * 24 * size  # activations for the backward
    return PROCESS_BYTES + trained + copied + kept


def sweep_seconds(pace: Pace, steps_left: Mapping[str, int], slots: int) -> float:
    """Seconds until all are done: the work shared out, but no run faster than itself."""
    if not steps_left:
        return 0.0
    shared = max(sum(steps_left.values()) / slots, max(steps_left.values()))
    return START_SECONDS + shared * pace.per_step


def _per_step(run: RunState) -> float:
    """Seconds per step of an ended run; 0 where it says none."""
    ended = run.ended or {}
    steps = ended.get("step") or 0
    seconds = (ended.get("seconds_training") or 0.0) + (ended.get("seconds_evaluation") or 0.0)
    return seconds / steps if steps else 0.0


def _operations_per_second(width: int) -> float:
    """What one core makes of a product of the model's width, measured for a fifth of a second."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rng = np.random.default_rng(0)
        tokens = torch.from_numpy(rng.standard_normal((480, width), dtype=np.float32))
        weights = torch.from_numpy(rng.standard_normal((width, 4 * width), dtype=np.float32))
        torch.mm(tokens, weights)
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < 0.2:
            torch.mm(tokens, weights)
            done += 1
        return done * 2.0 * 480 * width * 4 * width / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
