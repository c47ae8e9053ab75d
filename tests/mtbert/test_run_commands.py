"""`python -m mtbert train|evaluate|predict`: one run without Ray, and what is done with it afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.store import Writer, read, weights_path
from mtbert.__main__ import main
from tests.mtbert.data.files import cs224n_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of CS 224N files, and beside them the results of one run over them."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "data").mkdir()
    cs224n_folder(folder / "data")
    (folder / "short.yaml").write_text("training: {steps: 3, batch_size: 2}\n", encoding="utf-8")
    assert main(["train", *training(folder)]) == 0
    return folder


def training(folder: Path) -> list[str]:
    return [str(folder / "short.yaml"), "--data", str(folder / "data"), "--results", str(folder / "results")]


def run_of(place: Path) -> str:
    (run_id,) = read(place / "results").runs
    return run_id


def test_a_run_is_trained_once_into_the_ledger(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = read(place / "results").runs[run_of(place)]
    assert (run.status, run.step) == ("completed", 3)
    assert main(["train", *training(place)]) == 0
    assert "steps" not in capsys.readouterr().out  # nothing is trained again
    assert read(place / "results").runs[run.run_id].attempt == run.attempt


def test_the_three_files_of_the_project_answer_its_test_sets(place: Path) -> None:
    out = place / "answers"
    assert main(["predict", run_of(place)[:6], "--results", str(place / "results"), "--out", str(out)]) == 0
    found = {path.name: path.read_text(encoding="utf-8").splitlines() for path in out.iterdir()}
    assert sorted(found) == ["para-test-output.csv", "sst-test-output.csv", "sts-test-output.csv"]
    ids = {name: [line.split(" , ")[0] for line in lines[1:]] for name, lines in found.items()}
    assert ids["sst-test-output.csv"] == ["test1", "test2", "test3"]
    assert ids["para-test-output.csv"] == ["quora-test-student0", "quora-test-student1"]
    assert ids["sts-test-output.csv"] == ["sts-test-student0", "sts-test-student1"]
    assert all(float(line.split(" , ")[1]) >= 0 for line in found["sst-test-output.csv"][1:])


def test_a_text_is_answered_by_the_tasks_that_take_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["predict", run_of(place), "--results", str(place / "results"), "--text", "a fine film"]
    assert main(asked) == 0
    (sentiment,) = capsys.readouterr().out.splitlines()
    assert sentiment.startswith("sst: class ")
    assert sentiment.endswith(" of 0 to 4")
    assert main([*asked, "--second", "a good one"]) == 0
    paraphrase, similarity = capsys.readouterr().out.splitlines()
    assert paraphrase.endswith(" of 0 to 1")
    assert similarity.endswith(" on a scale of 0 to 5")


def test_a_split_without_labels_is_not_evaluated(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["evaluate", run_of(place), "--results", str(place / "results")]
    assert main(asked) == 0
    assert "sst.accuracy" in capsys.readouterr().out
    assert main([*asked, "--split", "test"]) == 2
    assert "--split test: no task of run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_run_that_is_not_there_is_told(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "zzz", "--results", str(place / "results")]) == 2
    assert "no run whose id begins with 'zzz'; known are " in capsys.readouterr().err


def test_a_whole_id_is_its_run_s_though_others_begin_with_it(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    given = [str(place / "short.yaml"), "--data", str(place / "data"), "--results", str(results)]
    for seed in ("1", "10"):
        assert main(["train", *given, "--seed", seed]) == 0
    first, second = sorted(read(results).runs)
    assert second.startswith(first)
    assert main(["evaluate", first, "--results", str(results)]) == 0
    assert main(["evaluate", first[:6], "--results", str(results)]) == 2
    assert "2 runs have an id that begins with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--set", "low_rank={kind: orthogonal, rank: 300}"], "low_rank.rank: expected at most 42"),
        (["--set", "smart={weights: {qqp: 2}}"], "'qqp' is none of the trained tasks"),
        (["--set", "training.tasks=[qqp]"], "training.tasks: the data has no task 'qqp'"),
        (["--set", "weighting=none"], "weighting: expected a mapping with a kind, got 'none'"),
        (["--device", "gpu"], "--device: expected one of this machine, as cpu or cuda, got 'gpu'"),
    ],
)
def test_what_cannot_be_trained_is_not_begun(
    asked: list[str], said: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(place / "short.yaml"), "--data", str(place / "data")]
    assert main(["train", *given, *asked, "--results", str(tmp_path / "results")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    if "--set" in asked:
        assert main(["params", *given, *asked]) == 2
        assert said in capsys.readouterr().err


def test_predictions_without_a_place_or_a_text_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["predict", run_of(place), "--results", str(place / "results")]
    (tmp_path / "file").touch()
    assert main([*asked, "--out", str(tmp_path / "file")]) == 2
    assert "--out" in capsys.readouterr().err
    assert main([*asked, "--second", "a good one"]) == 2
    assert "--second: expected --text beside it, got none" in capsys.readouterr().err


def test_what_can_be_asked_of_a_pruned_run_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, run_id = place / "results", run_of(place)
    path = weights_path(results, run_id)
    kept = path.read_bytes()
    with Writer(results) as writer:
        writer.prune(run_id, "weights")
        path.unlink()
    assert main(["predict", run_id, "--results", str(results), "--text", "x"]) == 2
    assert f"run {run_id}: its weights were pruned on " in capsys.readouterr().err
    path.write_bytes(kept)  # a copy from elsewhere is as good
    assert main(["predict", run_id, "--results", str(results), "--text", "x"]) == 0
