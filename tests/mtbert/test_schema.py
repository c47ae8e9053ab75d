"""Dataclasses as schemas: what is refused, how it is said, and what plain data a value becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from mtbert.schema import ConfigError, build, constrained, plain


@dataclass(frozen=True)
class Round:
    kind: Literal["round"] = "round"
    radius: float = constrained(1.0, above=0)


@dataclass(frozen=True)
class Square:
    kind: Literal["square"] = "square"
    side: int = constrained(2, at_least=1, at_most=9)


@dataclass(frozen=True)
class Thing:
    name: str = "thing"
    count: int = constrained(3, at_least=0)
    share: float = constrained(0.5, at_least=0, below=1)
    heavy: bool = False
    shape: Round | Square | None = None
    inner: Round = Round()
    sizes: tuple[int, ...] | None = constrained(None, at_least=1)
    weights: Mapping[str, float] = constrained({}, at_least=0)
    extra: Any = None
    others: Mapping[str, Round] = field(default_factory=dict)


def refused(**data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(Thing, data, "thing")
    return str(caught.value)


def test_values_become_the_types_that_the_fields_ask_for() -> None:
    built = build(
        Thing,
        {
            "count": 0,
            "share": 0,
            "shape": {"kind": "square", "side": 4},
            "sizes": [3, 1],
            "weights": {"a": 2},
            "others": {"b": {"radius": "1e-3"}},
        },
        "thing",
    )
    assert built.shape == Square(side=4)
    assert built.sizes == (3, 1)
    assert built.weights == {"a": 2.0}
    assert isinstance(built.weights["a"], float)
    assert isinstance(built.share, float)
    assert built.others["b"].radius == 1e-3  # YAML 1.1 reads 1e-3 as text


@pytest.mark.parametrize("none", [None, "none"])
def test_nothing_can_be_written_in_two_ways(none: str | None) -> None:
    assert build(Thing, {"shape": none, "sizes": none}, "thing") == Thing()


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"counts": 3}, ["thing.counts", "no such field", "count"]),
        ({"zzz": 3}, ["thing.zzz", "known are", "weights"]),
        ({"count": -1}, ["thing.count", "at least 0", "-1"]),
        ({"share": 1.0}, ["thing.share", "below 1", "1.0"]),
        ({"share": -0.1}, ["thing.share", "at least 0", "-0.1"]),
        ({"inner": {"radius": 0}}, ["thing.inner.radius", "above 0", "0"]),
        ({"shape": {"kind": "square", "side": 10}}, ["thing.shape.side", "at most 9", "10"]),
        ({"sizes": [1, 0]}, ["thing.sizes[1]", "at least 1", "0"]),
        ({"weights": {"a": -2}}, ["thing.weights.a", "at least 0", "-2"]),
        ({"count": 2.5}, ["thing.count", "whole number", "2.5"]),
        ({"count": True}, ["thing.count", "whole number", "True"]),
        ({"count": "3"}, ["thing.count", "whole number", "'3'"]),
        ({"share": "much"}, ["thing.share", "a number", "'much'"]),
        ({"share": float("nan")}, ["thing.share", "finite", "nan"]),
        ({"share": "inf"}, ["thing.share", "finite", "inf"]),
        ({"share": False}, ["thing.share", "a number", "False"]),
        ({"heavy": 1}, ["thing.heavy", "true or false", "1"]),
        ({"name": 3}, ["thing.name", "text", "3"]),
        ({"sizes": 3}, ["thing.sizes", "a list", "3"]),
        ({"weights": [1]}, ["thing.weights", "a mapping", "[1]"]),
        ({"inner": 3}, ["thing.inner", "a mapping", "3"]),
        ({"shape": {"kind": "oval"}}, ["thing.shape.kind", "round, square", "'oval'"]),
        ({"shape": {"side": 2}}, ["thing.shape.side", "no such field"]),  # the first kind where none is named
        ({"shape": "round"}, ["thing.shape", "kind", "'round'"]),
        ({"shape": {"kind": ["round"]}}, ["thing.shape.kind", "round, square", "['round']"]),
        ({"weights": {None: 1}}, ["thing.weights", "names", "None", "in quotes"]),
        ({"weights": {True: 1}}, ["thing.weights", "names", "True", "in quotes"]),
        ({"others": {"a": {"size": 1}}}, ["thing.others.a.size", "no such field", "radius"]),
    ],
)
def test_a_refusal_names_the_field_what_it_takes_and_what_it_was_given(
    data: dict[str, Any], parts: list[str]
) -> None:
    message = refused(**data)
    for part in parts:
        assert part in message


def test_what_is_not_a_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"thing: expected a mapping of Thing fields, got \[\]"):
        build(Thing, [], "thing")


def test_a_field_that_must_be_given_is_asked_for_by_name() -> None:
    @dataclass(frozen=True)
    class Strict:
        name: str

    with pytest.raises(ConfigError, match=r"strict.*name"):
        build(Strict, {}, "strict")


def test_a_dataclass_s_own_refusal_is_put_in_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^outer\.inner\.low: too low$"):
        build(Outer, {"inner": {}}, "outer")


@dataclass(frozen=True)
class Inner:
    low: int = 0

    def __post_init__(self) -> None:
        raise ConfigError(".low: too low")


@dataclass(frozen=True)
class Outer:
    inner: Inner | None = None


def test_plain_data_leaves_defaults_out_and_builds_the_same_again() -> None:
    data = {
        "sizes": [3, 1],
        "shape": {"kind": "square"},
        "weights": {"b": 1.0, "a": 2.0},
        "others": {"c": {"kind": "round", "radius": 2.0}},
        "inner": {"kind": "round", "radius": 4.0},
    }
    built = build(Thing, {**data, "count": 3, "heavy": False}, "thing")
    assert plain(built) == data
    assert build(Thing, plain(built), "thing") == built
    assert plain(Thing()) == {}


def test_a_new_field_with_a_default_changes_no_plain_data() -> None:
    @dataclass(frozen=True)
    class Newer(Round):
        colour: str = "red"
        marks: Mapping[str, float] = field(default_factory=dict)

    assert plain(build(Newer, {"radius": 3}, "x")) == plain(build(Round, {"radius": 3}, "x"))


def test_a_list_may_hold_several_kinds_of_values_for_any() -> None:
    assert build(Thing, {"extra": [1, {"a": None}]}, "thing").extra == [1, {"a": None}]
