"""An ablation around a file, a run or a winner: what is changed, what is trained, and what it ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.store import Writer
from mtbert.configuration import parse, with_values
from mtbert.run import Run
from mtbert.schema import plain
from sweeps.ablation import main
from sweeps.changes import put_back
from tests.analysis.ledgers import ending
from tests.sweeps.conftest import ROOT, Workplace

BASE = {"low_rank": {"kind": "lora"}, "training": {"steps": 400, "learning_rate": {"heads": 0.002}}}
OWN = {
    "low_rank": {"kind": "dora", "rank": 2, "targets": ["query"]},
    "smart": {"weight": 2.0},
    "weighting": {"kind": "uncertainty"},
    "training": {"steps": 40, "schedule": {"kind": "proportional"}, "learning_rate": {"heads": 0.01}},
    "evaluation": {"every": 10},
}


def test_each_thing_that_is_not_plain_is_put_back_by_itself() -> None:
    own, base = parse(OWN), parse(BASE)
    possible, impossible = put_back(own, base)
    settings = plain(own)
    expected: dict[str, dict[str, Any]] = {
        "low_rank.kind back to lora": {"low_rank.kind": "lora"},
        f"low_rank.rank back to {base.low_rank.rank}": {"low_rank.rank": base.low_rank.rank},  # type: ignore[union-attr]
        f"low_rank.targets back to {', '.join(base.low_rank.targets)}": {  # type: ignore[union-attr]
            "low_rank.targets": list(base.low_rank.targets)  # type: ignore[union-attr]
        },
        "weighting.kind back to static": {"weighting": {"kind": "static"}},
        "without smart": {"smart": None},
        "training.schedule.kind back to annealed": {"training.schedule.kind": "annealed"},
        "training.learning_rate.heads back to 0.002": {"training.learning_rate.heads": 0.002},
    }
    found = {name: parse(with_values(settings, change)) for name, change in possible.items()}
    assert found == {name: parse(with_values(settings, change)) for name, change in expected.items()}
    assert impossible == {}


def test_a_part_that_the_plain_one_has_is_put_in() -> None:
    possible, _ = put_back(parse({"biases": "trained"}), parse({"low_rank": {"kind": "lora", "rank": 2}}))
    assert possible["with low_rank"] == {"low_rank": {"kind": "lora", "rank": 2}}
    assert possible["biases back to frozen"] == {"biases": "frozen"}


def test_what_cannot_be_by_itself_is_told_apart() -> None:
    own = {"weighting": {"kind": "gradient_surgery"}, "training": {"schedule": {"kind": "joint"}}}
    possible, impossible = put_back(parse(own), parse({}))
    assert list(possible) == ["weighting.kind back to static"]
    (why,) = impossible.values()
    assert "expected joint with weighting: gradient_surgery" in why


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A grid of two ranks, the second better, and a search without a winner; with data of no other place."""
    folder = tmp_path / "results"
    grid = {"sweep": "ranks", "kind": "grid", "base": BASE, "axes": {"low_rank.rank": [1, 2]}}
    with Writer(folder, "driver") as writer:
        for rank in (1, 2):
            configuration = parse(with_values(BASE, {"low_rank.rank": rank}))
            run = Run(configuration, 0, "data", "model").as_json() | {"inputs": {"limit": {"all": 32}}}
            point = {"run": run, "point": {"low_rank.rank": rank}}
            writer.declare(grid, [point])
            attempt = writer.begin(run, "ranks").attempt
            assert attempt is not None
            writer.end(run["run_id"], attempt, ending(score=rank / 10), {}, b"")
        writer.declare({"sweep": "search", "kind": "search", "base": BASE, "axes": {}}, [])
    return folder


def dry(capsys: Any, results: Path, *more: str) -> str:
    assert main(["--results", str(results), "--dry-run", "--seeds", "1", *more]) == 0
    shown = capsys.readouterr().out
    assert "Nothing was started" in shown
    return str(shown)


def test_the_winner_of_a_sweep_is_held_against_the_sweeps_base(results: Path, capsys: Any) -> None:
    shown = dry(capsys, results, "--around", "ranks", "--steps", "4")
    assert "Around the winner of ranks, held against the base of ranks" in shown
    rank = parse(BASE).low_rank.rank  # type: ignore[union-attr]
    assert f"change low_rank.rank back to {rank}" in shown
    assert "2 runs: 0 in the ledger, 2 to train" in shown


