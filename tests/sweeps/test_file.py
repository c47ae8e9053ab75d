"""A sweep as a file: what it declares, what is refused, and that the examples run."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtbert.configuration import parse
from mtbert.inputs import Inputs
from mtbert.schema import ConfigError
from sweeps.__main__ import main
from sweeps.declare import Ablation, Grid, RunList, Search
from sweeps.file import KINDS, parse_sweep, read_sweep, usual_space
from sweeps.search.budget import Budget
from sweeps.search.rungs import Rungs
from sweeps.search.space import parse_space
from sweeps.search.study import Sampler
from tests.sweeps.conftest import ROOT, Workplace

BASE = {"low_rank": {"kind": "lora", "rank": 2}, "training": {"steps": 4}, "evaluation": {"every": 2}}
EXAMPLES = {"grid": 12, "list": 12, "ablation": 18, "search": 0}
"""How many runs each example declares; a search's are not known beforehand."""


def declared(**given: Any) -> Any:
    return parse_sweep({}, {"name": "sweep", "base": BASE, **given}, Path()).sweep


def test_a_grid_of_a_file_is_the_grid_of_its_fields() -> None:
    axes = {"low_rank.rank": [1, 4]}
    assert declared(kind="grid", axes=axes, seeds=2) == Grid("sweep", BASE, {"low_rank.rank": (1, 4)}, 2)


def test_a_list_lays_each_configuration_over_the_base() -> None:
    found = declared(kind="list", configurations={"a": {}, "b": {"low_rank": {"rank": 4}}}, seeds=1)
    other = {**BASE, "low_rank": {"kind": "lora", "rank": 4}}
    assert found == RunList("sweep", {"a": parse(BASE), "b": parse(other)}, 1)


def test_a_search_of_a_file_is_the_search_of_its_fields() -> None:
    space = {"low_rank.rank": {"low": 1, "high": 8}, "training.warmup": 0.2, "smart": None}
    given = {"rungs": {"grace": 2}, "sampler": {"name": "random", "seed": 3}, "start": [{"low_rank.rank": 2}]}
    found = declared(kind="search", space=space, budget={"points": 5}, top_k=1, **given)
    assert found == Search(
        "sweep",
        BASE,
        parse_space(space),
        Budget(5),
        sampler=Sampler("random", 3),
        start=({"low_rank.rank": 2},),
        rungs=Rungs(grace=2),
        top_k=1,
    )
    assert list(found.space.parameters) == ["low_rank.rank", "training.warmup"]


def test_a_search_without_a_space_has_the_usual_one() -> None:
    assert declared(kind="search", budget={}).space == usual_space()


def test_an_ablation_is_the_base_and_one_change_at_a_time() -> None:
    base = {**BASE, "smart": {"weight": 2.0}}
    changes = {"rank 1": {"low_rank.rank": 1}}
    found = declared(kind="ablation", base=base, without=["smart", "low_rank.rank"], changes=changes, seeds=2)
    expected = {
        "base": base,
        "without smart": BASE,
        "without low_rank.rank": {**base, "low_rank": {"kind": "lora"}},
        "rank 1": {**base, "low_rank": {"kind": "lora", "rank": 1}},
    }
    assert found.configurations == {name: parse(each) for name, each in expected.items()}
    runs = found.runs("d", "m")
    assert [(each.point["change"], each.run.seed) for each in runs] == [
        (name, seed) for seed in (0, 1) for name in expected
    ]
    assert found.as_json()["axes"] == {"change": list(expected)}


def test_every_field_of_a_declaration_is_a_field_of_the_file() -> None:
    for kind, cls in KINDS.items():
        for field in fields(cls):
            given = {"name": 0, "base": BASE, "kind": kind, field.name: 0}
            with pytest.raises(ConfigError) as refused:
                parse_sweep({}, given, Path())
            assert "no such field" not in str(refused.value), (kind, field.name)


def test_no_field_of_the_inputs_is_one_of_a_declaration() -> None:
    inputs = {field.name for field in fields(Inputs)}
    assert not inputs & {field.name for cls in KINDS.values() for field in fields(cls)}


def test_a_base_may_be_a_file_whose_inputs_the_sweep_may_change(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"model": "some/model", "holdout": 0.1, **BASE}))
    (tmp_path / "sweep.yaml").write_text(
        "{name: s, kind: grid, base: base.yaml, holdout: 0.2, limit: {sst: 9}, axes: {}, seeds: 1}"
    )
    sweep, inputs = read_sweep(tmp_path / "sweep.yaml")
    assert isinstance(sweep, Grid)
    assert sweep.base == BASE
    assert inputs == Inputs(model="some/model", holdout=0.2, limit={"sst": 9})


