"""A declared grid, and its runs."""

from __future__ import annotations

import pytest

from mtbert.schema import ConfigError
from sweeps.declare import Grid

BASE = {"low_rank": {"kind": "lora"}, "training": {"steps": 10}}
AXES = {"low_rank.rank": (1, 4), "low_rank.alpha": (8.0, 16.0)}


def test_a_grid_is_every_combination_with_every_seed() -> None:
    declared = Grid("grid", BASE, AXES, 3).runs("data", "model")
    assert len(declared) == 12
    assert len({each.run.run_id for each in declared}) == 12
    assert len({each.run.config_id for each in declared}) == 4
    for each in declared:
        low_rank = each.run.configuration.low_rank
        assert low_rank is not None
        assert (low_rank.rank, low_rank.alpha) == (each.point["low_rank.rank"], each.point["low_rank.alpha"])
    assert [each.run.seed for each in declared] == [0] * 4 + [1] * 4 + [2] * 4


def test_points_that_are_one_configuration_are_one_run() -> None:
    assert len(Grid("grid", BASE, {"low_rank.rank": (4, 4)}, 1).runs("data", "model")) == 1


def test_the_same_run_has_the_same_id_in_any_grid() -> None:
    one = Grid("one", BASE, AXES, 2).runs("data", "model")
    other = Grid("other", BASE, {"low_rank.alpha": (16.0,), "low_rank.rank": (4,)}, 1).runs("data", "model")
    assert {each.run.run_id for each in other} < {each.run.run_id for each in one}


def test_what_tells_a_run_apart_is_said_shortly() -> None:
    assert Grid("grid", BASE, AXES, 1).runs("data", "model")[1].label == "rank 1, alpha 16, seed 0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "name: expected"),
        ({"name": ""}, "name: expected"),
        ({"seeds": 0}, "seeds: expected a count of at least 1, got 0"),
        ({"axes": {"low_rank.rank": ()}}, "low_rank.rank: expected at least one value"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"name": "grid", "base": BASE, "axes": AXES, "seeds": 1, **changes}
    with pytest.raises(ConfigError, match=message):
        Grid(**given)  # type: ignore[arg-type]


def test_a_point_that_cannot_be_is_refused_by_its_field() -> None:
    with pytest.raises(ConfigError, match=r"low_rank\.rank: expected a number at least 1, got 0"):
        Grid("grid", BASE, {"low_rank.rank": (0,)}, 1).runs("data", "model")
