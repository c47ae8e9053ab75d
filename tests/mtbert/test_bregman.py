"""The proximal term: its average, its penalty, and that it follows a run wherever it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from mtbert.adapters.base import Admitted
from mtbert.adapters.low_rank import trained_backbone
from mtbert.batches import Request, assemble
from mtbert.bert import Backbone
from mtbert.bregman import Averages
from mtbert.checkpoint import CheckpointError, pack_tensors, unpack_tensors
from mtbert.configuration import Pairs
from mtbert.data.tokenise import TokenisedData
from mtbert.losses import divergence
from mtbert.pack import Pack
from mtbert.run import Run
from mtbert.slots import State
from mtbert.smart import by_member
from tests.mtbert import toys
from tests.mtbert.adapters.contract import assert_same_state, disturbed, packed
from tests.mtbert.smart_steps import DROPOUT, Step, smart_run, task_batch

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"low_rank": toys.lora(targets=["query", "value", "heads"]), "biases": "trained"},
    "full": {"backbone": "trained"},
    "full with frozen lora layers": {"backbone": "trained", "low_rank": toys.lora(targets=["query"])},
}


def bregman_run(kind: str, training: Mapping[str, Any] | None = None, **term: Any) -> Run:
    """A run with the proximal term alone."""
    smart = {"weight": 0, "bregman": term}
    return toys.stepwise(**KINDS[kind], smart=smart, training={"steps": 5, **(training or {})})


def part(checkpoint: bytes, name: str) -> State:
    tensors, _ = unpack_tensors(checkpoint)
    return {key.removeprefix(f"{name}."): of for key, of in tensors.items() if key.startswith(f"{name}.")}


def stepwise(run: Run, data: TokenisedData, backbone: Backbone) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The run's checkpoints at first and after every step but the last, and its evaluations."""
    of = toys.trainer(data, backbone)
    of.admit(run)
    checkpoints, records = [of.checkpoint(run.run_id)], []
    while of.members:
        records += toys.evaluations(of.advance())
        if of.members:
            checkpoints.append(of.checkpoint(run.run_id))
    return checkpoints, records


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_the_average_is_a_moving_one_of_all_that_is_trained_from_its_start_on(
    kind: str, momentum: float, backbone: Backbone, data: TokenisedData
) -> None:
    checkpoints, _ = stepwise(bregman_run(kind, momentum=momentum), data, backbone)
    expected = part(checkpoints[0], "now")
    assert_same_state(part(checkpoints[0], "average"), expected, exactly=True)
    for checkpoint in checkpoints[1:]:
        now = part(checkpoint, "now")
        expected = {name: (1 - momentum) * now[name] + momentum * value for name, value in expected.items()}
        found = part(checkpoint, "average")
        assert set(found) == set(expected)
        for name, value in found.items():
            assert torch.allclose(value, expected[name], rtol=1e-12, atol=1e-14), name
        assert momentum == 0 or toys.moved(found, now)


@pytest.mark.parametrize("task", toys.TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_is_the_weighted_divergence_from_the_averaged_model(
    kind: str, task: str, backbone: Backbone
) -> None:
    data = toys.random_data((4, 4, 4))
    run = bregman_run(kind, {"steps": 4, "tasks": [task]}, weight=2.5, momentum=0.6)
    checkpoints, records = stepwise(run, data, backbone)
    tasks = {task: toys.TASKS[task]}
    batch = assemble([Request(0, task, data.splits[task, "train"], np.arange(4), Pairs())], toys.SPECIAL, 64)

    def outputs(state: State) -> torch.Tensor:
        over = backbone.trainable_copy().requires_grad_(False)
        for name in trained_backbone(run.configuration, over.config, tasks):
            over.get_parameter(name).data.copy_(state[f"backbone.{name}"])
        pack = Pack(over, [Admitted(0, run.configuration, (task,), state)], tasks, "cpu")
        return pack.forward(batch, None, {})[0].outputs.detach()

    for at, checkpoint in enumerate(checkpoints):
        now, average = outputs(part(checkpoint, "now")), outputs(part(checkpoint, "average"))
        wanted = 2.5 * float(divergence(toys.TASKS[task], now, average).mean())
        found = toys.values(records[at], "train", "smart_penalty")[task]
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-12)
        assert (wanted > 1e-8) == (at > 0)


def test_the_averaged_model_drops_nothing_though_the_trained_one_does(
    backbone: Backbone, data: TokenisedData
) -> None:
    run = smart_run(weight=0.0, bregman={"weight": 2.0})
    state = disturbed(run)
    pack = packed([run], [state], backbone)
    step = Step(pack, task_batch(data, [run], list(toys.TASKS)), [run], DROPOUT)
    found = Averages(pack, {0: state}, None).penalties(step.batch, step.clean)  # at its start: θ̃ is θ
    whole = by_member(pack.forward(step.batch, None, {}))
    assert set(found) == {(0, task) for task in toys.TASKS}
    for key, (task, dropped) in by_member(step.clean).items():
        wanted = 2 * divergence(task, dropped, whole[key][1]).mean()
        assert torch.allclose(found[key], wanted, rtol=1e-12)
        assert float(wanted.detach()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_without_momentum_and_dropout_nothing_is_held_back(
    kind: str, backbone: Backbone, data: TokenisedData
) -> None:
    plain = toys.stepwise(**KINDS[kind], training={"steps": 5})
    reference = toys.weights(toys.ended(toys.train_alone(data, backbone, plain)))

    def trained(**term: Any) -> State:
        return toys.weights(toys.ended(toys.train_alone(data, backbone, bregman_run(kind, **term))))

    assert_same_state(trained(weight=5.0, momentum=0.0), reference)
    assert toys.moved(trained(weight=5.0, momentum=0.9), reference)


@pytest.mark.parametrize("kind", KINDS)
def test_a_heavy_term_keeps_outputs_near_the_start(
    kind: str, backbone: Backbone, data: TokenisedData
) -> None:
    def last_penalty(weight: float) -> float:
        records = stepwise(bregman_run(kind, {"steps": 12}, weight=weight, momentum=0.99), data, backbone)[1]
        of_tasks = [
            v for record in records[-4:] for v in toys.values(record, "train", "smart_penalty").values()
        ]
        assert None not in of_tasks
        return float(np.sum(of_tasks)) / weight

    assert last_penalty(100.0) < 0.75 * last_penalty(1e-3)


def test_a_checkpoint_without_its_averages_is_refused(backbone: Backbone, data: TokenisedData) -> None:
    run = bregman_run("lora")
    of = toys.trainer(data, backbone)
    of.admit(run)
    tensors, facts = unpack_tensors(of.checkpoint(run.run_id))
    lacking = {name: of for name, of in tensors.items() if name != "average.heads.sst.weight"}
    with pytest.raises(CheckpointError, match=r"average\.heads\.sst\.weight"):
        toys.trainer(data, backbone).admit(run, pack_tensors(lacking, facts))


def test_a_run_without_the_term_keeps_no_average(backbone: Backbone, data: TokenisedData) -> None:
    run = toys.run(low_rank=toys.lora(), smart={})
    of = toys.trainer(data, backbone)
    of.admit(run)
    of.admit(bregman_run("lora"))
    assert not part(of.checkpoint(run.run_id), "average")
