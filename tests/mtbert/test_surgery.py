"""Gradient surgery against a plain implementation, alone and in packs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.data.tokenise import TokenisedData
from mtbert.draws import generator
from mtbert.group import Group
from mtbert.member import Member, initial_state
from mtbert.run import Run
from mtbert.schema import ConfigError
from mtbert.slots import State
from mtbert.surgery import combined, drawn_orders, inner_products
from tests.mtbert import plain, toys
from tests.mtbert.adapters.contract import assert_same_events, assert_same_state

SURGERY = {"kind": "gradient_surgery"}
JOINT = {"schedule": {"kind": "joint"}}


def projected(gradients: Sequence[Tensor], orders: Sequence[Sequence[int]]) -> tuple[Tensor, int]:
    """Algorithm 1 of Yu et al. (2020) over flat gradients: their sum, and how many projections it took."""
    total, projections = torch.zeros_like(gradients[0]), 0
    for task, order in enumerate(orders):
        own = gradients[task].clone()
        for other in order:
            product = float(torch.dot(own, gradients[other]))
            if product < 0:
                own -= product / float(torch.dot(gradients[other], gradients[other])) * gradients[other]
                projections += 1
        total += own
    return total, projections


def orders_of(tasks: int, seed: int, step: int) -> list[list[int]]:
    """The orders that a run's step draws."""
    return drawn_orders(tasks, generator(seed, "surgery", step))


def operated(
    gradients: Mapping[str, plain.Gradients], orders: Sequence[Sequence[int]], of: Sequence[str]
) -> tuple[plain.Gradients, int]:
    """Named gradients after surgery on those of these names, and how many projections it took."""
    flat = [torch.cat([own[name].flatten() for name in of]) for own in gradients.values()]
    total, projections = projected(flat, orders)
    result = plain.weighted(gradients, dict.fromkeys(gradients, 1.0))
    begin = 0
    for name in of:
        size = result[name].numel()
        result[name] = total[begin : begin + size].view(result[name].shape)
        begin += size
    return result, projections


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
def test_coefficients_say_what_projecting_the_gradients_gives(tasks: int) -> None:
    """For every conflict that random gradients have, and in whatever order."""
    seen, differing = set(), 0
    for trial in range(50):
        draw = torch.Generator().manual_seed(trial)
        gradients = list(torch.randn(tasks, 6, generator=draw, dtype=torch.float64))
        found = set()
        for seed in range(3):
            orders = orders_of(tasks, seed, trial)
            products = inner_products([[g[:2] for g in gradients], [g[2:] for g in gradients]])
            assert products is not None
            mine = combined(products, orders) @ torch.stack(gradients)
            wanted, projections = projected(gradients, orders)
            assert torch.allclose(mine, wanted, rtol=1e-9, atol=1e-9)
            seen.add(projections)
            found.add(tuple(round(float(value), 9) for value in wanted))
        differing += len(found) > 1
    assert 0 in seen
    assert tasks == 1 or len(seen) > 1
    assert (differing > 0) == (tasks > 2)  # the order matters, and from three tasks on


def test_gradients_that_do_not_conflict_are_left_as_they_are() -> None:
    at_angles = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    assert combined(at_angles @ at_angles.T, orders_of(3, 0, 0)).tolist() == [1, 1, 1]
    equal = torch.tensor([[0.3, -0.7]] * 2)
    assert combined(equal @ equal.T, orders_of(2, 0, 0)).tolist() == [1, 1]


def test_opposite_gradients_come_to_nothing() -> None:
    gradients = torch.tensor([[1.0, 2.0], [-2.0, -4.0]])
    assert (combined(gradients @ gradients.T, orders_of(2, 0, 0)) @ gradients).abs().max() < 1e-6


