"""PALs of several members and tasks in one pack: each its own, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.adapters.pal import PALBank
from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.configuration import Dropout
from mtbert.data.tokenise import TokenisedData
from mtbert.dropout import step_key
from mtbert.member import initial_state
from mtbert.pack import Pack, PackHooks
from mtbert.run import Run
from tests.mtbert import toys
from tests.mtbert.adapters.contract import (
    assert_same_events,
    assert_same_state,
    batch_of,
    disturbed,
    outputs,
    packed,
)
from tests.mtbert.adapters.test_pal import LOW_RANK, OWN_RATES, pal
from tests.mtbert.test_pack import doctored, first_evaluations, planted


def test_a_task_without_one_is_left_alone(backbone: Backbone, data: TokenisedData) -> None:
    run = toys.run(parallel=pal(tasks=["para"]))
    start = {name: value.double() for name, value in initial_state(run, toys.SMALL, toys.TASKS).items()}
    other = disturbed(run)
    moved = {name: (other if name.startswith("parallel.") else start)[name] for name in start}
    assert {name.split(".")[1] for name in start if name.startswith("parallel.")} == {"para"}
    before, after = (outputs([run], [state], backbone, data)[0] for state in (start, moved))
    assert torch.equal(before["sst"], after["sst"])
    assert torch.equal(before["sts"], after["sts"])
    assert not torch.allclose(before["para"], after["para"])


@pytest.mark.parametrize("place", ["layer", "attention"])
def test_members_without_one_are_left_alone(place: str, backbone: Backbone, data: TokenisedData) -> None:
    with_one = toys.run(0, parallel=pal(place=place))
    runs = [toys.run(1), with_one, toys.run(2, low_rank=toys.lora()), toys.run(3, parallel=pal(place=place))]
    states = [disturbed(run) for run in runs]
    wild = {name: value * 100 if name.startswith("parallel.") else value for name, value in states[1].items()}
    before = outputs(runs, states, backbone, data)
    after = outputs(runs, [states[0], wild, *states[2:]], backbone, data)
    for at in (0, 2, 3):
        assert all(torch.equal(before[at][task], after[at][task]) for task in toys.TASKS)
    assert not any(torch.allclose(before[1][task], after[1][task]) for task in toys.TASKS)


def test_members_of_equal_forms_share_a_bank(backbone: Backbone) -> None:
    """Other tasks, dropout, seeds and other forms of the other layers make no other bank."""
    mixed = pal(upper={**LOW_RANK, "start": 1})
    runs = [
        toys.run(0, parallel=pal()),
        toys.run(1, parallel=pal(**OWN_RATES)),
        toys.run(2, parallel=pal(layers=[0, 1], tasks=["sst"])),
        toys.run(3, parallel=pal(place="attention")),
        toys.run(4, parallel=mixed),
        toys.run(5, parallel=pal(layers=[0])),
        toys.run(6),
    ]
    banks = packed(runs, [None] * len(runs), backbone).adapters
    assert [bank.members for bank in banks] == [
        [0, 0, 0, 1, 1, 1, 2], [3, 3, 3], [4, 4, 4, 5, 5, 5], [4, 4, 4]
    ]  # fmt: skip


def sick_and_healthy(ill_at: int) -> tuple[list[Run], str]:
    """Five runs of which one will be ill, and which of them."""
    common = {
        "precision": "float32",
        "evaluation": {"every": 5, "train_limit": 5},
        "training": {"steps": 10, "dropout": {"backbone": 0.1, "adapters": 0.1}},
    }
    runs = [
        toys.run(0, parallel=pal(), **common),
        toys.run(1, low_rank=toys.lora(), parallel=pal(place="attention"), **common),
        toys.run(2, parallel=pal(), features="mean", **common),
        toys.run(3, **common),
    ]
    ill = toys.run(9, parallel=pal(), **common)
    runs.insert(ill_at, ill)
    return runs, ill.run_id


@pytest.mark.parametrize("ill_at", [0, 2, 4], ids=["first", "in the middle", "last"])
@pytest.mark.parametrize("place", ["encoder.weight", "query.bias", "value.weight", "decoder.bias"])
def test_one_member_s_nan_leaves_the_others_bit_identical(
    place: str, ill_at: int, backbone32: Backbone, data: TokenisedData
) -> None:
    runs, ill = sick_and_healthy(ill_at)
    lone = toys.trainer(data, backbone32)
    lone.admit(next(run for run in runs if run.run_id == ill))
    sick = doctored(lone.checkpoint(ill), planted(np.nan, place))
    before, healthy = first_evaluations(runs, {}, backbone32, data)
    after, beside_ill = first_evaluations(runs, {ill: sick}, backbone32, data)
    assert after[ill].record["status"] == "diverged"  # type: ignore[union-attr]
    assert set(beside_ill) == set(healthy) - {ill}
    for run_id, checkpoint in beside_ill.items():
        one, other = unpack_tensors(healthy[run_id])[0], unpack_tensors(checkpoint)[0]
        assert_same_state(one, other, exactly=True)
        assert before[run_id].record["rows"] == after[run_id].record["rows"]  # type: ignore[union-attr]


NO_DROPOUT = {"backbone": 0.0, "attention": 0.0, "heads": 0.0}


def branches(
    pack: Pack, runs: list[Run], data: TokenisedData, rates: dict[int, Dropout] | None
) -> Iterator[tuple[int, str, Tensor]]:
    """What is added before the first layer's last LayerNorm, by member and task."""
    batch = batch_of(runs, data, 40)
    keys = {at: step_key(run.seed, 0) for at, run in enumerate(runs)}
    hooks = PackHooks(pack, batch, rates, keys)
    x = torch.randn(batch.rows, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    added = hooks.branch("layer.0", x, torch.zeros_like(x), "token")
    for span in batch.spans:
        yield span.member, span.task, added[span.rows].detach()


@pytest.mark.parametrize("of_stage", [None, 0.5], ids=["its own", "the stage's"])
def test_dropout_of_each_task_is_of_its_function_alone(
    of_stage: float | None, backbone: Backbone, data: TokenisedData
) -> None:
    """Two members in one bank, each task with its own rate; what is kept is scaled up."""
    fields: list[dict[str, Any]] = [OWN_RATES, {"dropout": 0.2, "task_dropout": {"para": 0.4}}]
    wanted = [{"sst": 0.3, "para": 0.1, "sts": 0.0}, {"sst": 0.2, "para": 0.4, "sts": 0.2}]
    runs = [toys.run(at, parallel=pal(**of)) for at, of in enumerate(fields)]
    states = [disturbed(run) for run in runs]
    pack = packed(runs, states, backbone)
    (bank,) = pack.adapters
    assert isinstance(bank, PALBank)
    dropout = dict.fromkeys((0, 1), Dropout(**NO_DROPOUT, adapters=of_stage))
    plain = {(member, task): added for member, task, added in branches(pack, runs, data, None)}
    for member, task, added in branches(pack, runs, data, dropout):
        rate = wanted[member][task] if of_stage is None else of_stage
        dropped = added == 0
        assert float(dropped.double().mean()) == pytest.approx(rate, abs=0.02 if rate else 0)
        scaled = plain[member, task] / (1 - rate)
        assert torch.allclose(added[~dropped], scaled[~dropped], rtol=1e-4)


def test_members_of_one_bank_with_other_dropout_equal_each_alone(
    backbone: Backbone, data: TokenisedData
) -> None:
    runs = [
        toys.run(0, parallel=pal(**OWN_RATES)),
        toys.run(1, parallel=pal(dropout=0.4)),
        toys.run(2, parallel=pal(tasks=["sts"])),
        toys.run(3, parallel=pal(**OWN_RATES), training={"dropout": {"adapters": 0.25}}),
        toys.run(4),
    ]
    together = toys.train(data, backbone, *runs)
    for run in runs:
        assert_same_events(together[run.run_id], toys.train_alone(data, backbone, run))
