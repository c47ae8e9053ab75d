"""Which task each step takes, by every schedule, against what the reports say of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from mtbert.configuration import parse
from mtbert.schedules import JOINT, Plan, plan, total_steps
from mtbert.schema import ConfigError

SIZES = {"sst": 40, "para": 100, "sts": 15}
REPORT_004 = {"sst": 8544 + 1701, "para": 282_841, "sts": 6040}
"""Training examples of report 004's appendix A: CFIMDB joined into SST, as its section 5.1 has it."""
KINDS = ["proportional", "random", "round_robin", "annealed", "sequential", "random_epoch", "joint"]


def planned(sizes: dict[str, int] = SIZES, seed: int = 0, index: int = 0, **training: Any) -> Plan:
    return plan(parse({"training": {"batch_size": 10, **training}}).training, sizes, seed, index)


def names(of: Plan) -> list[str]:
    return [of.tasks[choice] for choice in of.choice]


def runs_of(sequence: list[str]) -> list[tuple[str, int]]:
    """Equal neighbours counted together."""
    found: list[tuple[str, int]] = []
    for name in sequence:
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1] + 1)
        else:
            found.append((name, 1))
    return found


def counts_deviate(sequence: list[str], share: dict[str, float]) -> float:
    """The largest deviation of a task's count, in standard deviations."""
    counts, number = Counter(sequence), len(sequence)
    return max(abs(counts[t] - p * number) / np.sqrt(number * p * (1 - p)) for t, p in share.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_a_function_of_stage_sizes_seed_and_place(kind: str) -> None:
    one = planned(schedule={"kind": kind}, steps=60)
    assert (one.choice == planned(schedule={"kind": kind}, steps=60).choice).all()
    random = kind in ("proportional", "random", "annealed", "random_epoch")
    for other in ({"seed": 1}, {"index": 1}):
        differs = (one.choice != planned(schedule={"kind": kind}, steps=60, **other).choice).any()
        assert differs == random


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_as_many_as_asked_for(kind: str) -> None:
    assert planned(schedule={"kind": kind}, steps=37).steps == 37
    assert planned(schedule={"kind": kind}, epochs=3, steps_per_epoch=7).steps == 21


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "random_epoch"])
def test_an_epoch_is_one_pass_over_all_tasks_unless_it_is_said_otherwise(kind: str) -> None:
    passes = 10 if kind == "joint" else 4 + 10 + 2
    of = planned(schedule={"kind": kind}, epochs=2)
    assert (of.steps, int(of.epoch_ends[0])) == (2 * passes, passes)
    assert planned(schedule={"kind": kind}).steps == 3 * passes  # three epochs where nothing is said
    assert planned(schedule={"kind": kind}, epochs=2, steps_per_epoch=5).epoch_ends.tolist() == [5, 10]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_stage_s_tasks_are_taken(kind: str) -> None:
    of = planned(schedule={"kind": kind}, steps=50, tasks=["sts", "sst"])
    assert of.tasks == ("sst", "sts")  # in the order of their declaration
    if kind != "joint":
        assert set(names(of)) == {"sst", "sts"}


def test_proportional_sampling_takes_tasks_as_often_as_they_have_batches() -> None:
    sequence = names(planned(schedule={"kind": "proportional"}, steps=20_000))
    assert counts_deviate(sequence, {"sst": 4 / 16, "para": 10 / 16, "sts": 2 / 16}) < 4
    assert len(runs_of(sequence)) > 5000  # drawn for each step, not in blocks


def test_random_sampling_takes_all_tasks_alike() -> None:
    sequence = names(planned(schedule={"kind": "random"}, steps=20_000))
    assert counts_deviate(sequence, dict.fromkeys(SIZES, 1 / 3)) < 4
    assert len(runs_of(sequence)) > 5000


def test_round_robin_cycles_in_the_order_of_declaration() -> None:
    assert names(planned(schedule={"kind": "round_robin"}, steps=7)) == [
        "sst", "para", "sts", "sst", "para", "sts", "sst",
    ]  # fmt: skip


@pytest.mark.parametrize("order", [None, ["sts", "sst", "para"], ["para", "sts", "sst"]])
def test_sequential_epochs_pass_over_each_task_in_order(order: list[str] | None) -> None:
    batches = {"sst": 4, "para": 10, "sts": 2}
    wanted = [(task, batches[task]) for task in order or list(SIZES)]
    of = planned(schedule={"kind": "sequential", "order": order}, epochs=2)
    assert runs_of(names(of)) == wanted * 2
    cut = planned(schedule={"kind": "sequential", "order": order}, steps=20)
    assert names(cut) == names(of)[:20]


def test_a_shorter_sequential_epoch_is_shared_out_as_a_whole_one_is() -> None:
    of = planned(schedule={"kind": "sequential"}, epochs=2, steps_per_epoch=8)
    assert runs_of(names(of)) == [("sst", 2), ("para", 5), ("sts", 1)] * 2


