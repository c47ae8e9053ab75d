"""Grid axes outside and a sampler inside, and start points in both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mtbert.schema import ConfigError
from sweeps.declare import Search
from sweeps.search.budget import Budget
from sweeps.search.cells import cells
from sweeps.search.finals import finals
from sweeps.search.space import parse_space
from tests.sweeps.search.test_terms import BASE, SPACE, Game

AXES = {"low_rank.kind": ["lora", "dora"], "training.batch_size": [8, 16]}


def kinds(runs: list[Any]) -> list[tuple[str, int]]:
    return [(each.point["low_rank.kind"], each.point["training.batch_size"]) for each in runs]


def test_cells_share_the_points_evenly_and_an_early_look_sees_all(tmp_path: Path) -> None:
    game = Game(tmp_path, axes=AXES, budget=Budget(points=10), top_k=1)
    done = game.play()
    assert len({each.run.run_id for each in done}) == len(done) == 10 + 4
    tried = [each for each in done if each.run.seed == 0]
    for round_ in range(2):
        assert len(set(kinds(tried[4 * round_ : 4 * round_ + 4]))) == 4
    assert sorted(Counter(kinds(tried)).values()) == [2, 2, 3, 3]
    assert set(Counter(kinds([each for each in done if each.run.seed])).values()) == {1}
    text = finals(game.quests, game.state)
    table = text[-1].splitlines()
    assert table[0] == "By cell:"
    assert [line.split()[:2] for line in table[3:]] == [
        ["lora", "8"],
        ["lora", "16"],
        ["dora", "8"],
        ["dora", "16"],
    ]
    best = game.quests.best(game.state)
    assert best is not None
    assert best.mean == max(
        each.mean for _, quest in game.quests.cells for each in quest.finalists(game.state)
    )


def test_what_others_trained_is_learnt_from_in_its_own_cell(tmp_path: Path) -> None:
    game = Game(tmp_path, axes={"low_rank.kind": ["lora", "dora"]})
    other = Search("other", {**BASE, "low_rank": {"kind": "dora"}}, SPACE)
    each = other.run({"low_rank.rank": 60, "training.warmup": 0.1}, 0, "d", "m")
    game.run(each.run, each.point, sweep="other")
    ranked = [quest.ranked(game.state) for _, quest in game.quests.cells]
    assert [len(found) for found in ranked] == [0, 1]
    done = game.play()
    assert each.run.run_id not in {one.run.run_id for one in done}
    assert [one.run.config_id for one in done if one.run.seed].count(each.run.config_id) == 1  # a finalist


def test_an_axis_of_the_space_is_fixed_in_its_place_and_another_stands_before_it() -> None:
    space = parse_space(
        {"low_rank.kind": {"choices": ["lora", "none"]}, "low_rank.rank": {"low": 1, "high": 9}}
    )
    axes = {"low_rank.rank": [2, 4], "biases": ["frozen"]}
    (_, first), _ = cells(Search("s", BASE, space, axes=axes))
    assert list(first.space.parameters) == ["biases", "low_rank.kind", "low_rank.rank"]
    assert first.space.parameters["low_rank.rank"].choices == (2,)


def test_a_cell_holds_no_point_that_leaves_its_axes_out(tmp_path: Path) -> None:
    space = parse_space(
        {
            "low_rank.kind": {"choices": ["lora", "none"]},
            "low_rank.alpha": {"low": 1, "high": 9},
            "training.warmup": {"choices": [0.0, 0.1]},
        }
    )
    axes = {"low_rank.rank": [2, 4]}
    game = Game(tmp_path, space=space, axes=axes, budget=Budget(points=4), top_k=1)
    bare = game.search.run({"low_rank.kind": "none", "training.warmup": 0.1}, 0, "d", "m")
    game.run(bare.run, bare.point, sweep="other")
    done = game.play()
    assert {(each.point["low_rank.kind"], each.point["low_rank.rank"]) for each in done} == {
        ("lora", 2),
        ("lora", 4),
    }
    assert sum(each.run.seed == 0 for each in done) == game.quests.tried(game.state) == 4
    names = list(game.quest.search.space.parameters)
    assert names == ["low_rank.kind", "low_rank.rank", "low_rank.alpha", "training.warmup"]


def test_a_cell_whose_axis_is_left_out_by_another_is_refused() -> None:
    axes = {"low_rank.rank": [2], "low_rank.kind": ["lora", "none"]}
    message = "low_rank.rank is left out where low_rank.kind is none, as in the cell with rank 2, kind none"
    with pytest.raises(ConfigError, match=message):
        cells(Search("s", BASE, SPACE, axes=axes))


def test_fewer_points_than_cells_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"budget.points: expected at least one for each of 4 cells, got 3"):
        cells(Search("s", BASE, SPACE, Budget(points=3), axes=AXES))
    with pytest.raises(ConfigError, match="biases: expected at least one value, got none"):
        Search("s", BASE, SPACE, axes={"biases": []})


def test_a_start_point_is_tried_first_and_once_in_every_cell_that_it_may_stand_in(tmp_path: Path) -> None:
    everywhere = {"low_rank.rank": 3, "training.warmup": 0.2}
    start = [everywhere, {**everywhere, "low_rank.rank": 5, "low_rank.kind": "dora"}, everywhere]
    game = Game(tmp_path, axes={"low_rank.kind": ["lora", "dora"]}, start=start)
    done = game.play()
    first = [(each.point["low_rank.kind"], each.point["low_rank.rank"]) for each in done[:3]]
    assert sorted(first) == [("dora", 3), ("dora", 5), ("lora", 3)]
    tried = [each for each in done if each.run.seed == 0]
    assert len({each.run.run_id for each in tried}) == len(tried) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"constraints": ["trainable<=5%", "para.accuracy>=0.7"]},
        {"against": "parameters"},
        {"axes": {"low_rank.kind": ["lora", "dora"]}},
    ],
)
def test_a_start_point_that_others_have_trained_is_counted_and_not_run_again(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    game = Game(tmp_path, start=[{"low_rank.rank": 7, "training.warmup": 0.1}], **changes)
    trained = [each for each in game.quests.listed(game.state) if each.point.get("low_rank.kind") != "dora"]
    game.run(trained[0].run, trained[0].point, sweep="other")
    done = game.play()
    tried = [each for each in done if each.run.seed == 0]
    assert len(tried) == 8 - 1
    assert trained[0].run.run_id not in {each.run.run_id for each in done}
    assert game.quests.tried(game.state) == 8


def test_a_start_point_takes_what_it_does_not_name_from_the_base_and_must_be_in_the_space() -> None:
    space = parse_space(
        {"low_rank.rank": {"low": 1, "high": 64}, "training.warmup": {"low": 0.0, "high": 0.5}}
    )
    (run,) = Search("s", BASE, space, start=[{"low_rank.rank": 3}]).runs("d", "m")
    assert run.point == {"low_rank.rank": 3, "training.warmup": 0.1}
    (_, first), (_, second) = cells(
        Search("s", BASE, space, axes={"biases": ["frozen", "trained"]}, start=[{"biases": "trained"}])
    )
    assert [each.point["biases"] for each in second.runs("d", "m")] == ["trained"]
    assert first.runs("d", "m") == []
    for point in ({"low_rank.rank": 99}, {"biases": "trained"}):
        with pytest.raises(ConfigError, match="start: expected a point of the space, got one outside it"):
            Search("s", BASE, space, start=[point]).runs("d", "m")
