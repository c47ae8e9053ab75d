"""`python -m mtbert merge`: from three runs of a task each to a run in the ledger, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.__main__ import main as ask
from analysis.ranking import ranked
from analysis.store import Writer, read, weights_path
from mtbert.__main__ import main
from mtbert.run import Run

TASKS = ("sst", "para", "sts")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of the demo, a task each."""
    folder = tmp_path_factory.mktemp("merging") / "results"
    for task in TASKS:
        assert main(["train", "--limit", "40", "--results", str(folder), "--set", f"training.tasks=[{task}]",
                     "--set", "low_rank.rank=2", "--set", "training.steps=2"]) == 0  # fmt: skip
    return folder


def parents_of(results: Path) -> dict[str, str]:
    """The run of each task."""
    found = {}
    for run in read(results).runs.values():
        tasks = run.run["configuration"].get("training", {}).get("tasks", [])
        if len(tasks) == 1:
            found[tasks[0]] = run.run_id
    return found


def merge(results: Path, kind: str, *more: str, shorten: int = 20) -> int:
    """The command over all three, named by the beginnings of their ids."""
    named = [f"{task}={run_id[:shorten]}" for task, run_id in parents_of(results).items()]
    return main(["merge", kind, *named, "--results", str(results), *more])


def merged_runs(results: Path) -> list[str]:
    return [id_ for id_, run in read(results).runs.items() if "merge" in run.run["configuration"]]


@pytest.mark.parametrize("kind", ["ensemble", "average"])
def test_a_merge_is_a_completed_run_that_can_be_used(
    kind: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert merge(results, kind, shorten=8) == 0
    said = capsys.readouterr().out
    (run_id,) = [id_ for id_ in merged_runs(results) if f"run {id_} completed at step 0" in said]
    known = read(results).runs[run_id]
    assert known.status == "completed"
    assert Run.from_json(known.run).run_id == run_id
    merge_of = known.run["configuration"]["merge"]
    assert {f"{parent}-0" for parent in merge_of["parents"].values()} == set(parents_of(results).values())
    assert known.run["inputs"]["limit"] == {"all": 40}
    assert weights_path(results, run_id).is_file()
    assert main(["evaluate", run_id, "--results", str(results)]) == 0
    told = known.ended
    assert told is not None
    found = capsys.readouterr().out
    for name, value in told["metrics"].items():
        assert f"  {name:<16} {value:.4f}" in found
    assert main(["predict", run_id, "--results", str(results), "--text", "a fine film"]) == 0
    assert "sst: class" in capsys.readouterr().out


def test_an_ensemble_has_its_parents_metrics(results: Path) -> None:
    assert merge(results, "ensemble") == 0
    runs = read(results).runs
    (found,) = [
        runs[id_].ended for id_ in merged_runs(results)
        if runs[id_].run["configuration"]["merge"]["kind"] == "ensemble"
    ]  # fmt: skip
    wanted = {}
    for run_id in parents_of(results).values():
        wanted |= (runs[run_id].ended or {})["metrics"]
    assert found is not None
    assert found["metrics"] == wanted


def test_the_same_merge_again_does_nothing_and_says_so(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert merge(results, "average") == 0
    before = merged_runs(results)
    times = {id_: read(results).runs[id_].ending for id_ in before}
    capsys.readouterr()
    assert merge(results, "average") == 0
    assert "already; nothing was done" in capsys.readouterr().out
    assert merged_runs(results) == before
    assert {id_: read(results).runs[id_].ending for id_ in before} == times


def test_weights_make_another_merge(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = [flag for task in TASKS for flag in ("--weight", f"{task}=0.5")]
    assert merge(results, "average", *weights) == 0
    assert "already" not in capsys.readouterr().out


def test_merged_runs_are_in_the_ranking(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert merge(results, "ensemble") == 0
    best = ranked(read(results))
    scored = [row for row in best if row.mean is not None]
    assert set(merged_runs(results)) == {run_id for row in scored for run_id in row.run_ids}
    capsys.readouterr()
    assert ask(["best", str(results)]) == 0
    assert scored[0].config_id in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["average", "sst"], "merge: expected TASK=RUN, got 'sst'"),
        (["average", "sst=a", "sst=b"], "merge: sst is given twice, a and b"),
        (["average", "sst=nothing"], "no run whose id begins with 'nothing'"),
        (["average", "sst={para}"], "merge.parents.sst: run {para}: training.tasks: was trained on para"),
        (["average", "nli={sst}"], "merge.parents: the data has no task 'nli'"),
        (["orthogonal", "sst={sst}"], "low_rank.kind: expected orthogonal for this merge, got lora"),
        (["ensemble", "sst={sst}", "--weight", "sst=1"], "merge.weights: an ensemble keeps"),
        (["average", "sst={sst}", "--weight", "sst=much"], "--weight: expected TASK=NUMBER"),
        (["average", "sst={sst}", "--weight", "sst=nan"], "merge.weights.sst: expected a finite number"),
        (["average", "sst={sst}", "--limit", "41"], "expected what run {sst} was trained with"),
    ],
)
def test_what_cannot_be_merged_is_said_and_leaves_the_ledger_alone(
    arguments: list[str], said: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parents, before = parents_of(results), read(results)
    filled = [argument.format(**parents) for argument in arguments]
    assert main(["merge", *filled, "--results", str(results)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said.format(**parents) in error
    assert read(results) == before


def test_a_run_that_did_not_complete_and_one_without_weights_are_refused(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parents = parents_of(results)
    run = read(results).runs[parents["sst"]].run
    failed = Run(Run.from_json(run).configuration, 7, run["data"], run["model"])
    with Writer(results) as writer:
        attempt = writer.begin(failed.as_json()).attempt
        assert attempt is not None
        writer.end(failed.run_id, attempt, {"status": "diverged", "step": 1}, {}, b"")
    assert main(["merge", "average", f"sst={failed.run_id}", "--results", str(results)]) == 2
    assert f"run {failed.run_id} is diverged; expected a completed run" in capsys.readouterr().err
    path = weights_path(results, parents["sts"])
    away = path.rename(path.with_suffix(".away"))
    assert main(["merge", "average", f"sts={parents['sts']}", "--results", str(results)]) == 2
    assert f"run {parents['sts']} has no weights at {path}" in capsys.readouterr().err
    away.rename(path)
