"""Which examples a run sees, in which order: a function of its seed, whatever else it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mtbert import group
from mtbert.batches import Request
from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from mtbert.run import Run
from mtbert.tokens import TokenBatch
from tests.mtbert import toys

Seen = dict[int, list[tuple[str, list[int]]]]


def seen(
    monkeypatch: pytest.MonkeyPatch, data: TokenisedData, backbone: Backbone, *runs: Run
) -> list[list[tuple[str, list[int]]]]:
    """Each run's batches, (task, examples), in the order in which it was trained on them."""
    found: Seen = {}
    assemble = group.assemble

    def witness(requests: Sequence[Request], *arguments: Any) -> TokenBatch:
        for request in requests:
            found.setdefault(request.member, []).append((request.task, request.indices.tolist()))
        return assemble(requests, *arguments)

    monkeypatch.setattr(group, "assemble", witness)
    of = toys.trainer(data, backbone)
    for run in runs:
        of.admit(run)
    toys.finish(of)
    monkeypatch.setattr(group, "assemble", assemble)
    return [found[at] for at in range(len(runs))]


def training(**changes: Any) -> dict[str, Any]:
    """A training that is evaluated at its end alone."""
    return {"training": {"steps": 30, **changes}, "evaluation": {"every": None, "train_limit": 0}}


def stream(batches: list[tuple[str, list[int]]], task: str) -> list[int]:
    """A task's examples end to end."""
    return [index for name, indices in batches if name == task for index in indices]


def test_each_pass_holds_every_example_once_in_an_order_of_its_own(
    monkeypatch: pytest.MonkeyPatch, data: TokenisedData, backbone: Backbone
) -> None:
    run = toys.run(**training(tasks=["sts"], batch_size=12))  # 360 of 50 examples: passes end within batches
    (batches,) = seen(monkeypatch, data, backbone, run)
    assert all(len(indices) == 12 for _, indices in batches)
    examples = np.array(stream(batches, "sts")[:350]).reshape(7, 50)
    assert (np.sort(examples, axis=1) == np.arange(50)).all()
    assert len({tuple(row) for row in examples.tolist()}) == 7


def test_a_batch_may_be_larger_than_its_task_s_set(
    monkeypatch: pytest.MonkeyPatch, data: TokenisedData, backbone: Backbone
) -> None:
    run = toys.run(**training(tasks=["sts"], batch_size=120, steps=5))
    (batches,) = seen(monkeypatch, data, backbone, run)
    examples = np.array(stream(batches, "sts")).reshape(12, 50)
    assert (np.sort(examples, axis=1) == np.arange(50)).all()


def test_the_order_is_the_same_for_equal_seeds_alone_and_in_a_pack(
    monkeypatch: pytest.MonkeyPatch, data: TokenisedData, backbone: Backbone
) -> None:
    runs = [
        toys.run(4, **training(), low_rank=toys.lora(rank=1)),
        toys.run(4, **training(learning_rate={"adapters": 0.5}, dropout={"backbone": 0.5})),
        toys.run(5, **training(dropout={"backbone": 0.1})),
    ]
    alone = [seen(monkeypatch, data, backbone, run)[0] for run in runs]
    together = seen(monkeypatch, data, backbone, *runs)
    assert together == alone
    assert alone[0] == alone[1]
    assert alone[0] != alone[2]


@pytest.mark.parametrize("kind", ["proportional", "random", "round_robin", "sequential", "joint"])
def test_a_task_s_order_does_not_depend_on_the_schedule(
    kind: str, monkeypatch: pytest.MonkeyPatch, data: TokenisedData, backbone: Backbone
) -> None:
    base = toys.run(3, **training(schedule={"kind": "round_robin"}))
    other = toys.run(3, **training(schedule={"kind": kind}, batch_size=2))
    one, two = seen(monkeypatch, data, backbone, base, other)
    for task in toys.TASKS:
        both = min(len(stream(one, task)), len(stream(two, task)))
        assert stream(one, task)[:both] == stream(two, task)[:both]


def test_stages_and_tasks_have_orders_of_their_own(
    monkeypatch: pytest.MonkeyPatch, backbone: Backbone
) -> None:
    data = toys.random_data((40, 40, 40))
    run = toys.run(
        **training(steps=None, batch_size=20, schedule={"kind": "joint"}), stages=[{"steps": 2}, {"steps": 2}]
    )
    (batches,) = seen(monkeypatch, data, backbone, run)
    orders = [
        indices for task in toys.TASKS for indices in np.array(stream(batches, task)).reshape(2, 40).tolist()
    ]
    assert len({tuple(order) for order in orders}) == 6


def test_the_order_goes_on_where_a_checkpoint_left_it(
    monkeypatch: pytest.MonkeyPatch, data: TokenisedData, backbone: Backbone
) -> None:
    run = toys.run(**training(tasks=["sts"], batch_size=12), low_rank=toys.lora())
    stopped = toys.run(
        **{**training(tasks=["sts"], batch_size=12), "evaluation": {"every": 7, "train_limit": 0}},
        low_rank=toys.lora(),
    )
    (whole,) = seen(monkeypatch, data, backbone, run)
    first = toys.trainer(data, backbone)
    first.admit(stopped)
    first.advance()
    checkpoint = first.checkpoint(stopped.run_id)
    found: list[list[int]] = []
    assemble = group.assemble

    def witness(requests: Sequence[Request], *arguments: Any) -> TokenBatch:
        found.extend(request.indices.tolist() for request in requests)
        return assemble(requests, *arguments)

    monkeypatch.setattr(group, "assemble", witness)
    second = toys.trainer(data, backbone)
    second.admit(stopped, checkpoint)
    toys.finish(second)
    assert found == [indices for _, indices in whole[7:]]
