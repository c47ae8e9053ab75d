"""From a finished sweep to the model in hand: its winner trained further, looked at once, exported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from analysis.ranking import ranked
from analysis.store import State, StoreError, Writer, read
from mtbert.__main__ import main as mtbert
from mtbert.run import Run
from mtbert.schema import plain
from sweeps.declare import RunList
from sweeps.exits import FAILED
from sweeps.final_model import FinalMaterial
from sweeps.finalise import main
from sweeps.winner import winner, winner_file
from tests.mtbert.data.files import cs224n_folder
from tests.sweeps.conftest import ROOT, Workplace

TRAINING = {"steps": 3, "batch_size": 2}
RANKS, SEEDS = (1, 2), 2


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of data, and beside it the results of a grid over ranks and seeds, trained without Ray."""
    (tmp_path / "data").mkdir()
    cs224n_folder(tmp_path / "data")
    trained(tmp_path, [{"low_rank": {"kind": "lora", "rank": rank}} for rank in RANKS], "grid", SEEDS)
    return tmp_path


def trained(
    place: Path,
    configurations: Sequence[dict[str, Any]],
    sweep: str,
    seeds: int,
    *flags: str,
    kind: str = "grid",
) -> None:
    """Trains the configurations over seeds, and declares a sweep of them all."""
    file = place / "configuration.yaml"
    before = set(read(place / "results").runs) if (place / "results").is_dir() else set()
    for configuration in configurations:
        file.write_text(yaml.safe_dump({**configuration, "training": TRAINING}), encoding="utf-8")
        for seed in range(seeds):
            asked = ["train", str(file), "--seed", str(seed), "--data", str(place / "data"), *flags]
            assert mtbert([*asked, "--results", str(place / "results")]) == 0
    with Writer(place / "results") as writer:
        runs = writer.refresh().runs
        points = [{"run": run.run, "point": {}} for run_id, run in runs.items() if run_id not in before]
        writer.declare({"sweep": sweep, "kind": kind, "objective": "score"}, points)


def finalise(place: Path, *flags: str, sweep: str = "grid", seeds: int = SEEDS) -> int:
    return main([sweep, "--results", str(place / "results"), "--seeds", str(seeds), *flags])


def state_of(place: Path) -> State:
    return read(place / "results")


