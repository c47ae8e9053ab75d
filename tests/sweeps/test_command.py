"""The command of the grid: its flags, its dry run, and what it refuses before Ray starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.store import Writer
from mtbert.inputs import Inputs
from mtbert.schema import ConfigError
from sweeps import flags, lora_grid
from sweeps.declare import Grid
from sweeps.exits import STOPPED
from sweeps.flags import experiment
from sweeps.launch import Launch
from sweeps.lora_grid import numbers
from sweeps.placement import Needs
from sweeps.plan import Halt
from sweeps.settings import Settings
from tests.sweeps.conftest import ROOT, Workplace
from tests.sweeps.fake import FakeMaterial

REFUSED = {
    "--ranks 0": "--ranks: expected numbers of at least 1, got '0'",
    "--ranks 1,x": "--ranks: expected numbers separated by commas, got '1,x'",
    "--alphas 0": "configuration.low_rank.alpha: expected a number above 0, got 0.0",
    "--alphas inf": "--alphas: expected numbers",
    "--seeds 0": "seeds: expected a count of at least 1, got 0",
    "--steps 0": "--steps: expected at least 1, got 0",
    "--precision int8": "--precision: invalid choice: 'int8'",
    "--pack 0": "--pack: expected at least 1, got 0",
    "--max-concurrent 0": "--max-concurrent: expected at least 1, got 0",
    "--gpus-per-run 1.5": "--gpus-per-run: expected a fraction of one GPU, or whole ones, got 1.5",
    "--name a/b": "name: expected 1 to 100 letters",
    "--rank 4": "unrecognized arguments: --rank 4",
    "--data /no/such/folder": "/no/such/folder",
    "--model /no/such/folder": "/no/such/folder",
    "--config /no/such.yaml": "/no/such.yaml",
    "--config broken.yaml": "broken.yaml: not YAML",
    "--config unknown.yaml": "configuration.lowrank: no such field; did you mean 'low_rank'?",
    "--config stages.yaml --steps 5": "--steps: stages.yaml has stages",
}


def test_what_is_wrong_is_said_in_a_line_before_ray_starts(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "unknown.yaml").write_text("lowrank: none")
    (tmp_path / "stages.yaml").write_text("stages: [{steps: 1}, {steps: 2}]")
    script = (
        "import sys\nfrom sweeps.lora_grid import main\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    try: code = main(line.split())\n"
        "    except SystemExit as end: code = end.code\n"
        "    print(code, 'ray' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(REFUSED),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        check=False,
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(REFUSED), done.stderr
    for message, (expected, code) in zip(
        lines[::2], zip(REFUSED.values(), lines[1::2], strict=True), strict=True
    ):
        assert message.startswith("error: ")
        assert expected in message
        assert code == "2 False"
    assert not (tmp_path / "results").exists()


def test_the_script_is_found_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "lora_grid.py"), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--gpus-per-run" in done.stdout


def parsed(*flags: str) -> tuple[Any, dict[str, Any]]:
    return experiment(lora_grid._parser().parse_args(flags))


def test_without_flags_the_demo_is_trained_on_the_demo() -> None:
    inputs, base = parsed()
    assert (inputs.model, inputs.data) == ("demo", "demo")
    assert base["training"]["steps"] == flags.STEPS
    assert base["evaluation"]["every"] * flags.EVALUATIONS <= flags.STEPS


def test_flags_are_laid_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text("model: some/model\ndata: hub\ntraining: {epochs: 2, batch_size: 8}\nbiases: trained\n")
    inputs, base = parsed("--config", str(file), "--data", "demo", "--steps", "7", "--limit", "sst=5")
    assert (inputs.model, inputs.data, inputs.limit) == ("some/model", "demo", {"sst": 5})
    assert base["training"] == {"batch_size": 8, "steps": 7}
    assert base["biases"] == "trained"
    assert base["low_rank"] == {"kind": "lora"}
    assert parsed("--config", str(file))[1]["training"] == {"epochs": 2, "batch_size": 8}


def test_inputs_of_a_file_hold_where_no_flag_says_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text("data: here\nlimit: {all: 9}\nholdout: 0.25\ncfimdb: join\n")
    inputs, _ = parsed("--config", str(file))
    assert inputs == Inputs(data="here", limit={"all": 9}, holdout=0.25, cfimdb="join")
    assert parsed("--config", str(file), "--cfimdb", "leave", "--holdout", "0")[0] == Inputs(
        data="here", limit={"all": 9}
    )


def test_precision_is_part_of_the_configuration() -> None:
    assert parsed("--precision", "bfloat16")[1]["precision"] == "bfloat16"
    assert "precision" not in parsed()[1]


def test_lists_are_separated_by_commas_and_hold_each_value_once() -> None:
    assert numbers("4,1,4", "--ranks", int, at_least=1) == (4, 1)
    assert numbers("0.5,2", "--alphas", float, at_least=0) == (0.5, 2.0)
    with pytest.raises(ConfigError, match="--ranks: expected numbers"):
        numbers("", "--ranks", int, at_least=1)


@pytest.mark.parametrize("gpus", [0.0, 0.25, 1.0, 2.0])
def test_fractions_of_a_gpu_and_whole_ones_are_taken(gpus: float) -> None:
    assert Settings("results", "command", gpus_per_run=gpus).gpus_per_run == gpus


@pytest.mark.parametrize(
    ("given", "gpus", "shares"),
    [
        ({"pack": 1}, 1.0, True),
        ({"pack": 1}, 0.0, False),  # there is none
        ({"pack": 2}, 1.0, False),  # one pack holds both runs
        ({}, 1.0, False),  # it grows as large as the GPU
        ({"pack": 1, "gpus_per_run": 0.5}, 0.5, False),  # somebody knows better
    ],
)
def test_a_gpu_is_shared_by_packs_that_do_not_grow(
    tmp_path: Path, given: dict[str, Any], gpus: float, shares: bool
) -> None:
    material, settings = FakeMaterial("", 0.0, {}), Settings(str(tmp_path), "", **given)
    grid = Grid("grid", {"low_rank": {"kind": "lora"}, "training": {"steps": 4}}, {}, 2)
    assert Launch(grid, material, settings, Console(quiet=True)).shares(Needs(gpus=gpus)) is shares


def test_what_failed_and_was_tried_again_keeps_a_sweep_open_only_until_then(tmp_path: Path) -> None:
    material, settings = FakeMaterial("", 0.0, {}), Settings(str(tmp_path), "", retry_failed=True)
    grid = Grid("grid", {"low_rank": {"kind": "lora"}, "training": {"steps": 4}}, {}, 1)
    ((run_id, each),) = Launch(grid, material, settings, Console(quiet=True)).declared.items()
    ending = {"step": 4, "kept_step": 4, "score": 0.5, "metrics": {}, "error": None}
    with Writer(tmp_path, "driver") as writer:
        attempt = writer.begin(each.run.as_json()).attempt
        writer.end(run_id, attempt or 0, {**ending, "status": "failed"}, {}, b"")
        launch = Launch(grid, material, settings, Console(quiet=True))
        assert not launch.finished
        again = writer.begin(each.run.as_json(), retry_failed=True).attempt
        writer.end(run_id, again or 0, {**ending, "status": "completed"}, {}, b"")
        launch.state = writer.refresh()
    assert launch.finished


def test_a_run_that_waits_to_be_alone_is_open_work_where_it_was_stopped_from_elsewhere(
    tmp_path: Path,
) -> None:
    material, settings = FakeMaterial("", 0.0, {}), Settings(str(tmp_path), "")
    grid = Grid("grid", {"low_rank": {"kind": "lora"}, "training": {"steps": 4}}, {}, 1)
    launch = Launch(grid, material, settings, Console(quiet=True))
    ((run_id, each),) = launch.declared.items()
    with Writer(tmp_path, launch.driver) as writer:
        attempt = writer.begin(each.run.as_json()).attempt
        writer.release(run_id, attempt or 0, "memory")
        writer.stop("run", run_id, [launch.driver])
        launch.state = writer.refresh()
    assert launch.outlook.alone == (run_id,)
    assert launch.left_out(launch.state) == Halt(
        STOPPED, "1 of its runs was stopped from elsewhere", "called again"
    )


def test_a_sweep_that_is_judged_by_what_no_run_has_is_refused(tmp_path: Path) -> None:
    material, settings = FakeMaterial("", 0.0, {}), Settings(str(tmp_path), "")
    base = {"low_rank": {"kind": "lora"}, "training": {"steps": 4}}
    for objective in ("score", "sst.accuracy", "trainable"):
        Launch(Grid("grid", base, {}, 1, objective), material, settings, Console(quiet=True))
    with pytest.raises(ConfigError, match=r"objective: expected one of sst.accuracy, .*, got 'sst.f1'"):
        Launch(Grid("grid", base, {}, 1, "sst.f1"), material, settings, Console(quiet=True))


def test_a_command_says_what_it_takes_before_it_loads_what_trains() -> None:
    code = (
        "import sys; from sweeps import lora_grid, auto_search, ablation, finalise, __main__; "
        "print([name for name in ('torch', 'ray', 'transformers', 'optuna') if name in sys.modules])"
    )
    asked = [sys.executable, "-c", code]
    told = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert told.strip() == "[]"


def test_a_dry_run_lists_the_runs_and_starts_nothing(workplace: Workplace) -> None:
    started = workplace.run(dry_run=True, ranks=[1, 2], seeds=2)
    assert started.process.returncode == 0, started.output
    assert "rank 2, seed 1" in started.output
    assert "4 runs: 0 in the ledger, 4 to train" in started.output
    assert "from its operations and a short measurement" in started.output
    assert "1.96%" in started.output  # 20 of 1,020 parameters
    assert not workplace.results.exists()
