"""Small random models, tasks and data, and short ways to train on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mtbert.bert import Backbone, BertConfig
from mtbert.checkpoint import unpack_tensors
from mtbert.configuration import Configuration, merged, parse
from mtbert.data.tokenise import Ragged, SpecialTokens, TokenisedData, TokenSplit
from mtbert.records import Ended, Evaluated, Returned
from mtbert.run import Run
from mtbert.slots import State
from mtbert.tasks import Task
from mtbert.trainer import Trainer

VOCABULARY = 200
SPECIAL = SpecialTokens(cls=1, sep=2, pad=0, mask=3)
FIRST_WORD = 5
SMALL = BertConfig(
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=64,
)
TASKS = {
    "sst": Task(name="sst", kind="classification", sentences=1, classes=5),
    "para": Task(name="para", kind="binary", sentences=2),
    "sts": Task(
        name="sts", kind="regression", sentences=2, low=0.0, high=5.0, metric="pearson", score="half_up"
    ),
}
Label = Callable[[np.random.Generator, np.ndarray, np.ndarray | None], float]


def ragged(rows: Sequence[Sequence[int] | np.ndarray]) -> Ragged:
    """Lists of token ids end to end."""
    lengths = [len(row) for row in rows]
    values = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
    return Ragged(values.astype(np.int32), np.cumsum([0, *lengths]).astype(np.int64))


def random_label(task: Task) -> Label:
    """A label that no sentence tells of."""

    def label(random: np.random.Generator, first: np.ndarray, second: np.ndarray | None) -> float:  # noqa: ARG001
        return (
            random.uniform(0, 5) if task.kind == "regression" else int(random.integers(task.outputs + 1) % 5)
        )

    return label


def readable_label(task: Task) -> Label:
    """A label that the sentence's first word tells, or whether both sentences begin alike."""

    def label(random: np.random.Generator, first: np.ndarray, second: np.ndarray | None) -> float:  # noqa: ARG001
        if second is None:
            return float(first[0] % 5)
        return float(first[0] % 2) if task.kind == "binary" else float(second[0] % 6)

    return label


def random_data(
    sizes: Sequence[int] = (60, 90, 50),
    dev: int = 40,
    lengths: tuple[int, int] = (3, 14),
    seed: int = 0,
    tasks: Mapping[str, Task] = TASKS,
    label: Callable[[Task], Label] = random_label,
    words: int = VOCABULARY,
) -> TokenisedData:
    """Random sentences for the tasks: `sizes` to train on, `dev` each to evaluate on."""
    random = np.random.default_rng(seed)
    splits = {}
    for (name, task), size in zip(tasks.items(), sizes, strict=True):
        for split, count in (("train", size), ("dev", dev)):
            draw = lambda: random.integers(FIRST_WORD, words, random.integers(*lengths))  # noqa: E731
            first = [draw() for _ in range(count)]
            second = [draw() for _ in range(count)] if task.sentences == 2 else None
            of_task = label(task)
            labels = [
                of_task(random, first[at], None if second is None else second[at]) for at in range(count)
            ]
            splits[name, split] = TokenSplit(
                tuple(f"{name}-{split}-{at}" for at in range(count)),
                ragged(first),
                None if second is None else ragged(second),
                np.array(labels, dtype=np.float32),
            )
    return TokenisedData(dict(tasks), "toy data", splits, SPECIAL)


def arrays(config: BertConfig = SMALL, seed: int = 0, spread: float = 0.25) -> dict[str, np.ndarray]:
    """Random weights, larger than a pretrained model's, so that small differences show. float32"""
    random = np.random.default_rng(seed)
    found = {}
    for name, shape in config.shapes().items():
        values = random.normal(0, spread, shape)
        found[name] = (values + 1 if name.endswith("norm.weight") else values).astype(np.float32)
    return found


def backbone(precision: str = "float64", config: BertConfig = SMALL, seed: int = 0) -> Backbone:
    """A random frozen backbone."""
    return Backbone.from_arrays(config, arrays(config, seed), precision)


