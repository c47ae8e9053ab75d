"""Shortened trainings: so much shorter, and of the same shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert.configuration import parse
from mtbert.schedules import annealed, plan, total_steps
from sweeps.tables.shorten import DEV_LIMIT, FEWEST, shortened

SIZES = {"sst": 8544, "para": 141506, "sts": 6040}
KINDS = ("proportional", "random", "round_robin", "annealed", "sequential", "random_epoch", "joint")


def test_a_factor_of_one_changes_nothing() -> None:
    configuration = parse({"training": {"epochs": 10}, "evaluation": {"every": 1, "unit": "epochs"}})
    assert shortened(configuration, SIZES, 1.0) is configuration


@given(
    st.sampled_from(KINDS),
    st.sampled_from([{"epochs": 10}, {"epochs": 100, "steps_per_epoch": 300}, {"steps": 5000}, {}]),
    st.floats(1e-4, 0.9),
)
def test_a_shortened_run_has_the_factor_s_part_of_its_steps(
    kind: str, length: dict[str, Any], factor: float
) -> None:
    configuration = parse({"training": {"schedule": {"kind": kind}, "batch_size": 16, **length}})
    short = shortened(configuration, SIZES, factor)
    passes = [-(-size // 16) for size in SIZES.values()]
    epoch = length.get("steps_per_epoch") or {"joint": max(passes), "random_epoch": np.mean(passes)}.get(
        kind, sum(passes)
    )
    whole = length.get("steps") or length.get("epochs", 3) * epoch
    steps = total_steps(short, SIZES, 0)
    # steps per epoch are whole: half a step of each is lost or won at most
    assert steps == pytest.approx(max(FEWEST, whole * factor), abs=(length.get("epochs") or 3) / 2 + 1)
    assert short.training.schedule == configuration.training.schedule
    assert short.training.batch_size == 16


def test_annealing_ends_where_the_whole_run_s_ends() -> None:
    whole = parse({"training": {"epochs": 100, "steps_per_epoch": 300}}).training
    short = shortened(parse({"training": {"epochs": 100, "steps_per_epoch": 300}}), SIZES, 0.02).training
    assert (short.epochs, short.steps_per_epoch) == (100, 6)
    sizes = list(SIZES.values())
    long_course = annealed(sizes, 30_000, whole.steps_per_epoch or 0, 0.8)
    short_course = annealed(sizes, 600, short.steps_per_epoch or 0, 0.8)
    assert np.allclose(short_course, long_course[::50])


def test_sequential_epochs_keep_every_task_and_its_share() -> None:
    data = {"training": {"epochs": 10, "batch_size": 32, "schedule": {"kind": "sequential"}}}
    short = shortened(parse(data), SIZES, 0.02)
    of = plan(short.training, SIZES, 0, 0)
    passes = np.array([-(-size // 32) for size in SIZES.values()])
    shares = np.bincount(of.choice, minlength=3) / of.steps
    assert np.allclose(shares, passes / passes.sum(), atol=0.01)
    changes = int(np.count_nonzero(np.diff(of.choice))) + 1
    assert changes == 30  # ten times each of three tasks in turn


def test_each_stage_is_shortened_by_itself() -> None:
    stages = [{"steps": 3}, {"tasks": ["sst"], "epochs": 10}, {"tasks": ["sts"], "epochs": 20}]
    configuration = parse({"stages": stages, "training": {"batch_size": 64}})
    short = shortened(configuration, SIZES, 0.1)
    assert [stage.tasks for stage in short.stage_list()] == [None, ("sst",), ("sts",)]
    steps = [plan(stage, SIZES, 0, at).steps for at, stage in enumerate(short.stage_list())]
    assert steps == [3, 130, 200]  # of 3, 10 · 134 and 20 · 95; an epoch has 13 and 10 steps


@pytest.mark.parametrize(
    ("evaluation", "factor", "expected"),
    [
        ({"every": 4, "unit": "epochs"}, 0.02, (4, DEV_LIMIT)),
        ({"every": 500, "unit": "steps"}, 0.02, (10, DEV_LIMIT)),
        ({"every": 4, "unit": "epochs"}, 0.002, (1, DEV_LIMIT)),  # 60 steps: 20 epochs of three
        ({"every": 1, "unit": "epochs", "dev_limit": 50}, 0.02, (1, 50)),
        ({}, 0.02, (None, None)),
    ],
)
def test_evaluations_stay_at_their_places(
    evaluation: dict[str, Any], factor: float, expected: tuple[int | None, int | None]
) -> None:
    data = {"training": {"epochs": 100, "steps_per_epoch": 300}, "evaluation": evaluation}
    short = shortened(parse(data), SIZES, factor)
    assert (short.evaluation.every, short.evaluation.dev_limit) == expected
