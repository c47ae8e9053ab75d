"""The schema command: every field with its type, default and constraint, read from the dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from mtbert.__main__ import main
from mtbert.configuration import Configuration, parse
from mtbert.describe import Field, described, table
from mtbert.schema import ConfigError, constrained, plain


@dataclass(frozen=True)
class Round:
    """A circle. Its sides are none."""

    kind: Literal["round"] = "round"
    radius: float = constrained(1.0, above=0)


@dataclass(frozen=True)
class Square:
    kind: Literal["square"] = "square"
    side: int = constrained(2, at_least=1, at_most=9)


@dataclass(frozen=True)
class Thing:
    """A thing."""

    name: str
    shape: Round | Square | None = None
    inner: Round = Round()
    sizes: tuple[int, ...] | None = None
    others: Mapping[str, Round] = field(default_factory=dict)


def test_every_field_is_described_once_with_what_it_takes() -> None:
    assert list(described(Thing)) == [
        Field("name", "", "text", "", None, True, "A thing."),
        Field("shape", "", "round | square | none", "", None, False, ""),
        Field("shape.radius", "round", "number", "above 0", 1.0, False, "A circle. Its sides are none."),
        Field("shape.side", "square", "whole number", "at least 1, at most 9", 2, False, ""),
        Field("inner", "", "fields", "", {"kind": "round"}, False, ""),
        Field("inner.kind", "", "round", "", "round", False, "A circle. Its sides are none."),
        Field("inner.radius", "", "number", "above 0", 1.0, False, ""),
        Field("sizes", "", "list of whole number | none", "", None, False, ""),
        Field("others", "", "mapping of fields by name", "", {}, False, ""),
        Field("others.<name>.kind", "", "round", "", "round", False, "A circle. Its sides are none."),
        Field("others.<name>.radius", "", "number", "above 0", 1.0, False, ""),
    ]


def dotted(value: Any, prefix: str = "") -> set[str]:
    if not isinstance(value, dict) or not value:
        return {prefix.removesuffix(".")}
    return {name for key, each in value.items() for name in dotted(each, f"{prefix}{key}.")}


@pytest.mark.parametrize("low_rank", ["lora", "dora", "orthogonal"])
def test_all_that_a_configuration_holds_is_described(low_rank: str) -> None:
    given = {"low_rank": {"kind": low_rank}, "parallel": {"upper": {"start": 2}}, "smart": {"bregman": {}}}
    held = dotted(plain(parse(given), defaults=True))
    names = {each.name for each in described(Configuration)}
    assert {name for name in held if not name.endswith(".kind")} <= names


def test_defaults_are_those_of_an_empty_configuration() -> None:
    defaults = plain(parse({}), defaults=True)
    for each in described(Configuration):
        if "." not in each.name and not isinstance(each.default, dict):
            assert each.default == defaults[each.name], each.name


def test_a_constraint_is_the_one_that_building_holds_to() -> None:
    (rank,) = [each for each in described(Configuration) if (each.name, each.of) == ("low_rank.rank", "lora")]
    assert (rank.takes, rank.constraint, rank.default) == ("whole number", "at least 1", 8)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        parse({"low_rank": {"kind": "lora", "rank": 0}})


def test_the_table_is_a_line_for_each_field() -> None:
    lines = table(list(described(Thing))).splitlines()
    assert "# round: A circle. Its sides are none." in lines
    assert [line.split() for line in lines if line.startswith("shape.side")] == [
        ["shape.side", "=", "2", "(whole", "number,", "at", "least", "1,", "at", "most", "9)"]
    ]
    assert next(line for line in lines if line.startswith("name")).endswith("required  (text)")


def test_the_command_prints_for_people_and_for_machines(capsys: Any) -> None:
    assert main(["schema"]) == 0
    shown = capsys.readouterr().out
    assert "low_rank.rank " in shown
    assert "holdout " in shown
    assert main(["schema", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = {each["name"] for part in found.values() for each in part}
    assert {"model", "training.schedule.kind", "smart.ascent_steps"} <= names