def test_a_gradient_without_length_conflicts_with_nothing() -> None:
    gradients = torch.tensor([[1.0, -2.0], [0.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    mine = combined(gradients @ gradients.T, orders_of(3, 0, 0)) @ gradients
    wanted, projections = projected([gradients[0], gradients[2]], [[1], [0]])
    assert torch.allclose(mine, wanted)
    assert projections == 2


def test_a_gradient_whose_square_is_too_small_to_say_is_not_projected_off() -> None:
    gradients = torch.tensor([[-1e-10], [1e-23]])
    products = gradients @ gradients.T
    assert products[0, 1] < 0
    assert products[1, 1] == 0
    assert torch.isfinite(combined(products, [[1], [0]])).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden(value: float) -> None:
    gradients = torch.tensor([[1.0, value], [-1.0, -1.0], [1.0, -2.0]])
    for step in range(5):
        factors = combined(gradients @ gradients.T, orders_of(3, 0, step))
        assert not torch.isfinite(sum(f * g for f, g in zip(factors, gradients, strict=True))[1])  # type: ignore[index]


def test_the_order_is_of_the_others_and_every_order_comes() -> None:
    found: list[set[tuple[int, ...]]] = [set() for _ in range(3)]
    for step in range(60):
        for task, order in enumerate(orders_of(3, 7, step)):
            assert sorted(order) == [other for other in range(3) if other != task]
            found[task].add(tuple(order))
    assert all(len(of) == 2 for of in found)
    assert orders_of(3, 7, 5) == orders_of(3, 7, 5)


def test_surgery_trains_as_the_plain_implementation(backbone: Backbone, data: TokenisedData) -> None:
    run = toys.stepwise(
        low_rank=toys.lora(),
        weighting=SURGERY,
        training={**JOINT, "warmup": 0.0, "decay": "constant", "steps": 12},
    )
    counts: list[int] = []

    def surgery(step: plain.Step) -> plain.Gradients:
        shared = [name for name in step.state if name.startswith("low_rank.")]
        chosen, projections = operated(step.gradients, orders_of(3, run.seed, step.number), shared)
        counts.append(projections)
        return chosen

    states, _ = toys.after_each_step(run, data, backbone)
    for mine, wanted in zip(states, plain.train(run, data, backbone, surgery), strict=True):
        assert_same_state(mine, wanted)
    assert {0} < set(counts)  # steps with conflicts, and steps without


def first_gradients(run: Run, data: TokenisedData, backbone: Backbone) -> State:
    """What the first step descends on: AdamW's first moment is a tenth of it."""
    of = toys.trainer(data, backbone)
    of.admit(run)
    of.advance()
    tensors, _ = unpack_tensors(of.checkpoint(run.run_id))
    prefix = "adam.exp_avg."
    return {n.removeprefix(prefix): 10 * v for n, v in tensors.items() if n.startswith(prefix)}


PLACES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "lora and biases": ({"low_rank": toys.lora(), "biases": "trained"}, ("low_rank.", "biases.")),
    "a lora for each task, and biases": (
        {"low_rank": toys.lora(sharing="per_task"), "biases": "trained"},
        ("biases.",),
    ),
    "a lora at the heads too": (
        {"low_rank": toys.lora(targets=["query", "heads"])},
        ("low_rank.shared.layer",),
    ),
    "the backbone": ({"backbone": "trained"}, ("backbone.",)),
    "the backbone without its pooler": ({"backbone": "trained", "features": "cls"}, ("backbone.",)),
    "backbone and lora": (
        {"backbone": "trained", "low_rank": toys.lora(targets=["query"])},
        ("backbone.", "low_rank."),
    ),
    "lora alone of both": (
        {
            "backbone": "trained",
            "low_rank": toys.lora(targets=["query"]),
            "training": {"trains": ["adapters"]},
        },
        ("low_rank.",),
    ),
    "nothing shared": ({}, ()),
    "nothing shared by loras of the tasks": ({"low_rank": toys.lora(sharing="per_task")}, ()),
}


@pytest.mark.parametrize(("changes", "shared"), PLACES.values(), ids=PLACES.keys())
def test_what_tasks_share_is_operated_on_and_nothing_else(
    changes: dict[str, Any], shared: tuple[str, ...], backbone: Backbone, data: TokenisedData
) -> None:
    """A task's gradient is that of a run that weighs the others by zero."""
    training = {**JOINT, "clip": None, "steps": 2, "batch_size": 3, **changes.get("training", {})}
    most = 0
    for seed in range(3):
        common = {**changes, "training": training, "evaluation": {"every": 1, "train_limit": 0}}
        gradients = {}
        for task in toys.TASKS:
            others = {other: 0.0 for other in toys.TASKS if other != task}
            alone = toys.run(seed, **common, weighting={"weights": others})
            gradients[task] = first_gradients(alone, data, backbone)
        names = [name for name in gradients["sst"] if shared and name.startswith(shared)]
        wanted, projections = operated(gradients, orders_of(3, seed, 0), names) if names else (
            plain.weighted(gradients, dict.fromkeys(gradients, 1.0)), 0)  # fmt: skip
        assert_same_state(
            first_gradients(toys.run(seed, **common, weighting=SURGERY), data, backbone), wanted
        )
        most = max(most, projections)
    assert most > 0 or not shared


def kinds() -> list[Run]:
    """All four weightings, several of some; surgery over other tasks, rates of dropout and lengths."""
    dropout = {"dropout": {"backbone": 0.1, "attention": 0.2, "heads": 0.3}}
    return [
        toys.run(8, training={"tasks": ["sts"]}),  # so that its head is the pack's first
        toys.run(0, low_rank=toys.lora(), weighting={"weights": {"sst": 4, "sts": 10}}),
        toys.run(1, low_rank=toys.lora(rank=2), weighting=SURGERY, training={**JOINT, **dropout}),
        toys.run(2, low_rank=toys.lora(), weighting={"kind": "uncertainty"}, training=dropout),
        toys.run(3, weighting={"kind": "huq_pervin"}, training={"steps": 8, **JOINT}),
        toys.run(
            4,
            low_rank=toys.lora(sharing="per_task"),
            biases="trained",
            weighting=SURGERY,
            training={**JOINT, "tasks": ["para", "sts"], "steps": 9, "batch_size": 5},
        ),
        toys.run(5, biases="trained", weighting={"kind": "uncertainty"}, training={"tasks": ["sst"]}),
        toys.run(6, low_rank=toys.lora(rank=1), weighting={"kind": "huq_pervin"}, training=dropout),
        toys.run(7, weighting=SURGERY, training={**JOINT, "tasks": ["sts"]}),
    ]


def test_runs_of_all_weightings_equal_each_alone(backbone: Backbone, data: TokenisedData) -> None:
    for run_id, events in toys.train(data, backbone, *kinds()).items():
        (run,) = [run for run in kinds() if run.run_id == run_id]
        assert_same_events(events, toys.train_alone(data, backbone, run))


def grouped(data: TokenisedData, backbone: Backbone) -> Group:
    return Group(backbone, data, 64, "cpu")


def joined(group: Group, run: Run, state: State | None = None) -> None:
    """Admit a run, whatever its key."""
    sizes = {task: len(group.data.splits[task, "train"].ids) for task in group.data.tasks}
    member = Member(run, group.data.tasks, sizes)
    group.admit(member, initial_state(run, toys.SMALL, member.tasks) if state is None else state)


def stepped_alone(run: Run, steps: int, data: TokenisedData, backbone: Backbone) -> State:
    group = grouped(data, backbone)
    joined(group, run)
    for _ in range(steps):
        group.step()
    return group.state_of(run.run_id)


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout")
def test_one_pack_of_all_weightings_equals_each_alone(backbone: Backbone, data: TokenisedData) -> None:
    """Through joining and leaving; the trainer would put gradient surgery aside."""
    runs = kinds()
    group = grouped(data, backbone)
    for run in runs[:6]:
        joined(group, run)
    for _ in range(2):
        group.step()
    gone = {run.run_id: group.state_of(run.run_id) for run in runs[1:3]}
    for run in runs[1:3]:
        group.remove(run.run_id)
    for run in runs[6:]:
        joined(group, run)
    for _ in range(3):
        group.step()
    for run in runs[1:3]:
        assert_same_state(gone[run.run_id], stepped_alone(run, 2, data, backbone))
    stayed = [runs[0], *runs[3:6]]
    for run, steps in [*((run, 5) for run in stayed), *((run, 3) for run in runs[6:])]:
        assert_same_state(group.state_of(run.run_id), stepped_alone(run, steps, data, backbone))


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout")
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ill_at", range(5))
def test_one_member_s_nan_leaves_the_others_bit_identical(
    ill_at: int, value: float, backbone32: Backbone, data: TokenisedData
) -> None:
    common = {"precision": "float32", "training": {**JOINT, "dropout": {"backbone": 0.1}}}
    weightings = [SURGERY, {}, {"kind": "uncertainty"}, {"kind": "huq_pervin"}, SURGERY]
    runs = [
        toys.run(seed, **common, low_rank=toys.lora(rank=2 + seed), weighting=weighting)
        for seed, weighting in enumerate(weightings)
    ]
    ended: list[dict[str, State]] = []
    for ill in (None, runs[ill_at]):
        group = grouped(data, backbone32)
        for run in runs:
            state = initial_state(run, toys.SMALL, toys.TASKS)
            if run is ill:
                state["low_rank.shared.layer.0.query.A"].view(-1)[0] = value
            joined(group, run, state)
        for _ in range(3):
            group.step()
        ended.append({run.run_id: group.state_of(run.run_id) for run in runs})
    for run in runs[:ill_at] + runs[ill_at + 1 :]:
        assert_same_state(ended[0][run.run_id], ended[1][run.run_id], exactly=True)
    sick = ended[1][runs[ill_at].run_id]
    assert not all(torch.isfinite(tensor).all() for tensor in sick.values())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, r"training\.schedule\.kind"),
        ({"training": {"schedule": {"kind": "round_robin"}}}, r"training\.schedule\.kind"),
        (
            {"stages": [{"schedule": {"kind": "joint"}}, {"schedule": {"kind": "annealed"}}]},
            r"stages\[1\]\.schedule\.kind",
        ),
        ({"stages": [{"steps": 2}, {"schedule": {"kind": "joint"}}]}, r"stages\[0\]\.schedule\.kind"),
        ({"training": JOINT, "stages": [{"schedule": {"kind": "random"}}]}, r"stages\[0\]\.schedule\.kind"),
    ],
)
def test_surgery_without_joint_steps_is_refused_and_says_where(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}: expected joint with weighting: gradient_surgery"):
        toys.configuration(weighting=SURGERY, **changes)


def test_surgery_with_joint_stages_is_taken() -> None:
    stages = [{"schedule": {"kind": "joint"}, "tasks": ["sst", "sts"]}, {"schedule": {"kind": "joint"}}]
    assert len(toys.configuration(weighting=SURGERY, training={"steps": 2}, stages=stages).stages) == 2


def test_every_pair_of_tasks_can_be_operated_on(backbone: Backbone, data: TokenisedData) -> None:
    """A stage's tasks alone are in its surgery."""
    for pair in itertools.combinations(toys.TASKS, 2):
        run = toys.stepwise(
            low_rank=toys.lora(),
            weighting=SURGERY,
            training={**JOINT, "tasks": list(pair), "warmup": 0.0, "decay": "constant", "clip": None},
        )

        def surgery(step: plain.Step, run: Run = run) -> plain.Gradients:
            shared = [name for name in step.state if name.startswith("low_rank.")]
            return operated(step.gradients, orders_of(2, run.seed, step.number), shared)[0]

        states, _ = toys.after_each_step(run, data, backbone)
        wanted = plain.train(run, data, backbone, surgery)
        for mine, reference in zip(states, wanted, strict=True):
            assert_same_state(mine, {name: reference[name] for name in mine})
