"""Other tools are told each run, each value and each ending once, whenever they are told."""

from __future__ import annotations

import builtins
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.commands.mirror import MIRRORS
from analysis.mirror.content import Content, Known, content, contents, copy
from analysis.store import Writer, read
from tests.analysis.ledgers import ending, evaluation, run_json, train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def filled(writer: Writer, results: Path) -> Path:
    """A completed run of a sweep, one that failed, one in flight, and one that waits."""
    points = [{"run": run_json(f"c{at}", at), "point": {}} for at in (1, 4)]
    writer.declare({"sweep": "ranks", "kind": "grid"}, points)
    train(writer, run_json("c1", 1), ending(score=0.75))
    train(writer, run_json("c2", 2), ending("failed", score=None))
    attempt = writer.begin(run_json("c3", 3)).attempt
    assert attempt is not None
    writer.evaluation("c3-3", attempt, evaluation(10, 0.5))
    writer.close()
    return results


def go_on(results: Path) -> None:
    """The run in flight has another evaluation, and ends."""
    with Writer(results) as writer:
        attempt = writer.begin(run_json("c3", 3)).attempt
        assert attempt is not None
        writer.evaluation("c3-3", attempt, evaluation(20, 0.625))
        writer.end("c3-3", attempt, ending("stopped", 20, score=0.625), {}, b"")


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["mirror", *map(str, arguments)]) == 0
    return capsys.readouterr().out.rsplit(": ", 1)[1].strip()


class Memory:
    """A tool that remembers what it was told."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Any]] = {}

    def known(self, run_id: str) -> Known | None:
        if run_id not in self.runs:
            return None
        keys = frozenset(each.key for each in self.runs[run_id] if hasattr(each, "key"))
        ends = [round(each.time * 1000) for each in self.runs[run_id] if hasattr(each, "summary")]
        return Known(keys, ends[-1] if ends else None)

    def write(self, run: Content, values: Any, ended: Any) -> None:
        self.runs.setdefault(run.run_id, []).extend([*values, *([ended] if ended else [])])


def test_a_run_is_told_with_its_configuration_its_curves_and_its_ending(filled: Path) -> None:
    runs = {run.run_id: run for run in contents(read(filled), None)}
    assert sorted(runs) == ["c1-1", "c2-2", "c3-3"]
    first = runs["c1-1"]
    assert first.parameters["low_rank.rank"] == 4
    assert (first.parameters["seed"], first.parameters["data"]) == (1, "data1")
    assert first.sweeps == ("ranks",)
    assert [(value.name, value.step, value.value) for value in first.values] == [
        ("dev/sst/accuracy", 50, 0.25),
        ("dev/score", 50, 0.5),
        ("dev/sst/accuracy", 100, 0.25),
        ("dev/score", 100, 0.5),
    ]
    assert first.ended is not None
    assert first.ended.numbers["score"] == first.ended.numbers["sst.accuracy"] == 0.75
    assert "sts.pearson" not in first.ended.summary  # it is undefined
    failed = runs["c2-2"].ended
    assert failed is not None
    assert failed.texts == {"status": "failed", "error": "it broke", "device": "cpu", "host": "here"}
    assert runs["c3-3"].ended is None


def test_each_value_and_each_ending_is_told_once_by_one_process_and_by_several(filled: Path) -> None:
    tool, before = Memory(), dict[str, Content]()
    assert copy(read(filled), None, tool, before) == (3, 10)
    assert copy(read(filled), None, tool, before) == (0, 0)
    assert copy(read(filled), None, tool, {}) == (0, 0)
    go_on(filled)
    assert copy(read(filled), None, tool, before) == (1, 2)
    assert copy(read(filled), None, tool, {}) == (0, 0)
    values = [each.key for run in tool.runs.values() for each in run if hasattr(each, "key")]
    assert len(values) == len(set(values)) == 12


def test_a_run_that_is_tried_again_is_told_again_from_its_start(writer: Writer) -> None:
    tool = Memory()
    train(writer, run_json(), ending("failed"))
    copy(writer.refresh(), None, tool, {})
    train(writer, run_json(), ending())
    assert copy(writer.refresh(), None, tool, {}) == (1, 4)
    assert [each.status for each in tool.runs["c1-0"] if hasattr(each, "summary")] == ["failed", "completed"]


def test_a_sweep_alone_is_told(filled: Path) -> None:
    tool = Memory()
    copy(read(filled), "ranks", tool, {})
    assert list(tool.runs) == ["c1-1"]


def events(folder: Path) -> list[Any]:
    """All events of a run's files, by the format's own description: length, its CRC, data, its CRC."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        with open(path, "rb") as file:
            while header := file.read(8):
                assert struct.unpack("<I", file.read(4)) == (masked_crc32c(header),)
                data = file.read(struct.unpack("<Q", header)[0])
                assert struct.unpack("<I", file.read(4)) == (masked_crc32c(data),)
                found.append(Event.FromString(data))
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        for value in event.summary.value:
            if not value.tag.startswith("_hparams_"):
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


