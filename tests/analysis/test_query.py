"""SQL over the tables: the same answer from Parquet and from the ledger, and nothing else in reach."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.query import Sources, query, quoted
from analysis.store import StoreError, Writer
from tests.analysis.ledgers import ending, evaluation, run_json, train

QUESTIONS = [
    'select run_id, score, "sst.accuracy", "low_rank.rank" from runs order by run_id',
    "select * exclude (time) from evaluations order by run_id, step, split, task, metric",
    "select * from sweeps order by all",
    "select * from predictions order by all",
    "select first, count(*) from predictions join examples using (task, example_id) group by 1 order by 1",
    "select status, count(*) as n from runs group by 1 order by 1",
]


@pytest.fixture
def filled(writer: Writer, results: Path) -> Path:
    """Two sweeps of two configurations each, one shared."""
    for name, ranks in (("small", (2, 4)), ("large", (4, 8))):
        runs = [run_json(f"c{rank}", seed, low_rank={"rank": rank}) for rank in ranks for seed in (0, 1)]
        points = [
            {"run": run, "point": {"low_rank.rank": run["configuration"]["low_rank"]["rank"]}} for run in runs
        ]
        writer.declare({"sweep": name, "kind": "grid", "objective": "score"}, points)
        for run in runs:
            if writer.refresh().runs[run["run_id"]].status is None:
                train(writer, run, ending(score=run["configuration"]["low_rank"]["rank"] / 16))
    ids = [f"example{row}" for row in range(2)]
    columns = {"id": ids, "task": ["sst"] * 2, "split": ["dev"] * 2}
    writer.examples("data1", columns | {"first": ["good", "bad"], "second": [None] * 2, "label": [1.0, 0.0]})
    return results


@pytest.mark.parametrize("sweep", [None, "small"])
@pytest.mark.parametrize("sql", QUESTIONS)
def test_parquet_and_ledger_give_the_same_answer(
    writer: Writer, filled: Path, monkeypatch: pytest.MonkeyPatch, sql: str, sweep: str | None
) -> None:
    from_ledger = query(filled, sql, sweep)
    writer.compact()
    monkeypatch.delattr("analysis.query.read")  # the ledger cannot be asked now
    from_parquet = query(filled, sql, sweep)
    assert from_parquet.to_pylist() == from_ledger.to_pylist()
    assert from_parquet.num_rows > 0


def test_dotted_columns_hold_what_the_runs_were_given(filled: Path) -> None:
    rows = query(filled, QUESTIONS[0]).to_pylist()
    assert [(row["run_id"], row["low_rank.rank"]) for row in rows] == [
        (f"c{rank}-{seed}", rank) for rank in (2, 4, 8) for seed in (0, 1)
    ]
    assert all(row["score"] == row["sst.accuracy"] == row["low_rank.rank"] / 16 for row in rows)


def test_a_sweep_narrows_every_table(filled: Path) -> None:
    for name in ("runs", "evaluations", "predictions", "sweeps"):
        found = query(filled, f"select distinct run_id from {name} order by 1", "small")
        assert found["run_id"].to_pylist() == ["c2-0", "c2-1", "c4-0", "c4-1"]
    assert query(filled, "select distinct sweep from sweeps", "small").to_pylist() == [{"sweep": "small"}]


def test_a_sweep_without_runs_has_empty_tables(writer: Writer, filled: Path) -> None:
    writer.declare({"sweep": "new", "kind": "grid", "objective": "score"}, [])
    for table in ("runs", "sweeps", "evaluations", "predictions"):
        assert query(filled, f"select * from {table}", "new").num_rows == 0


def test_a_running_sweep_answers_as_far_as_it_is(writer: Writer, filled: Path) -> None:
    writer.compact()
    writer.begin(run_json("new"))
    writer.evaluation("new-0", 1, evaluation(10))
    sql = "select status, steps from runs where run_id = 'new-0'"
    assert query(filled, sql).to_pylist() == [{"status": "running", "steps": 10}]
    found = query(filled, "select count(*) as n from evaluations where run_id = 'new-0'")
    assert found.to_pylist() == [{"n": len(evaluation(10)["rows"])}]


def test_a_run_whose_driver_died_is_interrupted(writer: Writer, filled: Path) -> None:
    writer.begin(run_json("new"))
    writer.compact()
    sql = "select status from runs where run_id = 'new-0'"
    assert query(filled, sql).to_pylist() == [{"status": "running"}]
    writer.close()
    assert query(filled, sql).to_pylist() == [{"status": "interrupted"}]


def test_a_damaged_parquet_file_is_passed_over_for_the_ledger(writer: Writer, filled: Path) -> None:
    writer.compact()
    (filled / "tables/runs.parquet").write_bytes(b"torn")
    assert query(filled, "select count(*) as n from runs").to_pylist() == [{"n": 6}]


def test_tables_that_are_replaced_while_they_are_asked_stay_as_they_were(
    writer: Writer, filled: Path
) -> None:
    writer.compact()
    sources = Sources(filled)
    sql = "select count(*) as n from evaluations"
    before = sources.ask(sql)
    for seed in range(2, 40):
        train(writer, run_json("c2", seed, low_rank={"rank": 2}), ending())
    writer.compact()
    assert sources.ask(sql) == before
    assert query(filled, sql) != before


def test_a_table_with_a_damaged_page_is_named(writer: Writer, filled: Path) -> None:
    writer.compact()
    path = filled / "tables/runs.parquet"
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"runs.parquet: damaged .*; delete it: it is made anew"):
        query(filled, "select * from runs")
    path.unlink()
    assert query(filled, "select count(*) as n from runs").to_pylist() == [{"n": 6}]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", 'syntax error at or near "selec"'),
        ("select * from run", "the tables are runs, sweeps, evaluations, predictions, examples"),
        ("select low_rank.rank from runs", 'in double quotes: "low_rank.rank"'),
        ("select nosuch from runs", 'Referenced column "nosuch" not found'),
    ],
)
def test_a_wrong_statement_is_told_in_one_line(filled: Path, sql: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        query(filled, sql)
    assert str(caught.value).startswith("SQL: ")
    assert "\n" not in str(caught.value)


def test_a_query_reaches_no_file(filled: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for sql in (
        f"select * from '{secret}'",
        f"select * from read_csv('{secret}')",
        f"copy runs to '{tmp_path / 'out.csv'}'",
        f"copy runs to '{filled / 'tables/runs.parquet'}'",
        f"attach '{tmp_path / 'new.db'}'",
        "set enable_external_access = true",
    ):
        with pytest.raises(StoreError):
            query(filled, sql)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "secret.csv"]


def test_asking_changes_nothing(filled: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    query(filled, "create table mine as select * from runs")
    assert {path: path.stat().st_mtime_ns for path in filled.rglob("*")} == before


def test_folders_without_results_are_told(tmp_path: Path, filled: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        query(tmp_path / "nowhere", "select 1")
    with pytest.raises(StoreError, match="no results in this folder"):
        query(tmp_path, "select 1")
    with pytest.raises(StoreError, match="no sweep 'x' in these results; known are large, small"):
        query(filled, "select * from runs", "x")


def test_predictions_that_are_gone_are_told(filled: Path) -> None:
    shutil.rmtree(filled / "ledger/predictions")
    with pytest.raises(StoreError, match=r"cannot read .*predictions.*no such file"):
        query(filled, "select * from predictions")


def test_the_answer_can_be_written_as_parquet(filled: Path, tmp_path: Path) -> None:
    pq.write_table(query(filled, "select * from runs"), tmp_path / "runs.parquet")
    assert pq.read_table(tmp_path / "runs.parquet").num_rows == 6


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("low_rank.rank=4", '"low_rank.rank"=4'),
        ("low_rank.rank = 4 and status='low_rank.rank'", "\"low_rank.rank\" = 4 and status='low_rank.rank'"),
        ('"low_rank.rank" > 1.5', '"low_rank.rank" > 1.5'),
        ("runs.seed = 1", "runs.seed = 1"),
        ("name = 'it''s low_rank.rank'", "name = 'it''s low_rank.rank'"),
    ],
)
def test_dotted_columns_in_a_condition_are_quoted(condition: str, expected: str) -> None:
    assert quoted(condition, ["low_rank.rank", "seed"]) == expected
