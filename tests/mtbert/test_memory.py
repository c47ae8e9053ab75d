"""What becomes of a pack, and of its evaluations, when memory runs out in the middle of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.data.tokenise import TokenisedData
from mtbert.group import Group
from mtbert.memory import is_out_of_memory
from mtbert.pack import Pack
from mtbert.records import Returned
from mtbert.run import Run
from tests.mtbert import toys
from tests.mtbert.adapters.contract import assert_same_events

SHORT = "CUDA out of memory. Tried to allocate 2 GiB"
DROPOUT = {"dropout": {"backbone": 0.1, "heads": 0.2}}


def runs(count: int) -> list[Run]:
    return [
        toys.run(seed, low_rank=toys.lora(), weighting={"kind": "huq_pervin"}, training=DROPOUT)
        for seed in range(count)
    ]


def short_of_room_for(most: int, patch: pytest.MonkeyPatch) -> None:
    """Memory runs out after a pack's forward pass, before its backward pass, where members are more."""
    backward = Group._backward

    def limited(self: Group, losses: Any) -> None:
        if len(self.members) > most:
            raise torch.OutOfMemoryError(SHORT)
        backward(self, losses)

    patch.setattr(Group, "_backward", limited)


def test_the_youngest_are_given_back_with_their_checkpoints_and_nobody_notices(
    backbone: Backbone, data: TokenisedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toys.trainer(data, backbone)
    for run in runs(3):
        trainer.admit(run)
    events: dict[str, list[toys.Event]] = {run.run_id: [] for run in runs(6)}
    for event in trainer.advance():
        events[event.run_id].append(event)
    for run in runs(6)[3:]:
        trainer.admit(run)
    short_of_room_for(4, monkeypatch)
    returned = trainer.advance() + trainer.advance()
    ids = [run.run_id for run in runs(6)]
    assert [event.run_id for event in returned if isinstance(event, Returned)] == [ids[5], ids[4]]
    assert trainer.members == tuple(ids[:4])
    for event in returned:
        assert isinstance(event, Returned)
        assert (event.step, event.reason) == (0, SHORT)
    for run_id, found in toys.finish(trainer).items():
        events[run_id] += found
    later = toys.trainer(data, backbone)
    for run, event in zip(runs(6)[4:], reversed(returned), strict=True):
        assert isinstance(event, Returned)
        assert unpack_tensors(event.checkpoint)[1]["run_id"] == run.run_id
        later.admit(run, event.checkpoint)
    for run_id, found in toys.finish(later).items():
        events[run_id] += found
    monkeypatch.undo()
    for run in runs(6):
        assert_same_events(events[run.run_id], toys.train_alone(data, backbone, run))


@pytest.mark.parametrize(
    "culprit",
    [
        {"backbone": "trained", "training": DROPOUT},
        {
            "low_rank": toys.lora(),
            "weighting": {"kind": "gradient_surgery"},
            "training": {**DROPOUT, "schedule": {"kind": "joint"}},
        },
    ],
    ids=["full fine-tuning", "gradient surgery"],
)
def test_the_youngest_of_all_are_given_back_whoever_was_short(
    culprit: dict[str, Any], backbone: Backbone, data: TokenisedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is short is the oldest, in a group of its own, and has its gradients already."""
    all_runs = [toys.run(9, **culprit), *runs(4)]
    trainer = toys.trainer(data, backbone)
    for run in all_runs:
        trainer.admit(run)
    backward = Group._backward

    def limited(self: Group, losses: Any) -> None:
        backward(self, losses)
        if all_runs[0].run_id in self.members and len(trainer.members) > 3:
            raise torch.OutOfMemoryError(SHORT)

    monkeypatch.setattr(Group, "_backward", limited)
    returned = trainer.advance() + trainer.advance()
    assert [event.run_id for event in returned] == [all_runs[4].run_id, all_runs[3].run_id]
    assert all(isinstance(event, Returned) for event in returned)
    events = toys.finish(trainer)
    later = toys.trainer(data, backbone)
    for run, event in zip(all_runs[3:], reversed(returned), strict=True):
        assert isinstance(event, Returned)
        later.admit(run, event.checkpoint)
    events |= toys.finish(later)
    monkeypatch.undo()
    for run in all_runs:
        assert_same_events(events[run.run_id], toys.train_alone(data, backbone, run))


def test_a_lone_run_that_has_no_room_says_so(
    backbone: Backbone, data: TokenisedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_room_for(0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        toys.train_alone(data, backbone, runs(1)[0])


def test_evaluations_that_have_no_room_are_made_in_smaller_batches(
    backbone: Backbone, data: TokenisedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = toys.train(data, backbone, *runs(3))
    forward, largest = Pack.forward, []

    def limited(self: Pack, batch: Any, dropouts: Any, *of: Any) -> Any:
        if dropouts is None and batch.tokens > 600:
            raise torch.OutOfMemoryError(SHORT)
        largest.append(batch.tokens if dropouts is None else 0)
        return forward(self, batch, dropouts, *of)

    monkeypatch.setattr(Pack, "forward", limited)
    found = toys.train(data, backbone, *runs(3))
    assert 300 < max(largest) <= 600
    for run_id, events in found.items():
        assert_same_events(events, wanted[run_id])


def test_an_example_that_has_no_room_by_itself_says_so(
    backbone: Backbone, data: TokenisedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Pack.forward

    def limited(self: Pack, batch: Any, dropouts: Any, *of: Any) -> Any:
        if dropouts is None:
            raise torch.OutOfMemoryError(SHORT)
        return forward(self, batch, dropouts, *of)

    monkeypatch.setattr(Pack, "forward", limited)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        toys.train(data, backbone, *runs(2))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError(SHORT), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_for_want_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