REFUSED = {
    "kind: expected one of grid, list, ablation, search, got None": {"name": "s"},
    "axis: no such field; did you mean 'axes'?": {"kind": "grid", "axis": {}, "seeds": 1},
    "modle: no such field; did you mean 'model'?": {"kind": "grid", "modle": "demo"},
    "axes: missing": {"kind": "grid", "seeds": 1},
    "axes.low_rank.rank: expected a list, got 4": {"kind": "grid", "axes": {"low_rank.rank": 4}, "seeds": 1},
    "seeds: expected a whole number, got 'x'": {"kind": "grid", "axes": {}, "seeds": "x"},
    "seeds: expected a count of at least 1, got 0": {"kind": "grid", "axes": {}, "seeds": 0},
    "rungs.grace: expected a number at least 1, got 0": {
        "kind": "search",
        "budget": {"points": 1},
        "rungs": {"grace": 0},
    },
    "sampler.name: expected one of": {"kind": "search", "budget": {"points": 1}, "sampler": {"name": "best"}},
    "space.a.high: expected a number above low": {"kind": "search", "space": {"a": {"low": 2, "high": 1}}},
    "configurations.a.lowrank: no such field; did you mean 'low_rank'?": {
        "kind": "list",
        "configurations": {"a": {"lowrank": 1}},
        "seeds": 1,
    },
    "configurations: expected a mapping of configurations by name, got None": {"kind": "list", "seeds": 1},
    "without: expected at least one field, or changes, got neither": {"kind": "ablation", "seeds": 1},
    "without smart: expected a field that the base sets": {
        "kind": "ablation",
        "without": ["smart"],
        "seeds": 1,
    },
    "same: expected another configuration than the base": {
        "kind": "ablation",
        "changes": {"same": {"low_rank.rank": 2}},
        "seeds": 1,
    },
    "changes.base: expected another name": {"kind": "ablation", "changes": {"base": {}}, "seeds": 1},
    "base: expected a configuration, or the path of a file": {"kind": "grid", "base": 3},
    "inputs.holdout: expected a number below 1, got 2.0": {
        "kind": "grid",
        "holdout": 2,
        "axes": {},
        "seeds": 1,
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_named_with_its_file(message: str, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "base": BASE, **REFUSED[message]}))
    assert main(["run", str(path), "--results", str(tmp_path / "none")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_each_kind_is_shown_without_starting_anything(
    kind: str, tmp_path: Path, capsys: Any
) -> None:
    file = ROOT / "examples" / f"{kind}.yaml"
    assert main(["run", str(file), "--dry-run", "--results", str(tmp_path / "none")]) == 0
    shown = capsys.readouterr().out
    assert (f"{EXAMPLES[kind]} runs: 0 in the ledger" if EXAMPLES[kind] else "12 points: 0 in") in shown
    assert "Nothing was started" in shown
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_an_ablation_is_run_from_its_file(workplace: Workplace) -> None:
    shipped = yaml.safe_load((ROOT / "examples" / "ablation.yaml").read_text(encoding="utf-8"))
    shipped["base"]["training"]["steps"] = shipped["base"]["evaluation"]["every"] = 3
    short = {**shipped, "limit": {"all": 32}, "seeds": 1}
    (workplace.folder / "short.yaml").write_text(yaml.safe_dump(short))
    done = workplace.run("-m", "sweeps", "run", "short.yaml", "--address", "local", "--pack", "6")
    assert done.process.returncode == 0, done.output
    sweep = workplace.state().sweep("what-each-part-brings")
    assert sweep.kind == "ablation"
    changes = ["base", *(f"without {name}" for name in shipped["without"]), *shipped["changes"]]
    assert sorted(point["change"] for point in sweep.points.values()) == sorted(changes)
    assert len(workplace.ended()) == len(changes)
    again = workplace.run("-m", "sweeps", "run", "short.yaml")
    assert again.process.returncode == 0
    assert "nothing to train" in again.output


def test_the_kinds_are_those_that_can_be_declared() -> None:
    assert {"grid": Grid, "list": RunList, "ablation": Ablation, "search": Search} == KINDS


def test_the_schema_has_every_field_of_every_kind(capsys: Any) -> None:
    assert main(["schema", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for kind, cls in KINDS.items():
        names = {each["name"] for each in found[kind]}
        assert {field.name for field in fields(cls)} <= names
    search = {each["name"]: each for each in found["search"]}
    assert {"rungs.grace", "sampler.name", "budget.hours", "space.<name>.choices"} <= search.keys()
    assert not search["base"]["required"]
    assert not search["space"]["required"]
    assert not [name for name in search if name.startswith("space.parameters")]
    assert main(["schema"]) == 0
    assert "kind: ablation" in capsys.readouterr().out
