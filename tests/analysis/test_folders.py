"""Results folders of other versions of this program: an older one is as good as new, a newer one is refused.

`folders/first` was written by the first commit with a ledger (428b45b): its sweeps/lora_grid.py trained
a grid on the embedded demo (--ranks 1,4 --seeds 2 --steps 20 --limit 40 --name kept), and its Writer and
Trainer took one more run, of rank 2, to its first evaluation, twice, in processes that then died. Most
weights and two tables were taken out, to keep it small. `folders/newer` names a format that nobody has yet.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
import pytest

from analysis.__main__ import main
from analysis.query import query
from analysis.store import StoreError, Tag, Writer, read, read_weights, schema
from tests.analysis.ledgers import ending, evaluation, predictions

FOLDERS = Path(__file__).parent / "folders"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The folder of the first commit, to be written to."""
    return Path(shutil.copytree(FOLDERS / "first", tmp_path / "first"))


def records(results: Path, kind: str) -> list[dict[str, Any]]:
    """What the ledger says, read as any JSON."""
    paths = sorted((results / "ledger/segments").glob("*.jsonl"))
    lines = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


def endings(results: Path) -> dict[str, dict[str, Any]]:
    return {record["run_id"]: record["record"] for record in records(results, "end")}


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert main([*map(str, arguments), "--format", "json"]) == 0
    output = capsys.readouterr()
    assert output.err == ""  # nothing had to be passed over
    rows: list[dict[str, Any]] = json.loads(output.out)
    return rows


def test_the_folder_kept_is_of_the_first_schema_and_has_what_is_tested() -> None:
    assert {record["version"] for record in records(FOLDERS / "first", "segment")} == {1}
    metadata = pq.read_schema(FOLDERS / "first/tables/runs.parquet").metadata
    assert metadata[b"schema_version"] == b"1"
    assert schema.VERSION > 1
    assert len(endings(FOLDERS / "first")) == 4
    assert len(records(FOLDERS / "first", "begin")) == 6


def test_the_ranking_of_an_older_folder(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores: dict[str, list[float]] = {}
    for run_id, record in endings(first).items():
        scores.setdefault(run_id.rpartition("-")[0], []).append(record["score"])
    expected = sorted(((fmean(values), config_id) for config_id, values in scores.items()), reverse=True)
    rows = answer(capsys, "best", first)
    assert [row["config_id"] for row in rows] == [config_id for _, config_id in expected]
    assert [row["mean"] for row in rows] == pytest.approx([mean for mean, _ in expected])


def test_the_runs_of_an_older_folder(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = answer(capsys, "runs", first)
    ended = endings(first)
    assert {row["run_id"]: row["score"] for row in rows if row["status"] == "completed"} == {
        run_id: record["score"] for run_id, record in ended.items()
    }
    assert [row["status"] for row in rows if row["run_id"] not in ended] == ["interrupted"]
    assert {row["low_rank.rank"] for row in rows} == {1, 2, 4}
    assert all((row["tags"], row["pruned"]) == ([], None) for row in rows)


def test_every_table_of_an_older_folder_can_be_asked(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = """select task, count(*) as rows, count(first) as texts
             from predictions join examples using (task, example_id) where split = 'dev'
             group by task order by task"""
    rows = answer(capsys, "sql", first, sql)
    assert [row["task"] for row in rows] == ["para", "sst", "sts"]
    assert all(row["rows"] == row["texts"] > 0 for row in rows)
    (counts,) = answer(
        capsys, "sql", first, "select count(*) as n from (select distinct run_id, step from evaluations)"
    )
    assert counts["n"] == len({(each["run_id"], each["step"]) for each in records(first, "evaluation")})
    (sweep,) = answer(capsys, "sql", first, "select distinct sweep, kind from sweeps")
    assert sweep == {"sweep": "kept", "kind": "grid"}


def test_what_rank_did_in_an_older_folder(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    means = {row["low_rank.rank"]: row["mean"] for row in answer(capsys, "best", first)}
    rows = answer(capsys, "compare", first)
    assert [(row["field"], row["value"], row["runs"]) for row in rows] == [
        ("low_rank.rank", 1, 2),
        ("low_rank.rank", 4, 2),
    ]
    assert rows[1]["difference"] == pytest.approx(means[4] - means[1])


def test_an_older_folder_can_be_watched(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(first), "--sweep", "kept"]) == 0
    assert "sweep kept (grid): 4 completed, 1 interrupted" in capsys.readouterr().out


def test_a_sweep_goes_on_in_an_older_folder(first: Path) -> None:
    before = endings(first)
    (waiting,) = (run for run in read(first).runs.values() if not run.final)
    with Writer(first) as writer:
        assert {writer.begin(read(first).runs[run_id].run).refused for run_id in before} == {"ended"}
        attempt = writer.begin(waiting.run, "kept").attempt
        assert attempt == waiting.attempt + 1 == 3
        stored = writer.load_checkpoint(waiting.run_id)
        assert stored is not None
        assert stored[0] == waiting.step > 0
        writer.evaluation(waiting.run_id, attempt, evaluation(20))
        writer.end(waiting.run_id, attempt, ending(step=20), predictions(), b"weights")
        writer.tag(Tag("sweep", "kept", "old"))
        writer.compact()
    table = pq.read_table(first / "tables/runs.parquet")
    assert table.schema.metadata[b"schema_version"] == str(schema.VERSION).encode()
    assert set(table["run_id"].to_pylist()) == {*before, waiting.run_id}
    assert set(table["status"].to_pylist()) == {"completed"}
    assert query(first, "select distinct tags from runs")["tags"].to_pylist() == [["old"]]
    runs = read(first).runs
    assert {run_id: runs[run_id].ended for run_id in before} == before
    (kept,) = (path.stem for path in (FOLDERS / "first/weights").iterdir())
    assert read_weights(first, runs[kept]) == (FOLDERS / f"first/weights/{kept}.safetensors").read_bytes()


def test_a_tag_survives_a_snapshot_by_a_program_that_knows_none(first: Path) -> None:
    with Writer(first, "tagger") as writer:
        writer.tag(Tag("sweep", "kept", "old"))
    (segment,) = (first / "ledger/segments").glob("tagger-*")
    snapshot = first / "ledger/snapshot.jsonl"
    assert json.loads(snapshot.read_text(encoding="utf-8").splitlines()[0])["version"] == 1
    assert segment.name not in snapshot.read_text(encoding="utf-8")
    assert read(first).labels.keys() == read(first).runs.keys()
    with Writer(first) as writer:
        writer.compact()
    assert read(first).labels.keys() == read(first).runs.keys()


COMMANDS = (("best",), ("runs",), ("errors",), ("compare",), ("sql", "select * from runs"), ("watch",))


@pytest.mark.parametrize("command", [*COMMANDS, ("tag", "a", "b")])
def test_a_newer_folder_is_refused(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = shutil.copytree(FOLDERS / "newer", tmp_path / "newer")
    assert main([command[0], str(newer), *command[1:]]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f"error: {newer}/ledger: written in format 99, this program reads up to 1: "
        "use the program that wrote it, or a newer one\n"
    )


def test_nothing_is_written_to_a_newer_folder(tmp_path: Path) -> None:
    newer = shutil.copytree(FOLDERS / "newer", tmp_path / "newer")
    before = {path: path.read_bytes() for path in newer.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match="written in format 99"):
        Writer(newer)
    assert {path: path.read_bytes() for path in newer.rglob("*") if path.is_file()} == before
