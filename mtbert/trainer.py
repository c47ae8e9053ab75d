"""The trainer: admits runs, advances them together, says what happened, lets them go."""

from __future__ import annotations

import platform
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mtbert.bert import Backbone
from mtbert.bregman import has_average
from mtbert.checkpoint import CheckpointError, pack_tensors, unpack_tensors
from mtbert.configuration import Pairs
from mtbert.counts import count
from mtbert.data.tokenise import TokenisedData
from mtbert.evaluation import (
    Predictions,
    Row,
    all_finite,
    columns_of,
    metrics,
    predict,
    rows,
    subset,
    summarised,
)
from mtbert.features import FeatureStore
from mtbert.group import Group
from mtbert.grouping import group_key, new_group
from mtbert.member import Best, Member, check, initial_state, not_finite
from mtbert.memory import GpuMemory, is_out_of_memory
from mtbert.records import Ended, Evaluated, Returned
from mtbert.run import Run
from mtbert.slots import State

Event = Evaluated | Ended | Returned
Seen = dict[tuple[str, str], dict[str, Predictions]]
"""What is predicted, by run and split, and by task."""

CHECK_EVERY = 16  # steps between looks at the losses: each look waits for the device


class Trainer:
    """Advances any number of runs over shared data and shared frozen backbones."""

    def __init__(
        self,
        backbones: Callable[[str], Backbone],
        data: TokenisedData,
        device: str = "cpu",
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            backbones: gives the frozen backbone in a precision; asked once for each.
            device: as torch names it.
            folder: where processes of this machine that train over the same base model and data share what
                the frozen backbone gives; None keeps it in this process.
        """
        # gradients of stacked slots are views with gaps between them, which is meant
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout")
        self._backbones, self._data, self._device = backbones, data, device
        self._known_backbones: dict[str, Backbone] = {}
        self._groups: dict[Hashable, Group] = {}
        self._of_run: dict[str, Group] = {}
        self._store = FeatureStore(data, device, folder)
        self._sizes = {task: len(data.splits[task, "train"].ids) for task in data.tasks}

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self._of_run)

    def step_of(self, run_id: str) -> int:
        return self._member(run_id).step

    def admit(self, run: Run, checkpoint: bytes | None = None) -> None:
        """Take a run in, from its start or from a checkpoint.

        Raises:
            ConfigError: the configuration does not fit the data or the model.
            CheckpointError: not a checkpoint, or another run's.
            ValueError: the run is in training here already.
        """
        if run.run_id in self._of_run:
            raise ValueError(f"run {run.run_id} is in training already")
        member = Member(run, self._data.tasks, self._sizes)
        precision = run.configuration.precision
        if precision not in self._known_backbones:
            self._known_backbones[precision] = self._backbones(precision)
        backbone = self._known_backbones[precision]
        check(run.configuration, backbone.config, self._data.tasks)
        state = initial_state(run, backbone.config, member.tasks)
        optimizer: State | None = None
        average: State | None = None
        if checkpoint is not None:
            state, optimizer, average = _restore(member, checkpoint, state)
        key = group_key(run)
        if key not in self._groups:
            self._groups[key] = new_group(member, backbone, self._data, self._device, self._store)
        self._groups[key].admit(member, state, optimizer, average)
        self._of_run[run.run_id] = self._groups[key]

    def remove(self, run_id: str) -> None:
        """Let a run go; the others are not touched."""
        self._of_run.pop(run_id).remove(run_id)
        self._groups = {key: group for key, group in self._groups.items() if group.members}

    def checkpoint(self, run_id: str) -> bytes:
        """The run between two steps: adapters, heads and optimizer, and its best so far."""
        stand, member = self._of_run[run_id].stand_of(run_id), self._member(run_id)
        tensors = {f"now.{name}": value for name, value in stand.state.items()}
        tensors |= {f"adam.{name}": value for name, value in stand.optimizer.items()}
        tensors |= {f"average.{name}": value for name, value in stand.average.items()}
        tensors |= {f"loss.{task}": loss for task, loss in member.losses.items()}
        tensors |= {f"latest.{task}": loss for task, loss in member.latest_losses.items()}
        if member.best is not None:
            tensors |= {f"best.{name}": value for name, value in member.best.state.items()}
        return pack_tensors(tensors, member.facts())

    def advance(self, seconds: float = 60.0) -> list[Event]:
        """Step until some run is evaluated or ends; nothing is returned if `seconds` pass before that."""
        until = time.perf_counter() + seconds
        events: list[Event] = []
        while self._groups and not events and time.perf_counter() < until:
            for group in list(self._groups.values()):
                short_of = self._step(group)
                if short_of is not None:
                    return [*events, *self._give_back(short_of)]
                events += self._after_step(group)
        return events

    def memory(self) -> GpuMemory | None:
        """What is taken of the GPU; None for a CPU."""
        if not self._device.startswith("cuda"):
            return None
        free, total = torch.cuda.mem_get_info(self._device)
        return GpuMemory(peak_memory(self._device), total - free, total)

    def _step(self, group: Group) -> str | None:
        """Step a group's members, or none; what was said where memory ran out and somebody can be let go."""
        try:
            group.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(self._of_run) == 1:
                raise
            return str(error) or type(error).__name__
        return None

    def _give_back(self, reason: str) -> list[Event]:
        """Let the youngest quarter of all members go, with their checkpoints, whichever group was short."""
        youngest = list(self._of_run)[-max(1, len(self._of_run) // 4) :]
        returned: list[Event] = [
            Returned(run_id, reason, self.step_of(run_id), self.checkpoint(run_id)) for run_id in youngest
        ]
        for run_id in youngest:
            self.remove(run_id)
        return returned

    def _member(self, run_id: str) -> Member:
        return self._of_run[run_id].members[run_id]

    def _after_step(self, group: Group) -> list[Event]:
        """Evaluate those for whom it is time, together, and close the books of those who are through."""
        due = [member for member in group.members.values() if member.evaluation_due()]
        looked_at = [m for m in group.members.values() if m in due or m.step % CHECK_EVERY == 0]
        events: list[Event] = [self._end(group, member, "diverged") for member in not_finite(looked_at)]
        due = [member for member in due if member.run.run_id in group.members]
        if not due:
            return events
        through: list[Member] = []
        with _shared_among(due):
            seen = self._seen_by(group, due)
            records = {member.run.run_id: self._evaluate(group, member, seen) for member in due}
        for member in due:
            record = records[member.run.run_id]
            if record is None:
                events.append(self._end(group, member, "diverged"))
                continue
            events.append(Evaluated(member.run.run_id, record | _costs(member)))
            patience = member.configuration.evaluation.patience
            enough = patience is not None and member.evaluations_without_better >= patience
            if member.finished or enough:
                through.append(member)
        with _shared_among(through):
            self._evaluate_kept(group, through)
        return [*events, *(self._end(group, member, "completed") for member in through)]

    def _seen_by(self, group: Group, members: Sequence[Member]) -> Seen:
        """What members predict now on what their evaluations are on."""
        seen: Seen = {}
        for split in ("dev", "train"):
            by_limit: dict[int | None, list[Member]] = {}
            for member in members:
                settings = member.configuration.evaluation
                if split == "dev":
                    by_limit.setdefault(None if member.finished else settings.dev_limit, []).append(member)
                elif settings.train_limit:
                    by_limit.setdefault(settings.train_limit, []).append(member)
            for limit, alike in by_limit.items():
                for run_id, found in self._predict(group, alike, split, limit).items():
                    seen[run_id, split] = found
        return seen

    def _evaluate(self, group: Group, member: Member, seen: Seen) -> dict[str, Any] | None:
        """The evaluation's record, or None where an output is not finite; the best is kept on the way."""
        settings = member.configuration.evaluation
        whole = member.finished or settings.dev_limit is None
        found: list[Row] = [
            ["train", task, metric, mean] for (task, metric), mean in member.mean_losses().items()
        ]
        weights = group.changing_weights(member.run.run_id)
        found += [["train", task, "loss_weight", weight] for task, weight in weights.items()]
        dev = compared = seen[member.run.run_id, "dev"]
        if whole and settings.dev_limit is not None:  # compare with earlier steps on what they saw
            compared = {
                task: of.subset(subset(self._data.splits[task, "dev"], f"dev.{task}", settings.dev_limit))
                for task, of in dev.items()
            }
        if not all_finite(dev):
            return None
        train = seen.get((member.run.run_id, "train"), {})
        on_dev, on_train = self._metrics(member, dev, "dev"), self._metrics(member, train, "train")
        summary = summarised(self._data.tasks, on_dev)
        found += rows("dev", on_dev) + rows("train", on_train) + rows("dev", {"": summary})
        on_compared = self._metrics(member, compared, "dev")
        self._keep(group, member, on_compared, dev if whole else {}, found, summary["score"])
        return {"step": member.step, "epoch": member.epoch, "rows": found, "score": summary["score"]}

    def _predict(
        self, group: Group, members: Sequence[Member], split: str, limit: int | None
    ) -> dict[str, dict[str, Predictions]]:
        """What members predict by run and task.

        On a GPU those who encode a task's examples alike share a pass. On a CPU that gains nothing, and each
        by itself predicts the same to the last bit whoever else is there.
        """
        found: dict[tuple[str, str], Predictions] = {}
        alike: dict[tuple[str, Pairs, str | None], list[Member]] = {}
        for member in members:
            apart = member.run.run_id if self._device == "cpu" else None
            for task in member.reached_tasks:
                alike.setdefault((task, member.configuration.pairs, apart), []).append(member)
        for (task, *_), together in alike.items():
            examples = self._data.splits[task, split]
            predictions = predict(
                group.pack,
                [group.index[member.run.run_id] for member in together],
                together[0].tasks[task],
                examples,
                subset(examples, f"{split}.{task}", limit),
                self._data,
                group.max_length,
                self._device,
                group.features,
            )
            for member, of_member in zip(together, predictions, strict=True):
                found[member.run.run_id, task] = of_member
        return {
            member.run.run_id: {task: found[member.run.run_id, task] for task in member.reached_tasks}
            for member in members
        }

    def _metrics(
        self, member: Member, found: dict[str, Predictions], split: str
    ) -> dict[str, dict[str, float | None]]:
        return {
            task: metrics(member.tasks[task], of, self._data.splits[task, split])
            for task, of in found.items()
        }

    def _keep(
        self,
        group: Group,
        member: Member,
        compared: dict[str, dict[str, float | None]],
        whole: dict[str, Predictions],
        found: list[Row],
        score: float | None,
    ) -> None:
        """Keep this step's weights if they are the best so far, or the last where that is asked for.

        Args:
            compared: metrics on what every evaluation sees, by which the best is chosen.
            whole: predictions for all of dev, if these were made; `found` and `score` are then of all of it.
        """
        keep = member.configuration.evaluation.keep
        value = summarised(self._data.tasks, compared).get(keep)
        if keep in member.tasks:
            value = compared.get(keep, {}).get(member.tasks[keep].metric)
        best = member.best
        better = best is None or (value is not None and (best.value is None or value > best.value))
        nothing_to_compare = best is not None and best.value is None and value is None
        if better or nothing_to_compare:  # as before a task is reached, or with keep: last
            member.evaluations_without_better = 0
        else:
            member.evaluations_without_better += 1
            return
        columns = columns_of(whole, self._data, "dev") if whole else {}
        state = {name: tensor.cpu() for name, tensor in group.state_of(member.run.run_id).items()}
        dev_rows = [row for row in found if row[0] == "dev"]
        member.best = Best(member.step, value, state, columns, dev_rows, score)

    def _end(self, group: Group, member: Member, status: str) -> Ended:
        """Close the run's book."""
        best = member.best if status == "completed" else None
        counts = count(member.configuration, group.backbone.config, member.tasks)
        record: dict[str, Any] = {
            "status": status,
            "error": None,
            "step": member.step,
            "kept_step": None if best is None else best.step,
            "score": None if best is None else best.score,
            "metrics": {} if best is None else {f"{row[1]}.{row[2]}": row[3] for row in best.rows if row[1]},
            "trainable": counts.trainable,
            "total": counts.total,
            **_costs(member),
            "seconds_startup": member.seconds_startup,
            **surroundings(self._device),
        }
        weights = b"" if best is None else self._weights(member.run, best.state)
        self.remove(member.run.run_id)
        return Ended(member.run.run_id, record, {} if best is None else best.predictions, weights)

    def _weights(self, run: Run, state: State) -> bytes:
        """A run's weights as they are stored: with the run, and the tasks of its data in their order."""
        return pack_tensors(state, {"run": run.as_json(), "tasks": list(self._data.tasks)})

    def _evaluate_kept(self, group: Group, members: Sequence[Member]) -> None:
        """Evaluate the kept weights on all of dev, of those members where they were not."""
        kept = {member: member.best for member in members if member.best and not member.best.predictions}
        for member, best in kept.items():
            optimizer = group.stand_of(member.run.run_id).optimizer
            group.remove(member.run.run_id)
            group.admit(member, best.state, optimizer)
        found_by = self._predict(group, list(kept), "dev", None)
        for member, best in kept.items():
            dev = found_by[member.run.run_id]
            on_dev = self._metrics(member, dev, "dev")
            summary = summarised(self._data.tasks, on_dev)
            found = rows("dev", on_dev) + rows("dev", {"": summary})
            columns = columns_of(dev, self._data, "dev")
            member.best = Best(best.step, best.value, best.state, columns, found, summary["score"])


@contextmanager
def _shared_among(members: Sequence[Member]) -> Iterator[None]:
    """Books the time that the block takes as evaluation, in equal parts."""
    began = time.perf_counter()
    yield
    for member in members:
        member.seconds["evaluation"] += (time.perf_counter() - began) / len(members)


def failed(run: Run, error: BaseException, kind: str) -> Ended:
    """The ending of a run that raised: what, where, and nothing else."""
    text = "".join(traceback.format_exception(error))
    record = {
        "status": "failed",
        "error": {"kind": kind, "message": f"{type(error).__name__}: {error}", "traceback": text},
        "step": 0,
        "kept_step": None,
        "score": None,
        "metrics": {},
        "host": platform.node(),
    }
    return Ended(run.run_id, record)


def surroundings(device: str) -> dict[str, Any]:
    """Where and with what a run ended, as its record says it."""
    return {
        "peak_memory": peak_memory(device),
        "device": device_name(device),
        "host": platform.node(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def peak_memory(device: str) -> int:
    """The most bytes that this process held: on a GPU its allocations, else its resident set."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _costs(member: Member) -> dict[str, Any]:
    return {
        "tokens": member.tokens,
        "seconds_training": member.seconds["training"],
        "seconds_evaluation": member.seconds["evaluation"],
    }


def _restore(member: Member, checkpoint: bytes, initial: State) -> tuple[State, State, State]:
    """Stand where the checkpoint stood; what is trained, what its optimizer remembers, and its average."""
    tensors, facts = unpack_tensors(checkpoint)
    if facts["run_id"] != member.run.run_id:
        raise CheckpointError(f"a checkpoint of run {facts['run_id']}, expected one of {member.run.run_id}")
    parts: dict[str, State] = {"now": {}, "adam": {}, "average": {}, "loss": {}, "latest": {}, "best": {}}
    for name, value in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = value
    for part in ("now", "average") if has_average(member.configuration) else ("now",):
        missing = sorted(set(initial) - set(parts[part]))
        if missing:
            raise CheckpointError(f"a checkpoint of run {member.run.run_id} that lacks '{part}.{missing[0]}'")
    member.restore(facts, parts["loss"], parts["latest"], parts["best"])
    return parts["now"], parts["adam"], parts["average"]
