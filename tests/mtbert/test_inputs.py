"""What a training is fed: limits, files of one training, and what they may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtbert.inputs import ALL_TASKS, Inputs, parse_inputs, parse_limit, read_file
from mtbert.schema import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", {ALL_TASKS: 1000}),
        ("sst=10", {"sst": 10}),
        ("sst=10,para=500", {"sst": 10, "para": 500}),
        (" sst = 10 , para = 5 ", {"sst": 10, "para": 5}),
    ],
)
def test_limits_are_of_every_task_or_of_each(text: str, expected: dict[str, int]) -> None:
    assert parse_limit(text) == expected


def test_a_name_that_is_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("training: {steps: 3}\nlow_rank:\n  rank: 2\n  kind: lora\n  rank: 4\n")
    with pytest.raises(ConfigError, match=r"(?s)not YAML: 'rank' is given twice.*line 5") as caught:
        read_file(path)
    assert "expected it once" in str(caught.value)
    path.write_text("a: &a {steps: 3}\ntraining: {<<: *a, steps: 4}\n")  # laid over is not given twice
    assert read_file(path)[1]["training"] == {"steps": 4}


@pytest.mark.parametrize("text", ["", "many", "sst", "sst=", "sst=ten", "10,20", "sst=1,", "-5", "1.5"])
def test_a_limit_that_is_none_is_refused_with_what_it_was(text: str) -> None:
    with pytest.raises(ConfigError, match="--limit") as caught:
        parse_limit(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"limit": {ALL_TASKS: 5, "sst": 3}}, "inputs.limit"),
        ({"limit": {"sst": 0}}, "inputs.limit.sst"),
        ({"holdout": 1.0}, "inputs.holdout"),
        ({"holdout": -0.1}, "inputs.holdout"),
        ({"cfimdb": "both"}, "inputs.cfimdb"),
        ({"models": "demo"}, "inputs.models"),
    ],
)
def test_impossible_inputs_are_refused_by_field(data: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_inputs(data)
    assert str(caught.value).startswith(where)


def test_a_file_holds_inputs_and_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model: demo\nlimit: {sst: 5}\nlow_rank: {kind: lora, rank: 2}\n", encoding="utf-8")
    inputs, configuration = read_file(path)
    assert inputs == {"model": "demo", "limit": {"sst": 5}}
    assert configuration == {"low_rank": {"kind": "lora", "rank": 2}}
    assert parse_inputs(inputs) == Inputs(limit={"sst": 5})
    path.write_text("")
    assert read_file(path) == ({}, {})


@pytest.mark.parametrize(
    "content", [b"a: [1", b"- 1\n- 2\n", b"just text", b"\xff\xfe\x00", b"a: !!python/object:os.system {}"]
)
def test_a_file_that_is_no_mapping_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        read_file(path)
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_file(tmp_path / "none.yaml")