def test_the_winner_of_a_search_is_the_one_that_it_has_written(results: Path, capsys: Any) -> None:
    (results / "searches").mkdir()
    configuration = {**BASE, "smart": {"weight": 2.0}, "training": {"steps": 4}}
    written = yaml.safe_dump({"limit": {"all": 32}, **configuration})
    (results / "searches" / "search.yaml").write_text(written)
    run = Run(parse(configuration), 0, "data", "model").as_json()
    with Writer(results, "again") as writer:
        writer.declare({"sweep": "search", "kind": "search", "base": BASE}, [{"run": run, "point": {}}])
        attempt = writer.begin(run, "search").attempt
        assert attempt is not None
        writer.end(run["run_id"], attempt, ending(), {}, b"")
    shown = dry(capsys, results, "--around", "search")
    assert "Around the winner of search" in shown
    assert "change without smart" in shown
    assert "change training.learning_rate.heads back to 0.002" in shown


def test_named_changes_are_tried_and_no_others(results: Path, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"limit": {"all": 32}, **OWN, "smart": None}))
    (tmp_path / "more.yaml").write_text("{both: {low_rank.rank: 4, biases: trained}}")
    ranks = ("--change", "low_rank.rank=1", "--change", "low_rank.rank=8")
    named = ("--without", "low_rank", *ranks, "--changes", str(tmp_path / "more.yaml"))
    shown = dry(capsys, results, "--around", str(tmp_path / "base.yaml"), *named)
    for change in ("base", "without low_rank", "low_rank.rank 1", "low_rank.rank 8", "both"):
        assert f"change {change}, seed 0" in shown
    assert "5 runs:" in shown


REFUSED = {
    "--around nothing": "no run whose id begins with 'nothing'",
    "--around search": "search 'search': no winner at",
    "--around /no/such.yaml": "/no/such.yaml: No such file",
    "--around {plain}": "--around {plain}: it differs in nothing from the plain configuration",
    "--around ranks --without smart": "without smart: expected a field that the base sets",
    "--around ranks --change rank": "--change: expected field=value, got 'rank'",
    "--around ranks --change low_rank.rank=0": "low_rank.rank 0: configuration.low_rank.rank: expected",
    "--around ranks --changes {listed}": "expected changes by name",
    "--around ranks --name ranks --seeds 1": "--name: 'ranks' is around another configuration",
    "--around ranks --seeds 0": "seeds: expected a count of at least 1, got 0",
}


def test_what_cannot_be_is_said_before_anything_starts(results: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text("training: {steps: 4}")
    listed = tmp_path / "listed.yaml"
    listed.write_text("[low_rank]")
    for flags, message in REFUSED.items():
        given = flags.format(plain=path, listed=listed).split()
        assert main([*given, "--results", str(results)]) == 2
        assert message.format(plain=path) in capsys.readouterr().err


@pytest.mark.slow
def test_an_ablation_ends_with_what_each_change_costs(workplace: Workplace) -> None:
    own = {
        "low_rank": {"kind": "lora", "rank": 4},
        "weighting": {"kind": "uncertainty"},
        "training": {"steps": 6},
        "evaluation": {"every": 3},
    }
    (workplace.folder / "own.yaml").write_text(yaml.safe_dump(own))
    script = str(ROOT / "sweeps" / "ablation.py")
    flags = ("--limit", "48", "--seeds", "2", "--address", "local")
    done = workplace.run(script, "--around", "own.yaml", *flags)
    assert done.process.returncode == 0, done.output
    sweep = workplace.state().sweep("ablation-of-own")
    assert sweep.kind == "ablation"
    assert set(sweep.declaration["axes"]["change"]) == {
        "base",
        "without low_rank",
        "weighting.kind back to static",
    }
    assert len(workplace.ended()) == 6
    table = done.output[done.output.index("change") :]
    assert "without low_rank" in table
    assert "paired by seeds" in table
    assert "python -m analysis compare" in table
    run = next(run_id for run_id, point in sweep.points.items() if point["change"] == "base")
    named = ("--around", run, "--without", "low_rank", "--name", "again")
    again = workplace.run(script, *named, *flags)
    assert again.process.returncode == 0, again.output
    assert "All 4 runs of again have ended: nothing to train." in again.output
    assert len(workplace.ended()) == 6
