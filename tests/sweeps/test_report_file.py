"""The file with which a report says how to do its sweep again: it declares the same runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.page.reproduce import as_yaml, sweep_file
from analysis.page.subject import Subject
from analysis.store import Writer
from mtbert.inputs import Inputs
from sweeps.declare import Search
from sweeps.file import parse_sweep

BASE: dict[str, Any] = {"low_rank": {"kind": "lora"}, "training": {"steps": 20}, "evaluation": {"every": 10}}
FILES: dict[str, dict[str, Any]] = {
    "grid": {
        "axes": {"low_rank.rank": [1, 4], "low_rank.targets": [["query"], ["query", "value"]]},
        "base": BASE,
    },
    "list": {"configurations": {"probe": {}, "LoRA: small": {"low_rank": {"kind": "lora", "rank": 2}}}},
    "ablation": {"base": BASE, "without": ["low_rank"], "changes": {"rank 1": {"low_rank.rank": 1}}},
}


def store(declared: Any, results: Path) -> None:
    inputs = vars(Inputs(limit={"all": 9}))
    with Writer(results) as writer:
        points = [
            {
                "run": each.run.as_json() | {"inputs": inputs},
                "point": dict(each.point),
            }
            for each in declared.runs("data1", "model1")
        ]
        writer.declare(declared.as_json(), points)


@pytest.mark.parametrize("kind", FILES)
def test_the_same_runs_come_of_it(kind: str, tmp_path: Path) -> None:
    declared, _ = parse_sweep({}, {"name": "again", "kind": kind, "seeds": 2, **FILES[kind]}, tmp_path)
    store(declared, tmp_path)
    file = yaml.safe_load(as_yaml(sweep_file(Subject(tmp_path))))
    own = {name: file.pop(name) for name in vars(Inputs()) if name in file}
    again, inputs = parse_sweep(own, file, tmp_path)
    assert inputs == Inputs(limit={"all": 9})
    assert {each.run.run_id for each in again.runs("data1", "model1")} == {
        each.run.run_id for each in declared.runs("data1", "model1")
    }


def test_a_search_is_declared_as_it_was(tmp_path: Path) -> None:
    space = {
        "low_rank.rank": {"low": 1, "high": 8, "log": True},
        "low_rank.kind": {"choices": ["lora", "dora"]},
    }
    file = {"name": "again", "kind": "search", "base": BASE, "space": space, "budget": {"points": 5}}
    file |= {"rungs": {"grace": 10}, "constraints": ["trainable<=1%"], "start": [{"low_rank.rank": 1}]}
    declared, _ = parse_sweep({}, file, tmp_path)
    store(declared, tmp_path)
    found = yaml.safe_load(as_yaml(sweep_file(Subject(tmp_path))))
    own = {name: found.pop(name) for name in vars(Inputs()) if name in found}
    again, _ = parse_sweep(own, found, tmp_path)
    assert isinstance(again, Search)
    assert again.as_json() == declared.as_json()
