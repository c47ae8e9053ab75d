"""Searches as their users start them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from analysis.store import State, Writer
from mtbert.schema import ConfigError
from sweeps.auto_search import main
from sweeps.declare import Search
from sweeps.search.budget import spent
from sweeps.search.launch import SearchLaunch
from sweeps.search.rungs import Rungs
from sweeps.search.space import parse_space
from sweeps.settings import Settings
from tests.sweeps.conftest import ROOT, Started, Workplace, eventually
from tests.sweeps.fake import FakeMaterial

SPACE = {
    "low_rank.kind": {"choices": ["lora", "none"]},
    "low_rank.rank": {"low": 1, "high": 64},
    "training.warmup": {"choices": [0.1, 0.2]},
}


def start(place: Workplace, seeds: int = 2, **changes: Any) -> Started:
    search = {"space": SPACE, "budget": {"points": 6}, "top_k": 1} | changes.pop("search", {})
    return place.start(name="search", seeds=seeds, search=search, **changes)


@pytest.mark.slow
def test_a_killed_search_goes_on_and_repeats_nothing(workplace: Workplace) -> None:
    killed = start(workplace, seconds_per_step=0.05)
    eventually(lambda: len(workplace.ended()) >= 2, "two runs have ended")
    killed.kill()
    out_of_time = start(workplace, search={"budget": {"points": 6, "hours": 1e-9}})
    assert out_of_time.wait() == 4, out_of_time.output
    assert "its budget of 1e-09 hours is used up" in out_of_time.output.splitlines()[-1]
    again = start(workplace)
    assert again.wait() == 0, again.output
    assert "its 6 points are tried" in again.output
    state = workplace.state()
    assert len(state.sweep("search").points) == len(workplace.ended()) == 7
    assert set(workplace.endings().values()) == {1}
    assert all(state.sweep("search").points.values())
    best = yaml.safe_load((workplace.results / "searches" / "search.yaml").read_text())
    assert best["training"].get("warmup", 0.1) in (0.1, 0.2)  # a default is left out
    finished = start(workplace)
    assert finished.wait() == 0
    assert "nothing to train" in finished.output
    assert "Ray" not in finished.output


def test_the_command_searches_the_demo_and_its_best_can_be_trained(workplace: Workplace) -> None:
    space = workplace.folder / "space.yaml"
    space.write_text("{smart: null, smart.weight: null, smart.noise: null, low_rank.kind: lora}")
    flags = "--runs 3 --steps 4 --limit 32 --top-k 1 --seeds-at-end 2 --address local --space space.yaml"
    searched = workplace.run(str(ROOT / "sweeps" / "auto_search.py"), *flags.split())
    assert searched.process.returncode == 0, searched.output
    assert "Finalists, by their mean" in searched.output
    assert len(workplace.state().runs) == 4
    ended = workplace.ended()
    best = workplace.results / "searches" / "auto-search.yaml"
    trained = workplace.run("-m", "mtbert", "train", str(best), "--seed", "1")
    assert trained.process.returncode == 0, trained.output
    assert workplace.ended() == ended  # the ledger has that very run


def launch_of(folder: Path, space: dict[str, Any], **changes: Any) -> SearchLaunch:
    base = {"low_rank": {"kind": "lora"}, "training": {"steps": 4}, "evaluation": {"every": 2}}
    search = Search("search", base, parse_space(space), **changes)
    material = FakeMaterial(str(folder / "witness"), 0.0, {})
    return SearchLaunch(search, material, Settings(str(folder), ""), Console(quiet=True))


def test_what_another_driver_has_proposed_is_known_by_its_label_and_length(tmp_path: Path) -> None:
    launch = launch_of(tmp_path, {"low_rank.rank": {"low": 1, "high": 64}})
    search, material = launch.search, launch.material
    proposed = search.run({"low_rank.rank": 7}, 0, material.data, material.model)
    with Writer(tmp_path, "other") as other:
        other.declare(search.as_json(), [{"run": proposed.run.as_json(), "point": dict(proposed.point)}])
        aims = launch.aims(other.refresh())
    run_id = proposed.run.run_id
    assert aims.targets == launch.targets == {run_id: 4}
    assert launch.labels == {run_id: "1: rank 7"}


def test_a_start_point_is_not_in_the_ledger_before_it_has_begun(tmp_path: Path) -> None:
    base = {"low_rank": {"kind": "lora"}, "training": {"steps": 4}, "evaluation": {"every": 2}}
    space = parse_space({"low_rank.rank": {"low": 1, "high": 64}})
    search = Search("search", base, space, start=({"low_rank.rank": 7},))
    material, console = FakeMaterial(str(tmp_path / "witness"), 0.0, {}), Console(record=True)
    settings = Settings(str(tmp_path), "")
    SearchLaunch(search, material, settings, console).show()
    assert "points: 0 in the ledger" in console.export_text()
    with Writer(tmp_path, "other") as other:
        other.begin(search.run({"low_rank.rank": 7}, 0, material.data, material.model).run.as_json())
    SearchLaunch(search, material, settings, console).show()
    assert "points: 1 in the ledger" in console.export_text()


def test_a_point_that_its_configuration_does_not_lead_back_to_is_refused(tmp_path: Path) -> None:
    space = {"parallel.form": "low_rank", "parallel.hidden": 24, "parallel.heads": {"choices": [4, 6]}}
    with pytest.raises(ConfigError, match=r"space: the point .*heads .. comes .* has parallel.heads 12: let"):
        launch_of(tmp_path, space)
    space["parallel.form"] = {"choices": ["low_rank", "attention"]}
    space["parallel.heads"] = {"choices": [4, 6], "when": {"parallel.form": ["attention"]}}
    assert launch_of(tmp_path, space).quest.more(State(), 1)


def test_what_a_search_is_judged_by_and_its_rungs_are_looked_at_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"objective: expected one of sst.accuracy, score, .* got 'sst.f1'"):
        launch_of(tmp_path, SPACE, objective="sst.f1")
    launch_of(tmp_path, SPACE, objective="sst.accuracy")
    steps = {**SPACE, "evaluation.every": {"choices": [3, 4]}}
    with pytest.raises(ConfigError, match=r"evaluation.every: expected .* divides the grace of 2"):
        launch_of(tmp_path, steps, rungs=Rungs(2))
    with pytest.raises(ConfigError, match=r"constraint trainable<=0%: of 1000 points .* none keeps it"):
        launch_of(tmp_path, {"low_rank.rank": {"low": 1, "high": 64}}, constraints=["trainable<=0%"])
    rare = {"low_rank.rank": {"low": 1, "high": 10**6}}  # chance does not come upon what is known
    launch_of(tmp_path, rare, constraints=["trainable<=1%"], start=[{"low_rank.rank": 1}])


def test_a_winner_of_before_is_deleted_where_there_is_none_any_more(tmp_path: Path) -> None:
    space = {"low_rank.rank": {"low": 1, "high": 64}}
    path = tmp_path / "searches" / "search.yaml"
    launch = launch_of(tmp_path, space, constraints=["score>=0.5"])
    trained = launch.search.run({"low_rank.rank": 7}, 0, launch.material.data, launch.material.model)
    record = {"status": "completed", "step": 4, "score": 0.4, "metrics": {}, "error": None, "kept_step": 4}
    with Writer(tmp_path, "other") as other:
        other.declare(launch.search.as_json(), [{"run": trained.run.as_json(), "point": dict(trained.point)}])
        attempt = other.begin(trained.run.as_json()).attempt
        other.end(trained.run.run_id, attempt or 0, record, {}, b"")
    launch_of(tmp_path, space).answer()
    assert path.exists()
    shown, _ = launch_of(tmp_path, space, constraints=["score>=0.5"]).answer()
    assert "No point keeps every constraint" in shown[-1]
    assert not path.exists()


def test_a_dry_run_shows_the_space_and_starts_nothing(workplace: Workplace, capsys: Any) -> None:
    results = str(workplace.folder / "none")
    assert (
        main(["--dry-run", "--runs", "9", "--core-hours", "0.01", "--limit", "32", "--results", results]) == 0
    )
    shown = capsys.readouterr().out
    assert "low_rank.rank" in shown
    assert "9 points: 0 in the ledger" in shown
    assert (
        "The budget of 0.01 core-hours, of which its runs have occupied 0 core-hours, is enough for" in shown
    )
    assert "Nothing was started" in shown
    assert not (workplace.folder / "none").exists()


def test_what_is_wrong_is_said_in_a_line(workplace: Workplace, capsys: Any) -> None:
    space = workplace.folder / "space.yaml"
    space.write_text("low_rank.rank: {low: 4}")
    refused = {
        ("--runs", "0"): "budget.points: expected a number at least 1, got 0",
        ("--cost", "3"): "budget.price: expected a number beside a cost, got none",
        ("--space", "/no/such.yaml"): "/no/such.yaml: No such file",
        ("--space", str(space)): "space.low_rank.rank: expected choices, or low and high",
        ("--constraint", "para.accuracy"): "constraint: expected a name, <= or >=, and a number",
        ("--constraint", "para.acuracy>=0.8"): "expected one of trainable, seconds, score, sst.loss, sst.acc",
        ("--against", "seconds"): "rungs: expected none with against seconds (--rule none)",
        ("--axis", "low_rank.kind"): "--axis: expected FIELD=VALUES, each field once, got 'low_rank.kind'",
        ("--start", str(space)): "expected a list of points, each a mapping by dotted field",
        ("--sampler-seed", "-1"): "sampler.seed: expected a number at least 0, got -1",
        ("--gpus-per-run", "inf"): "--gpus-per-run: expected a fraction of one GPU, or whole ones, got inf",
    }
    for flags, message in refused.items():
        assert main(flags) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_rungs_stop_most_points_and_the_finalists_go_to_their_ends(workplace: Workplace) -> None:
    search = {"budget": {"points": 90}, "top_k": 2, "rungs": {"grace": 2, "reduction": 3}}
    done = start(workplace, steps=8, search=search)
    assert done.wait() == 0, done.output
    runs = workplace.state().runs
    assert len(runs) == 92
    assert all(run.step == 8 for run in runs.values() if run.status == "completed")
    stopped = [run for run in runs.values() if run.status == "stopped"]
    assert len(stopped) >= 50  # once four ends are as the rungs foretold
    assert {run.step for run in stopped} <= {2, 6}
    assert sum(run.seed == 1 for run in runs.values()) == 2
    assert not workplace.repeated()  # a promoted run goes on from its checkpoint


@pytest.mark.slow
def test_a_search_ends_when_its_compute_is_used_up_and_goes_on_with_more(workplace: Workplace) -> None:
    prices = {"core_hours": 3 / 3600, "cost": 5.0, "price": 1.0}
    short = start(workplace, seconds_per_step=0.2, search={"budget": {"points": 6, **prices}})
    assert short.wait() == 4, short.output
    assert "provisional: points are still to be tried, so that its finalists may change" in short.output
    last = short.output.splitlines()[-1]
    assert "its budget of 0.000833 core-hours is used up, at" in last
    assert "which cost" in last
    state = workplace.state()
    used = spent(state, "search", 0.0, lambda _: False)
    assert used.cores >= 3 / 3600
    assert used.paid == used.cores
    assert not any(run.status == "running" for run in state.runs.values())
    refused = start(workplace, search={"budget": {"points": 6, **prices}})
    assert refused.wait() == 4
    assert "Ray" not in refused.output
    more = start(workplace, search={"budget": {"points": 6, "core_hours": 1.0}})
    assert more.wait() == 0, more.output
    assert "its 6 points are tried. Its runs occupied" in more.output.splitlines()[-1]
    assert set(workplace.endings().values()) == {1}


@pytest.mark.slow
def test_cells_share_a_search_and_a_constraint_binds_their_points(workplace: Workplace) -> None:
    space = {name: each for name, each in SPACE.items() if name != "low_rank.kind"}
    search = {
        "space": space,
        "axes": {"low_rank.kind": ["lora", "dora"]},
        "constraints": ["trainable<=200", "sst.accuracy>=0.4"],
        "start": [{"low_rank.rank": 3, "training.warmup": 0.2}],
    }
    done = start(workplace, search=search)
    assert done.wait() == 0, done.output
    assert "By cell:" in done.output
    runs = [run for run in workplace.state().runs.values() if run.seed == 0]
    settings = [run.run["configuration"]["low_rank"] for run in runs]
    assert sorted(each.get("kind", "lora") for each in settings) == ["dora"] * 3 + ["lora"] * 3
    assert all(each.get("rank", 8) <= 20 for each in settings)
    assert sum(each.get("rank") == 3 for each in settings) >= 2
    best = yaml.safe_load((workplace.results / "searches" / "search.yaml").read_text())
    assert best["low_rank"] in settings
    tight = start(workplace, search={**search, "constraints": ["sst.accuracy>=0.9"]})
    assert tight.wait() == 0, tight.output
    assert "No point keeps every constraint" in tight.output
    assert "is written" not in tight.output
