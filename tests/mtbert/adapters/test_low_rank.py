"""The kinds of low-rank adapter beside one another in one pack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.data.tokenise import TokenisedData
from mtbert.run import Run
from tests.mtbert import toys
from tests.mtbert.adapters.contract import assert_same_events, assert_same_state
from tests.mtbert.test_pack import doctored, first_evaluations, planted

JOINT = {"schedule": {"kind": "joint"}, "dropout": {"backbone": 0.1, "heads": 0.2}}
EVERYWHERE = ["all_linear", "heads"]


def low_rank(kind: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "rank": 3, "targets": EVERYWHERE, **fields}


def mixed_runs() -> list[Run]:
    """Kinds, sharings, ranks, dropouts, targets and encodings of pairs, mixed over equal and other sites."""
    own = {"sst": {"rank": 1, "targets": ["value"]}, "sts": {"dropout": 0.5}}
    separate = {"pairs": {"encoding": "separate"}}
    return [
        toys.run(0, low_rank=low_rank("lora", dropout=0.1), training=JOINT),
        toys.run(0, low_rank=low_rank("dora", dropout=0.1), training=JOINT),
        toys.run(1, low_rank=low_rank("dora", rank=2), training=JOINT, **separate),
        toys.run(2, low_rank=low_rank("dora", sharing="per_task", tasks=own), training={"steps": 7}),
        toys.run(0, low_rank=low_rank("orthogonal"), training=JOINT, biases="trained"),
        toys.run(1, low_rank=low_rank("orthogonal", rank=5, basis=1, dropout=0.3, tasks=own), **separate),
        toys.run(1, low_rank=low_rank("lora", rank=5, sharing="per_task", tasks=own), features="mean"),
        toys.run(3, low_rank=low_rank("lora"), training=JOINT, **separate),
        toys.run(3, low_rank=low_rank("dora", rank=4), heads={"trained": False}, biases="trained"),
        toys.run(2, low_rank=low_rank("orthogonal", targets=["query"]), training={"tasks": ["sts"]}),
    ]


def test_mixed_kinds_equal_each_alone(backbone: Backbone, data: TokenisedData) -> None:
    together = toys.train(data, backbone, *mixed_runs())
    for run in mixed_runs():
        assert_same_events(together[run.run_id], toys.train_alone(data, backbone, run))


@pytest.mark.parametrize("kind", ["lora", "dora", "orthogonal"])
def test_heads_of_other_widths_share_no_bank(kind: str, backbone: Backbone, data: TokenisedData) -> None:
    """Two sentences apart make a head twice as wide as two in one sequence."""
    runs = [
        toys.run(seed, low_rank=low_rank(kind, targets=["heads"]), pairs={"encoding": encoding})
        for seed, encoding in enumerate(["joint", "separate", "joint"])
    ]
    together = toys.train(data, backbone, *runs)
    for run in runs:
        assert_same_events(together[run.run_id], toys.train_alone(data, backbone, run))


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("dora", ".A", np.nan),
        ("dora", ".B", np.inf),
        ("dora", ".magnitude", np.nan),
        ("dora", "heads.", np.inf),
        ("orthogonal", ".B", np.nan),
    ],
)
def test_a_member_s_nan_leaves_the_others_of_its_bank_bit_identical(
    kind: str, place: str, value: float, backbone32: Backbone, data: TokenisedData
) -> None:
    common: dict[str, Any] = {
        "precision": "float32",
        "evaluation": {"every": 5, "train_limit": 5},
        "training": {**JOINT, "steps": 10},
    }
    runs = [
        toys.run(0, low_rank=low_rank(kind), **common),
        toys.run(9, low_rank=low_rank(kind, rank=2, dropout=0.1), **common),
        toys.run(1, low_rank=low_rank(kind, rank=4, tasks={}), **common),
        toys.run(2, low_rank=low_rank("dora", sharing="per_task"), **common),
        toys.run(3, low_rank=low_rank("orthogonal", dropout=0.2), **common),
        toys.run(4, low_rank=low_rank("lora"), **common),
    ]
    ill = runs[1].run_id
    lone = toys.trainer(data, backbone32)
    lone.admit(runs[1])
    sick = doctored(lone.checkpoint(ill), planted(value, place))
    before, healthy = first_evaluations(runs, {}, backbone32, data)
    after, beside_ill = first_evaluations(runs, {ill: sick}, backbone32, data)
    assert after[ill].record["status"] == "diverged"  # type: ignore[union-attr]
    assert set(beside_ill) == set(healthy) - {ill}
    for run_id, checkpoint in beside_ill.items():
        one, other = unpack_tensors(healthy[run_id])[0], unpack_tensors(checkpoint)[0]
        assert_same_state(one, other, exactly=True)
        assert before[run_id].record["rows"] == after[run_id].record["rows"]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["dora", "orthogonal"])
def test_padding_stays_exactly_zero(kind: str, backbone: Backbone, data: TokenisedData) -> None:
    """Spare ranks, and sites that a slot does not adapt, through AdamW with weight decay and dropout."""
    training = {**JOINT, "weight_decay": {"adapters": 0.1}}
    sharing = {"sharing": "per_task"} if kind == "dora" else {}
    own = {"sst": {"rank": 1, "targets": ["value"]}, "para": {"targets": ["ffn_in", "value"]}}
    run = toys.run(low_rank=low_rank(kind, dropout=0.2, tasks=own, **sharing), training=training)
    of = toys.trainer(data, backbone)
    of.admit(run)
    of.advance()
    bank = of._of_run[run.run_id].pack.adapters[0]
    spare = torch.ones_like(bank.stack.values, dtype=torch.bool)
    for slot, mine in enumerate(spare):
        state = {extent.key: torch.zeros(extent.shape) for extent in bank.stack.extents[slot].values()}
        flags = mine.double()
        bank.stack.write(flags, slot, state)
        mine.copy_(flags.bool())
    assert spare.any()
    assert (bank.stack.values[spare] == 0).all()
    assert (bank.stack.values[~spare] != 0).all()