def test_random_epochs_are_whole_passes_over_one_task_each() -> None:
    batches = {"sst": 4, "para": 10, "sts": 2}
    of = planned(schedule={"kind": "random_epoch"}, epochs=300)
    epochs = 0
    for task, count in runs_of(names(of)):
        assert count % batches[task] == 0
        epochs += count // batches[task]
    assert epochs == 300
    drawn = [task for task, count in runs_of(names(of)) for _ in range(count // batches[task])]
    assert counts_deviate(drawn, dict.fromkeys(SIZES, 1 / 3)) < 4


def test_random_epochs_may_have_a_length_of_their_own() -> None:
    of = planned(schedule={"kind": "random_epoch"}, epochs=30, steps_per_epoch=7)
    assert all(count % 7 == 0 for _, count in runs_of(names(of)))
    assert (of.steps, int(of.epoch_ends[0])) == (210, 7)


def test_joint_steps_take_a_batch_of_each_task() -> None:
    of = planned(schedule={"kind": "joint"}, steps=3)
    assert (of.choice == JOINT).all()
    for step in range(3):
        assert of.at(step) == [("sst", step), ("para", step), ("sts", step)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "joint"])
def test_a_step_knows_how_many_batches_of_its_task_went_before(kind: str) -> None:
    of = planned(schedule={"kind": kind}, steps=60)
    seen: Counter[str] = Counter()
    for step, task in enumerate(names(of)):
        assert of.at(step) == [(task, seen[task])]
        seen[task] += 1


def annealed_by_equation(sizes: dict[str, int], epochs: int, constant: float) -> np.ndarray:
    """Report 004, Eq. 1, term by term. [epochs, tasks]"""
    table = np.empty((epochs, len(sizes)))
    for e in range(1, epochs + 1):
        exponent = 1 - constant * (e - 1) / (epochs - 1)
        weights = [size**exponent for size in sizes.values()]
        table[e - 1] = [weight / sum(weights) for weight in weights]
    return table


@pytest.mark.parametrize("constant", [0.0, 0.8, 1.0])
def test_annealed_sampling_follows_report_004_s_equation_epoch_by_epoch(constant: float) -> None:
    epochs, per_epoch = 5, 4000
    of = planned(
        schedule={"kind": "annealed", "constant": constant}, epochs=epochs, steps_per_epoch=per_epoch
    )
    table = annealed_by_equation(SIZES, epochs, constant)
    for epoch in range(epochs):
        sequence = names(of)[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert counts_deviate(sequence, dict(zip(SIZES, table[epoch], strict=True))) < 4


def test_annealed_sampling_of_report_004_makes_the_passes_that_its_equation_gives() -> None:
    epochs, per_epoch, batch = 100, 300, 16
    of = planned(
        REPORT_004,
        schedule={"kind": "annealed", "constant": 0.8},
        epochs=epochs,
        steps_per_epoch=per_epoch,
        batch_size=batch,
    )
    assert of.steps == 30_000
    steps = annealed_by_equation(REPORT_004, epochs, 0.8).sum(axis=0) * per_epoch
    expected = {
        task: count * batch / size for (task, size), count in zip(REPORT_004.items(), steps, strict=True)
    }
    # report 004's text says about 5 / 1.5 / 7
    assert {task: round(value, 1) for task, value in expected.items()} == {
        "sst": 5.8,
        "para": 1.3,
        "sts": 7.7,
    }
    taken = Counter(names(of))
    for task, value in expected.items():
        assert taken[task] * batch / REPORT_004[task] == pytest.approx(value, rel=0.04)


@pytest.mark.parametrize("kind", ["random", "round_robin"])
def test_even_schedules_of_report_004_make_the_passes_that_it_names(kind: str) -> None:
    of = planned(REPORT_004, schedule={"kind": kind}, epochs=100, steps_per_epoch=300, batch_size=16)
    taken = Counter(names(of))
    passes = {task: taken[task] * 16 / size for task, size in REPORT_004.items()}
    for task, about in {"sst": 15, "para": 0.5, "sts": 26}.items():  # its section 5.4.2
        assert passes[task] == pytest.approx(10_000 * 16 / REPORT_004[task], rel=0.04)
        assert passes[task] == pytest.approx(about, rel=0.15)


def test_a_single_epoch_is_sampled_by_size() -> None:
    sequence = names(planned(schedule={"kind": "annealed"}, epochs=1, steps_per_epoch=9000))
    assert counts_deviate(sequence, {task: size / 155 for task, size in SIZES.items()}) < 4


def test_tasks_that_the_data_lacks_and_wrong_orders_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.tasks.*'cola'.*sst, para, sts"):
        planned(tasks=["sst", "cola"])
    with pytest.raises(ConfigError, match=r"training\.schedule\.order.*sst, para, sts"):
        planned(schedule={"kind": "sequential", "order": ["sst", "para"]})
    with pytest.raises(ConfigError, match=r"training\.schedule\.order"):
        planned(tasks=["sst"], schedule={"kind": "sequential", "order": ["sts", "sst"]})


def test_a_short_sequential_epoch_has_a_step_for_each_task() -> None:
    plan_ = planned(schedule={"kind": "sequential"}, steps_per_epoch=4, steps=8)
    assert names(plan_) == ["sst", "para", "para", "sts"] * 2
    with pytest.raises(ConfigError, match=r"steps_per_epoch: expected at least 3 with a seq.*, got 2"):
        planned(schedule={"kind": "sequential"}, steps_per_epoch=2)


def test_the_steps_of_a_run_are_those_of_its_stages() -> None:
    staged = parse(
        {
            "training": {"batch_size": 10},
            "stages": [
                {"steps": 5},
                {"epochs": 2, "tasks": ["sst"]},
                {"epochs": 1, "schedule": {"kind": "joint"}},
            ],
        }
    )
    assert total_steps(staged, SIZES, 0) == 5 + 8 + 10
    assert total_steps(parse({"training": {"batch_size": 10}}), SIZES, 0) == 48
