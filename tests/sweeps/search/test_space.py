"""The declared space: what is asked, what a point is as a configuration, and the way back."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.configuration import parse, with_values
from mtbert.schema import ConfigError
from sweeps.file import usual_space
from sweeps.search.points import configuration_at, point_of
from sweeps.search.space import Space, distributions, parse_space, spoken, suggest, told

BASE: dict[str, Any] = {"training": {"steps": 4}}
DEFAULT = usual_space()
REFUSED = {
    "space: expected at least one parameter": {},
    "space.a: expected choices, or low and high": {"a": {}},
    "space.a.choices: expected at least one": {"a": {"choices": []}},
    "space.a.choices: expected each once": {"a": {"choices": [1, 2, 1]}},
    "space.a.choices: expected either choices or a range": {"a": {"choices": [1], "low": 1}},
    "space.a.high: expected a number above low (2), got 1": {"a": {"low": 2, "high": 1}},
    "space.a.low: expected a number above 0 with log, got 0": {"a": {"low": 0, "high": 1, "log": True}},
    "space.a.step: expected a number above 0, and": {"a": {"low": 1, "high": 2, "step": 1, "log": True}},
    "space.a.step: expected at most what lies between": {"a": {"low": 0.1, "high": 0.2, "step": 0.5}},
    "space.a.low: expected a number, got 'x'": {"a": {"low": "x", "high": 1}},
    "space.a.high: expected a finite number, got inf": {"a": {"low": 1, "high": float("inf")}},
    "space.a.steps: no such field": {"a": {"steps": 1}},
    "space.a.role: expected one of compared, nuisance": {"a": {"choices": [1], "role": "fixed"}},
    "space.a.when.b: expected another parameter of the space": {"a": {"choices": [1], "when": {"b": [1]}}},
    "space: expected some of these to hang on no other by `when`, got a, b": {
        "a": {"choices": [1], "when": {"b": [1]}},
        "b": {"choices": [1], "when": {"a": [1]}},
    },
}


def sampled(space: Space, seed: int, count: int) -> list[dict[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    return [suggest(space, study.ask()) for _ in range(count)]


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_named(message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_space(REFUSED[message])
    assert message in str(raised.value)


def test_parameters_are_asked_after_what_they_hang_on_whatever_the_order() -> None:
    given = {
        "training.warmup": {"choices": [0.0, 0.1], "when": {"low_rank.rank": [1]}},
        "low_rank.rank": {"low": 1, "high": 4},
        "biases": {"choices": ["frozen", "trained"]},
        "low_rank.kind": {"choices": ["lora", "none"]},
    }
    space = parse_space(given)
    assert list(space.parameters) == ["biases", "low_rank.kind", "low_rank.rank", "training.warmup"]
    for point in sampled(space, 0, 20):
        assert point_of(space, BASE, configuration_at(BASE, point)) == point


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_every_point_of_the_default_space_is_a_configuration_that_leads_back_to_it(seed: int) -> None:
    for point in sampled(DEFAULT, seed, 5):
        configuration = configuration_at(BASE, point)
        assert point_of(DEFAULT, BASE, configuration) == point
        assert set(distributions(DEFAULT, point)) == set(told(DEFAULT, point)) == set(point)


def test_what_hangs_on_a_place_is_asked_only_where_the_place_is() -> None:
    points = sampled(DEFAULT, 0, 200)
    for point in points:
        assert ("low_rank.rank" in point) == (point["low_rank.kind"] != "none")
        assert ("low_rank.sharing" in point) == (point["low_rank.kind"] in ("lora", "dora"))
        assert ("smart.noise" in point) == (point["smart"] != "none")
        assert ("training.schedule.constant" in point) == (point["training.schedule.kind"] == "annealed")
    kinds = {point["low_rank.kind"] for point in points}
    assert kinds == {"lora", "dora", "orthogonal", "none"}


def test_none_leaves_a_place_of_the_base_out() -> None:
    base = {"low_rank": {"kind": "lora", "rank": 4}, "parallel": {"hidden": 24}}
    configuration = configuration_at(base, {"low_rank.kind": "none", "parallel.form": "none"})
    assert configuration.low_rank is None
    assert configuration.parallel is None


def test_a_configuration_is_read_back_however_it_was_written() -> None:
    space = parse_space({"low_rank.targets": {"choices": [["query"], ["all_linear"]]}, "low_rank.alpha": 8})
    names = ["pooler", "ffn_out", "ffn_in", "attention_out", "value", "key", "query"]
    configuration = parse({**BASE, "low_rank": {"targets": names, "alpha": 8.0}})
    assert point_of(space, BASE, configuration) == {"low_rank.targets": ["all_linear"], "low_rank.alpha": 8}


def test_a_choice_that_yaml_reads_as_text_is_the_number_that_it_says() -> None:
    """YAML takes 1e-3, without a point, for text."""
    rates = {"choices": ["1e-3", "1e-2"]}
    space = parse_space({"training.learning_rate.adapters": rates, "training.learning_rate.heads": "1e-3"})
    for point in sampled(space, 0, 4):
        assert point_of(space, BASE, configuration_at(BASE, point)) == point
    assert space.parameters["training.learning_rate.adapters"].choices == (1e-3, 1e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {"training.steps": 5},  # the fixed part
        {"low_rank.rank": 9},  # above the range
        {"low_rank.rank": 3},  # off its step
        {"low_rank.dropout": 0.3},  # none of the choices
        {"biases": "trained"},
    ],
)
def test_what_is_outside_the_space_is_not_comparable(changes: dict[str, Any]) -> None:
    space = parse_space(
        {"low_rank.rank": {"low": 2, "high": 8, "step": 2}, "low_rank.dropout": {"choices": [0.0, 0.1]}}
    )
    inside = with_values(BASE, {"low_rank.rank": 4, "low_rank.dropout": 0.1})
    assert point_of(space, BASE, parse(inside)) == {"low_rank.rank": 4, "low_rank.dropout": 0.1}
    assert point_of(space, BASE, parse(with_values(inside, changes))) is None


def test_an_impossible_point_is_named() -> None:
    with pytest.raises(ConfigError, match=r"point \(form attention, hidden 13\) cannot be: .*of heads"):
        configuration_at(BASE, {"parallel.form": "attention", "parallel.hidden": 13})


def test_a_sweep_fixes_narrows_widens_and_leaves_out() -> None:
    changes = {"low_rank.kind": "lora", "low_rank.rank": {"low": 1, "high": 64}, "smart": None}
    changes |= {"smart.weight": None, "smart.noise": None}
    points = sampled(usual_space(changes), 0, 100)
    assert {point["low_rank.kind"] for point in points} == {"lora"}
    assert max(point["low_rank.rank"] for point in points) > 32
    assert not any("smart" in point for point in points)


def test_numbers_are_read_as_yaml_spells_them_and_stay_whole_where_all_are() -> None:
    space = parse_space({"a": {"low": "1e-4", "high": 1, "log": True}, "b": {"low": 1, "high": 9, "step": 4}})
    points = sampled(space, 0, 50)
    assert all(1e-4 <= point["a"] <= 1 for point in points)
    assert min(point["a"] for point in points) < 1e-3
    assert {point["b"] for point in points} == {1, 5, 9}


def test_fields_are_spoken_by_what_tells_them_apart() -> None:
    assert spoken({"a.kind": "x", "b.kind": "y", "b.rank": 0.123456}) == "a.kind x, b.kind y, rank 0.1235"