def test_tensorboard_reads_curves_hyperparameters_and_summary(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    place = tmp_path / "board"
    options = (filled, "--to", "tensorboard", "--at", place)
    assert told(capsys, *options) == "10 value(s) of 3 run(s) are new there"
    assert told(capsys, *options) == "0 value(s) of 0 run(s) are new there"
    go_on(filled)
    assert told(capsys, *options) == "2 value(s) of 1 run(s) are new there"
    assert scalars(place / "c3-3")["dev/score"] == [(10, 0.5), (20, 0.625)]
    assert scalars(place / "c1-1")["dev/sst/accuracy"] == [(50, 0.25), (100, 0.25)]
    assert scalars(place / "c1-1")["summary/score"] == [(100, 0.75)]
    sessions = [
        HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in events(place / "c1-1")
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    ]
    start, end = sessions
    parameters = start.session_start_info.hparams
    assert parameters["low_rank.rank"].number_value == 4
    assert parameters["low_rank.kind"].string_value == "lora"
    assert end.session_end_info.status == 1
    times = [event.wall_time for event in events(place / "c1-1") if event.summary.value]
    assert times == sorted(times)


def test_a_half_written_event_file_is_no_part_of_the_mirror(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "board"
    (place / "c1-1").mkdir(parents=True)
    (place / "c1-1" / ".1.tmp").write_bytes(b"half")
    options = (filled, "--to", "tensorboard", "--at", place)
    assert told(capsys, *options) == "10 value(s) of 3 run(s) are new there"


@pytest.mark.slow  # MLflow makes its database by all the changes that it ever had
def test_mlflow_has_curves_parameters_and_summary(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow")
    place = f"sqlite:///{tmp_path / 'mlflow.db'}"
    options = (filled, "--to", "mlflow", "--at", place)
    assert told(capsys, *options) == "10 value(s) of 3 run(s) are new there"
    assert told(capsys, *options) == "0 value(s) of 0 run(s) are new there"
    go_on(filled)
    assert told(capsys, *options) == "2 value(s) of 1 run(s) are new there"
    client = mlflow.MlflowClient(tracking_uri=place)
    experiment = client.get_experiment_by_name("mtbert").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert {name: run.info.status for name, run in runs.items()} == {
        "c1-1": "FINISHED",
        "c2-2": "FAILED",
        "c3-3": "KILLED",
    }
    assert runs["c1-1"].data.params["low_rank.rank"] == "4"
    assert runs["c1-1"].data.metrics["summary/score"] == 0.75
    assert runs["c1-1"].data.tags["sweeps"] == "ranks"
    assert runs["c2-2"].data.tags["error"] == "it broke"
    history = client.get_metric_history(runs["c3-3"].info.run_id, "dev/score")
    assert sorted((each.step, each.value) for each in history) == [(10, 0.5), (20, 0.625)]


def test_wandb_has_curves_configuration_and_summary_offline(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = (filled, "--to", "wandb", "--at", tmp_path / "wandb", "--sweep", "ranks")
    assert told(capsys, *options) == "4 value(s) of 1 run(s) are new there"
    assert told(capsys, *options) == "0 value(s) of 0 run(s) are new there"
    (path,) = (tmp_path / "wandb").glob("wandb/offline-run-*/run-c1-1.wandb")
    text = path.read_bytes()
    for word in (b"dev/sst/accuracy", b"low_rank", b"summary/score", b"c1-1"):
        assert word in text


@pytest.mark.parametrize(
    ("tool", "library"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_missing_library_is_told_with_what_to_install(
    tool: str, library: str, filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def importing(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ImportError(f"No module named {library!r}")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", importing)
    assert main(["mirror", str(filled), "--to", tool]) == 2
    assert f"pip install 'mtbert[{tool}]'" in capsys.readouterr().err
    assert set(MIRRORS) == {"tensorboard", "wandb", "mlflow"}


def test_following_goes_on_until_nobody_is_at_work(results: Path, tmp_path: Path) -> None:
    with Writer(results, "busy", "ranks") as writer:
        train(writer, run_json("c1"), ending(), "ranks")
        command = [sys.executable, "-m", "analysis", "mirror", str(results), "--to", "tensorboard"]
        command += ["--at", str(tmp_path / "board"), "--follow"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert "4 value(s) of 1 run(s)" in running.stdout.readline()
            train(writer, run_json("c2"), ending(), "ranks")
            writer.close()
            rest = running.stdout.read()
            assert running.wait(timeout=60) == 0
    assert "4 value(s) of 1 run(s)" in rest
    assert scalars(tmp_path / "board" / "c2-0")["dev/score"] == [(50, 0.5), (100, 0.5)]


def test_what_is_told_of_a_run_is_the_same_each_time(filled: Path) -> None:
    runs = read(filled).runs
    assert content(runs["c1-1"], (), ()) == content(read(filled).runs["c1-1"], (), ())