def test_the_winner_s_best_seed_is_exported_and_predicts_the_test_files(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = ranked(state_of(place), "grid")[0]
    out = tmp_path / "adapter"
    assert finalise(place, "--to", "peft", str(out)) == 0
    said = capsys.readouterr().out
    assert f"The final model is run {best.run_ids[0]}" in said
    assert "Nothing with labels is unseen" in said
    assert json.loads((out / "mtbert.json").read_text())["run"]["run_id"] == best.run_ids[0]
    assert "`grid`, `grid-final`" in (out / "README.md").read_text(encoding="utf-8")
    written = place / "results" / "finals" / "grid"
    assert mtbert(["predict", best.run_ids[0], "--results", str(place / "results"), "--out",
                   str(tmp_path / "by hand")]) == 0  # fmt: skip
    for task in ("sst", "para", "sts"):
        name = f"{task}-test-output.csv"
        assert (written / name).read_bytes() == (tmp_path / "by hand" / name).read_bytes()
        assert str(written / name) in said


def test_the_same_command_again_does_nothing_twice(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(place, [{"low_rank": {"kind": "lora", "rank": 3}}], "held", SEEDS, "--holdout", "0.25")
    asked = ("--to", "transformers", str(tmp_path / "model"))
    assert finalise(place, *asked, sweep="held") == 0
    first = capsys.readouterr().out.splitlines()
    files = [path for folder in ("model", "results/finals") for path in (place / folder).rglob("*")]
    times = {path: path.stat().st_mtime_ns for path in files}
    attempts = {run_id: run.attempt for run_id, run in state_of(place).runs.items()}

    def twice(*_: Any) -> None:
        raise AssertionError("done twice")

    monkeypatch.setattr(FinalMaterial, "in_use", twice)
    assert finalise(place, *asked, sweep="held") == 0
    again = capsys.readouterr().out.splitlines()
    assert {path: path.stat().st_mtime_ns for path in files} == times
    assert {run_id: run.attempt for run_id, run in state_of(place).runs.items()} == attempts
    assert [line for line in again if line.startswith("holdout")] == [
        line for line in first if line.startswith("holdout")
    ] != []  # fmt: skip
    assert f"Model: {tmp_path / 'model'} (there already)" in again
    said = "Looking at holdout, once with each seed"
    assert (said in first, said in again) == (True, False)


def test_the_part_of_train_that_was_held_out_is_told_over_all_seeds(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(place, [{"low_rank": {"kind": "lora", "rank": 3}}], "held", SEEDS, "--holdout", "0.25")
    assert finalise(place, "--to", "safetensors", str(tmp_path / "model"), sweep="held") == 0
    said = capsys.readouterr().out
    best = ranked(state_of(place), "held")[0].run_ids[0]
    record = json.loads((place / "results" / "finals" / "held" / "final.json").read_text())
    assert {each["run_id"] for each in record["looks"]} == {f"{best[:-2]}-{seed}" for seed in range(SEEDS)}
    for each in record["looks"]:
        assert mtbert(["evaluate", each["run_id"], "--split", "holdout", "--results",
                       str(place / "results")]) == 0  # fmt: skip
        printed = capsys.readouterr().out
        assert f"  sst.accuracy     {each['values']['sst.accuracy']:.4f}" in printed
    values = [each["values"]["sst.accuracy"] for each in record["looks"]]
    mean = sum(values) / len(values)
    (row,) = [line.split() for line in said.splitlines() if line.split()[:2] == ["holdout", "sst.accuracy"]]
    assert row[3] == f"{mean:.4f}"
    assert (
        f"| holdout | sst.accuracy | {row[2]} | {mean:.4f} ± " in (tmp_path / "model/README.md").read_text()
    )


def test_a_second_choice_is_told_that_the_examples_have_been_looked_at(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(place, [{"low_rank": {"kind": "lora", "rank": 3}}], "held", SEEDS, "--holdout", "0.25")
    assert finalise(place, sweep="held") == 0
    assert "looked at before" not in capsys.readouterr().out
    record = place / "results" / "finals" / "held" / "final.json"
    told = json.loads(record.read_text(encoding="utf-8"))
    for each in told["looks"]:  # as if another configuration had won before the search went on
        each |= {"config_id": "another", "run_id": f"another-{each['run_id'][-1]}"}
    record.write_text(json.dumps(told), encoding="utf-8")
    assert finalise(place, sweep="held") == 0
    assert "holdout has been looked at before, with another:" in capsys.readouterr().out


def test_what_a_form_cannot_hold_and_a_full_folder_are_told_before_anything_is_trained(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(place, [{}], "probe", 1)
    before = set(state_of(place).runs)
    assert finalise(place, "--to", "peft", str(tmp_path / "out"), sweep="probe", seeds=3) == 2
    assert "configuration.low_rank: no low-rank adapter at all" in capsys.readouterr().err
    assert finalise(place, "--to", "transformers", str(place / "data"), sweep="probe", seeds=3) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert finalise(place, "--to", "onnx", str(tmp_path / "out"), sweep="probe", seeds=3) == 2
    assert "--to: expected one of peft, transformers, safetensors" in capsys.readouterr().err
    assert set(state_of(place).runs) == before


def test_a_sweep_without_a_winner_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finalise(place, sweep="other") == 2
    assert "no sweep 'other' in these results; known are grid" in capsys.readouterr().err


def test_a_search_s_winner_is_the_one_that_it_has_written(place: Path) -> None:
    trained(
        place, [{"low_rank": {"kind": "lora", "rank": rank}} for rank in (4, 5)], "search", 1, kind="search"
    )
    results, state = place / "results", state_of(place)
    with pytest.raises(StoreError, match="search 'search': no winner at"):
        winner(results, state, "search")
    worst = state.runs[ranked(state, "search")[-1].run_ids[0]]  # the highest mean does not decide
    path = winner_file(results, "search")
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({**worst.run["inputs"], **worst.run["configuration"]}))
    found = winner(results, state, "search")
    assert plain(found.configuration) == worst.run["configuration"]
    assert found.inputs.data == str(place / "data")
    trained(place, [{"low_rank": {"kind": "lora", "rank": 6}}], "other", 1)
    (other,) = state_of(place).runs_of("other")  # what a search learns from it may choose
    path.write_text(yaml.safe_dump({**other.run["inputs"], **other.run["configuration"]}))
    chosen = winner(results, state_of(place), "search").configuration
    assert plain(chosen) == other.run["configuration"]
    path.write_text(yaml.safe_dump({"training": {"steps": 77}}))
    with pytest.raises(StoreError, match="no completed run has the configuration"):
        winner(results, state, "search")


def test_the_winner_s_seeds_are_a_sweep_whose_failure_ends_the_command(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Run] = []

    def launched(sweep: RunList, material: FinalMaterial, *_: Any) -> SimpleNamespace:
        asked.extend(each.run for each in sweep.runs(material.data, material.model))
        return SimpleNamespace(run=lambda: FAILED)

    monkeypatch.setattr("sweeps.finalise.launch", launched)
    assert finalise(place, seeds=3) == FAILED
    best = ranked(state_of(place), "grid")[0]
    assert [run.run_id for run in asked] == [f"{best.config_id}-{seed}" for seed in range(3)]
    assert "The final model" not in capsys.readouterr().out
    asked.clear()
    assert finalise(place, "--holdout", "0.5", seeds=1) == FAILED
    (other,) = asked
    assert plain(other.configuration) == state_of(place).runs[best.run_ids[0]].run["configuration"]
    assert other.config_id != best.config_id  # of another data set: none of its seeds is there


@pytest.mark.slow
def test_seeds_that_are_missing_are_trained_and_no_others(workplace: Workplace) -> None:
    (workplace.folder / "data").mkdir()
    cs224n_folder(workplace.folder / "data")
    trained(workplace.folder, [{"low_rank": {"kind": "lora", "rank": 2}}], "grid", 1)
    asked = ("grid", "--seeds", "2", "--address", "local", "--to", "peft", str(workplace.folder / "out"))
    done = workplace.run(str(ROOT / "sweeps" / "finalise.py"), *asked)
    assert done.process.returncode == 0, done.output
    runs = workplace.state().runs
    assert sorted(run.seed for run in runs.values()) == [0, 1]
    assert set(workplace.endings().values()) == {1}
    assert "The final model is run" in done.output
    assert (workplace.folder / "out" / "adapter_config.json").is_file()
