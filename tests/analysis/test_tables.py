"""The tables: they say what the ledger says, are whole at any moment, and known to be up to date or not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.store import StoreError, Writer, read, schema
from analysis.store.compaction import current_stamp, table_path, table_stamp
from analysis.store.files import Layout
from analysis.store.spread import column, differing, flat, spread
from analysis.store.tables import evaluation_tables, runs_table, sweeps_table
from tests.analysis.ledgers import ending, evaluation, predictions, run_json, train

SWEEP = {"sweep": "lora", "kind": "grid", "axes": {"low_rank.rank": [4]}, "objective": "score"}


def table(results: Path, name: str) -> pa.Table:
    return pq.read_table(table_path(Layout.of(results), name))


def test_a_row_says_what_its_run_is_and_how_it_ended(writer: Writer, results: Path) -> None:
    train(writer, run_json(), ending(score=0.75))
    writer.compact()
    (row,) = table(results, "runs").to_pylist(maps_as_pydicts="strict")
    told = ending(score=0.75)
    for name in (
        "score",
        "kept_step",
        "trainable",
        "total",
        "tokens",
        "seconds_training",
        "peak_memory",
        "host",
    ):
        assert row[name] == told[name]
    assert row["metrics"] == told["metrics"]
    assert (row["run_id"], row["config_id"], row["seed"], row["status"]) == ("c1-0", "c1", 0, "completed")
    assert (row["steps"], row["attempt"], row["weights_bytes"]) == (100, 1, len(b"weights of c1-0"))
    assert (row["data"], row["model"], row["method_version"]) == ("data1", "model1", 1)
    assert row["versions"] == '{"torch":"2.13.0"}'
    assert row["configuration"] == '{"low_rank":{"kind":"lora","rank":4}}'
    now = datetime.now(UTC).replace(tzinfo=None)
    assert row["begun"] <= row["ended"] <= now
    assert (now - row["begun"]).total_seconds() < 600


def test_runs_that_have_not_ended_have_their_row_too(writer: Writer, results: Path) -> None:
    writer.declare(SWEEP, [{"run": run_json(seed=seed), "point": {}} for seed in range(4)])
    for seed in (1, 2, 3):
        writer.begin(run_json(seed=seed))
    writer.evaluation("c1-1", 1, evaluation(30))
    writer.end("c1-2", 1, ending("failed", 10, None), {}, b"")
    writer.end("c1-3", 1, ending("stopped", 20), {}, b"")
    rows = {row["run_id"]: row for row in runs_table(read(results)).to_pylist()}
    statuses = {run_id: row["status"] for run_id, row in rows.items()}
    assert statuses == {"c1-0": "waiting", "c1-1": "running", "c1-2": "failed", "c1-3": "stopped"}
    running = rows["c1-1"]
    assert (running["steps"], running["score"], running["tokens"]) == (30, None, 210)
    assert (running["driver"], rows["c1-3"]["driver"]) == ("first", None)
    assert (rows["c1-2"]["error_kind"], rows["c1-2"]["error_message"]) == ("error", "it broke")


def test_an_evaluation_has_a_row_per_split_task_and_metric(writer: Writer, results: Path) -> None:
    train(writer, run_json(), ending())
    train(writer, run_json(seed=1), ending(step=60))
    writer.compact()
    expected = [
        {
            "run_id": run_id,
            "attempt": 1,
            **{name: evaluation(step)[name] for name in ("step", "epoch", "tokens")},
            **{name: evaluation(step)[name] for name in ("seconds_training", "seconds_evaluation")},
            **dict(zip(("split", "task", "metric", "value"), row, strict=True)),
        }
        for run_id, steps in (("c1-0", (50, 100)), ("c1-1", (30, 60)))
        for step in steps
        for row in evaluation(step)["rows"]
    ]
    assert table(results, "evaluations").drop_columns("time").to_pylist() == [
        {name: row[name] for name in schema.EVALUATIONS.names if name != "time"} for row in expected
    ]


def test_sweeps_predictions_and_examples_are_joined_by_their_keys(writer: Writer, results: Path) -> None:
    writer.declare(
        SWEEP | {"declared": "2026-01-02T03:04:05+01:00"}, [{"run": run_json(), "point": {"rank": 4}}]
    )
    texts = {"first": ["a film", "a play"], "second": [None, None], "label": [1.0, None]}
    ids = {"id": ["example0", "example1"], "task": ["sst", "sst"], "split": ["dev", "dev"]}
    writer.examples("data1", ids | texts)
    train(writer, run_json(), ending(), "lora")
    writer.compact()
    (row,) = table(results, "sweeps").to_pylist()
    assert (row["sweep"], row["run_id"], row["point"]) == ("lora", "c1-0", '{"rank":4}')
    assert (row["kind"], row["objective"], row["axes"]) == ("grid", "score", '{"low_rank.rank":[4]}')
    assert row["declared"] == datetime(2026, 1, 2, 2, 4, 5)
    joined = table(results, "predictions").join(table(results, "examples"), ["task", "example_id"])
    assert sorted(joined["first"].to_pylist()) == ["a film", "a play"]


def test_only_the_standing_ending_has_its_predictions_in_the_table(writer: Writer, results: Path) -> None:
    train(writer, run_json(), ending("failed"))
    train(writer, run_json(), ending("completed"))
    writer.compact()
    assert table(results, "predictions").num_rows == 2
    assert table(results, "runs")["attempt"].to_pylist() == [2]


def test_a_table_knows_whether_it_is_up_to_date(writer: Writer, results: Path) -> None:
    layout = Layout.of(results)
    assert table_stamp(table_path(layout, "runs")) is None
    train(writer, run_json(), ending())
    writer.compact()
    assert {table_stamp(table_path(layout, name)) for name in schema.TABLES} == {current_stamp(layout)}
    writer.begin(run_json(seed=1))
    assert table_stamp(table_path(layout, "runs")) != current_stamp(layout)
    table_path(layout, "runs").write_bytes(b"no Parquet")
    assert table_stamp(table_path(layout, "runs")) is None
    writer.compact()
    assert table_stamp(table_path(layout, "runs")) == current_stamp(layout)


def test_a_table_of_another_schema_version_is_not_up_to_date(
    writer: Writer, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(writer, run_json(), ending())
    writer.compact()
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    assert table_stamp(table_path(Layout.of(results), "runs")) is None
    writer.compact()
    assert table_stamp(table_path(Layout.of(results), "runs")) == current_stamp(Layout.of(results))


def test_compacting_again_changes_nothing(writer: Writer, results: Path) -> None:
    train(writer, run_json(), ending())
    writer.compact()
    written = {path: path.stat().st_ino for path in results.rglob("*.parquet")}
    writer.compact()
    assert {path: path.stat().st_ino for path in results.rglob("*.parquet")} == written


def test_the_tables_of_an_empty_ledger_have_their_columns(writer: Writer, results: Path) -> None:
    writer.compact()
    for name, expected in schema.TABLES.items():
        assert table(results, name).schema.names == expected.names
        assert table(results, name).num_rows == 0


def test_batches_of_runs_make_one_table(
    writer: Writer, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(5):
        train(writer, run_json(seed=seed), ending())
    runs = read(results).runs_of(None)
    whole = pa.concat_tables(evaluation_tables(runs))
    monkeypatch.setattr("analysis.store.tables._BATCH", 2)
    assert len(list(evaluation_tables(runs))) == 3
    assert pa.concat_tables(evaluation_tables(runs)).equals(whole)


def test_a_value_that_does_not_fit_is_told_with_its_column(writer: Writer, results: Path) -> None:
    train(writer, run_json(), ending(trainable="many"))
    with pytest.raises(StoreError, match="does not fit the column 'trainable'"):
        runs_table(read(results))


def test_what_died_writers_left_is_cleared(writer: Writer, results: Path) -> None:
    train(writer, run_json(), ending())
    left = [results / "checkpoints/c1-0@50.1.safetensors", results / "weights/.c1-0.safetensors~dead.tmp"]
    kept = [results / "checkpoints/c2-0@50.1.safetensors", results / "weights/.c2-0.safetensors~first.tmp"]
    for path in (*left, *kept):
        path.write_bytes(b"x")
    writer.compact()
    assert [path.exists() for path in (*left, *kept)] == [False, False, True, True]


plain = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "b"])
names = st.sampled_from(["x", "y", "z"])
configurations = st.recursive(
    st.dictionaries(names, plain, max_size=3),
    lambda inner: st.dictionaries(names, plain | inner, max_size=3),
    max_leaves=6,
)


def by_path(configuration: dict[str, Any], path: str) -> Any:
    value: Any = configuration
    for name in path.split("."):
        value = value[name]
    return value


@given(configurations)
def test_a_dotted_name_leads_to_its_value(configuration: dict[str, Any]) -> None:
    fields = flat(configuration)
    assert all(by_path(configuration, name) == value for name, value in fields.items())
    assert None not in fields.values()


def test_lists_of_plain_values_are_text_and_others_json() -> None:
    configuration = {"targets": ["query", "value"], "layers": [0, 1], "stages": [{"steps": 5}], "none": []}
    assert flat(configuration) == {"targets": "query,value", "layers": "0,1", "stages": '[{"steps":5}]'}


def test_fields_differ_where_any_two_configurations_do() -> None:
    assert differing([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": 0}]) == ["b", "c"]
    assert differing([{"a": 1}]) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, None], pa.bool_()),
        ([1, None, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        (["a", 1, True], pa.string()),
        ([2**70], pa.float64()),
        ([None], pa.string()),
    ],
)
def test_a_column_takes_the_narrowest_kind_that_holds_all(values: list[Any], expected: pa.DataType) -> None:
    assert column(values).type == expected


def test_dotted_columns_stand_beside_the_others(writer: Writer, results: Path) -> None:
    train(writer, run_json("c1", low_rank={"rank": 4}, device="mine"), ending())
    train(writer, run_json("c2", backbone="trained"), ending())
    wide = spread(runs_table(read(results)))
    assert wide["low_rank.rank"].to_pylist() == [4, None]
    assert wide["backbone"].to_pylist() == [None, "trained"]
    assert wide["sst.accuracy"].to_pylist() == [0.5, 0.5]
    assert wide["device"].to_pylist() == ["cpu", "cpu"]
    assert wide["configuration.device"].to_pylist() == ["mine", None]


def test_settings_with_their_defaults_are_what_the_columns_show(writer: Writer, results: Path) -> None:
    run = run_json(low_rank={"kind": "lora"}) | {"settings": {"low_rank": {"kind": "lora", "rank": 8}}}
    train(writer, run, ending())
    assert spread(runs_table(read(results)))["low_rank.rank"].to_pylist() == [8]


def test_a_sweep_is_asked_for_by_name(writer: Writer) -> None:
    for name in ("a", "b"):
        writer.declare(SWEEP | {"sweep": name}, [{"run": run_json(), "point": {}}])
    assert sweeps_table(writer.refresh()).num_rows == 2
    assert predictions(0)["task"] == []