def configuration(**changes: Any) -> Configuration:
    """A short training in float64 with high rates, so that a few steps matter; `changes` are merged in."""
    base = {
        "precision": "float64",
        "training": {
            "steps": 6,
            "batch_size": 4,
            "learning_rate": {"adapters": 1e-2, "heads": 1e-2, "backbone": 1e-3},
            "dropout": {"backbone": 0.0, "heads": 0.0},
        },
        "evaluation": {"every": 3, "train_limit": 10},
    }
    return parse(merged(base, changes))


def run(seed: int = 0, **changes: Any) -> Run:
    """A run of such a training."""
    return Run(configuration(**changes), seed, "toy data", "toy model")


def lora(**fields: Any) -> dict[str, Any]:
    """The fields of a LoRA, of rank 4 unless they say otherwise."""
    return {"kind": "lora", "rank": 4, **fields}


def trainer(data: TokenisedData, backbone: Backbone) -> Trainer:
    """A trainer over one backbone, whatever precision is asked for."""
    return Trainer(lambda precision: backbone, data)  # noqa: ARG005


Event = Evaluated | Ended | Returned


def finish(trainer: Trainer) -> dict[str, list[Event]]:
    """Advance until nothing is left; the events by run."""
    events: dict[str, list[Event]] = {run_id: [] for run_id in trainer.members}
    while trainer.members:
        for event in trainer.advance():
            events.setdefault(event.run_id, []).append(event)
    return events


def train(data: TokenisedData, backbone: Backbone, *runs: Run) -> dict[str, list[Event]]:
    """Train these runs together from their starts to their ends."""
    of = trainer(data, backbone)
    for each in runs:
        of.admit(each)
    return finish(of)


def train_alone(data: TokenisedData, backbone: Backbone, run: Run) -> list[Event]:
    """Train one run by itself."""
    return train(data, backbone, run)[run.run_id]


def evaluations(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The records of the evaluations among these events."""
    return [event.record for event in events if isinstance(event, Evaluated)]


def ended(events: Sequence[Event]) -> Ended:
    """The one ending among these events."""
    (found,) = [event for event in events if isinstance(event, Ended)]
    return found


def values(record: Mapping[str, Any], split: str, metric: str) -> dict[str, float | None]:
    """A record's values of one metric by task."""
    return {row[1]: row[3] for row in record["rows"] if row[0] == split and row[2] == metric}


def weights(event: Ended) -> State:
    """The weights that a run kept."""
    return unpack_tensors(event.weights)[0]


def now(checkpoint: bytes) -> State:
    """What a checkpoint says a run's tensors are."""
    tensors, _ = unpack_tensors(checkpoint)
    return {name.removeprefix("now."): value for name, value in tensors.items() if name.startswith("now.")}


def after_each_step(
    run: Run, data: TokenisedData, backbone: Backbone
) -> tuple[list[State], list[dict[str, Any]]]:
    """A run's tensors at first and after every step, and its evaluations; it must evaluate at each."""
    of = trainer(data, backbone)
    of.admit(run)
    states, records = [now(of.checkpoint(run.run_id))], []
    while of.members:
        events = of.advance()
        records += evaluations(events)
        if of.members:
            states.append(now(of.checkpoint(run.run_id)))
        else:
            states.append(weights(ended(events)))
    return states, records


def stepwise(**changes: Any) -> Run:
    """A run that is evaluated at every step and keeps the last."""
    evaluation = {"every": 1, "train_limit": 0, "keep": "last", **changes.pop("evaluation", {})}
    return run(0, **changes, evaluation=evaluation)


def moved(one: State, other: State) -> set[str]:
    """The tensors that differ."""
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


def trained_tasks(records: list[dict[str, Any]]) -> list[set[str]]:
    """The tasks of each step, by the training losses that it tells."""
    return [set(values(record, "train", "training_loss")) for record in records]
