"""The commands: what a person at a terminal of any width sees, and what a machine is given."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats

from analysis.__main__ import main
from analysis.formats import written
from analysis.ranking import ranked
from analysis.ranking_show import ranking_table
from analysis.show import MOST_ROWS, Column, as_text, cell, laid_out, plain_table, shortened
from analysis.store import Writer, read
from tests.analysis.ledgers import ending, run_json, train


@pytest.fixture
def filled(writer: Writer, results: Path) -> Path:
    """Rank 2, 4 and 8 over two seeds, better by rank; one of rank 8 fails, one run waits."""
    runs = [
        run_json(f"c{rank}", seed, low_rank={"kind": "lora", "rank": rank}, training={"steps": 100})
        for rank in (2, 4, 8)
        for seed in (0, 1)
    ]
    points = [
        {"run": run, "point": {}} for run in [*runs, run_json("c16", low_rank={"kind": "lora", "rank": 16})]
    ]
    writer.declare({"sweep": "ranks", "kind": "grid", "objective": "score"}, points)
    for run in runs:
        rank, seed = run["configuration"]["low_rank"]["rank"], run["seed"]
        failed = (rank, seed) == (8, 1)
        score = None if failed else 0.5 + rank / 100 + seed / 1000
        train(writer, run, ending("failed" if failed else "completed", score=score))
    writer.close()
    return results


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_best_ranks_and_says_what_differs(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ask(capsys, "best", filled, "--sweep", "ranks").splitlines()
    header = lines[1].split()
    assert header[:7] == ["#", "score", "runs", "behind", "told", "apart", "rank"]
    assert "kind" not in header  # the same in all
    assert "sst.accuracy" in header
    assert lines[3].split()[:5] == ["1", "0.5405", "±", "0.0064", "2"]
    assert lines[5].split()[:7] == ["3", "0.5800", "±", "none", "1", "(+1", "failed)"]
    assert "#1 (c4) leads by 0.0200 ± " in lines[-1]


def test_best_says_in_words_and_in_columns_how_sure_it_is(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """c8 against c4 and c2 over two seeds, paired; one of a single run."""
    with Writer(filled) as writer:
        train(writer, run_json("c8", 1, low_rank={"kind": "lora", "rank": 8}), ending(score=0.55))
        train(writer, run_json("c32", 0, low_rank={"kind": "lora", "rank": 32}), ending(score=0.4))
    rows = json.loads(ask(capsys, "best", filled, "--format", "json"))
    assert [(row["config_id"], row["runs"], row["paired_seeds"]) for row in rows] == [
        ("c8", 2, None),
        ("c4", 2, 2),
        ("c2", 2, 2),
        ("c32", 1, 0),
    ]
    quantile = scipy.stats.t.ppf(0.975, 1)
    assert rows[0]["half_width"] == pytest.approx(quantile * 0.015)
    assert rows[1]["behind"] == pytest.approx((0.04 + 0.009) / 2)
    assert rows[1]["behind_half_width"] == pytest.approx(quantile * (0.04 - 0.009) / 2)
    second, third = (scipy.stats.ttest_rel([0.58, 0.55], of).pvalue for of in ([0.54, 0.541], [0.52, 0.521]))
    assert rows[2]["p"] == pytest.approx(3 * third)  # of three pairs
    assert rows[1]["p"] == pytest.approx(max(2 * second, 3 * third))
    assert [row["told_apart"] for row in rows] == [None, False, False, False]
    assert [rows[3][name] for name in ("half_width", "behind", "p")] == [None, None, None]
    (said,) = [line for line in ask(capsys, "best", filled).splitlines() if "leads by" in line]
    assert said.startswith("#1 (c8) leads by 0.0245 ± 0.1969 over #2 (c4): not settled (p ")
    assert said.endswith("told apart from 0 of 3 others, of which 1 with a single run")


def test_best_by_another_metric_and_the_first_few(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--by", "trainable", "--lowest-first", "--limit", 1, "--format", "json")
    (row,) = json.loads(ask(capsys, "best", filled, *options))
    assert (row["by"], row["mean"], row["rank"]) == ("trainable", 1000.0, 1)


def test_runs_are_filtered_sorted_and_cut(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*options: object) -> list[str]:
        text = ask(capsys, "runs", filled, "--format", "csv", *options)
        return [row["run_id"] for row in csv.DictReader(io.StringIO(text))]

    assert ids() == ["c8-0", "c4-1", "c4-0", "c2-1", "c2-0", "c16-0", "c8-1"]
    assert ids("--where", "low_rank.rank = 4") == ["c4-1", "c4-0"]
    assert ids("--where", "low_rank.rank > 2", "--where", "seed = 1 or status = 'waiting'") == [
        "c4-1",
        "c16-0",
        "c8-1",
    ]
    assert ids("--status", "failed,waiting") == ["c16-0", "c8-1"]
    assert ids("--sort", "low_rank.rank desc", "--limit", 3) == ["c16-0", "c8-0", "c8-1"]
    assert ids("--sort", "score asc", "--limit", 1) == ["c2-0"]


def test_runs_show_which_run_it_is_first_and_losses_last(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    header = ask(capsys, "runs", filled, "--limit", 1).splitlines()[0].split()
    assert header[:4] == ["run_id", "status", "score", "steps"]
    kinds = [name.endswith(".loss") for name in header if "." in name]
    assert kinds == sorted(kinds)


def test_runs_show_chosen_columns(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ask(capsys, "runs", filled, "--columns", "run_id,low_rank.rank", "--limit", 1)
    assert text.split() == ["run_id", "rank", "─" * 13, "c8-0", "8"]


def test_effects_says_what_each_value_did(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(ask(capsys, "compare", filled, "--format", "json"))
    assert [(row["field"], row["value"], row["runs"]) for row in rows] == [
        ("low_rank.rank", 2, 2),
        ("low_rank.rank", 4, 2),
        ("low_rank.rank", 8, 1),
    ]
    assert rows[2]["difference"] == pytest.approx(0.04)
    assert "+4.00 ± 0.00" in ask(capsys, "compare", filled)
    assert "nothing differs" in ask(capsys, "compare", filled, "c2")


@pytest.mark.parametrize("command", [["best"], ["runs"], ["compare"], ["sql"]])
def test_every_command_is_narrowed_to_a_sweep_and_answers_machines_alike(
    command: list[str], filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Writer(filled) as another:
        train(another, run_json("other", low_rank={"kind": "lora", "rank": 32}), ending(score=0.9))
    sql = ["select config_id, score from runs order by run_id"] if command == ["sql"] else []
    options = (*sql, "--sweep", "ranks", "--format")
    everything = json.loads(ask(capsys, *command, filled, *sql, "--format", "json"))
    text = ask(capsys, *command, filled, *options, "json")
    rows = json.loads(text)
    assert 0 < len(rows) < len(everything)
    found = list(csv.DictReader(io.StringIO(ask(capsys, *command, filled, *options, "csv"))))
    assert [list(row) for row in found] == [list(row) for row in rows]
    path = tmp_path / "answer.parquet"
    ask(capsys, *command, filled, *options, "parquet", "--output", path)
    assert written(pq.read_table(path), "json").decode() == text


def test_sql_answers_in_every_format(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = 'select run_id, score, "low_rank.rank" as rank, metrics from runs where seed = 1 order by rank'
    expected = [
        {
            "run_id": "c2-1",
            "score": 0.521,
            "rank": 2,
            "metrics": {"sst.accuracy": 0.521, "sts.pearson": None},
        },
        {
            "run_id": "c4-1",
            "score": 0.541,
            "rank": 4,
            "metrics": {"sst.accuracy": 0.541, "sts.pearson": None},
        },
        {"run_id": "c8-1", "score": None, "rank": 8, "metrics": {"sst.accuracy": None, "sts.pearson": None}},
    ]
    assert json.loads(ask(capsys, "sql", filled, sql, "--format", "json")) == expected
    rows = list(csv.DictReader(io.StringIO(ask(capsys, "sql", filled, sql, "--format", "csv"))))
    assert [json.loads(row["metrics"]) for row in rows] == [row["metrics"] for row in expected]
    assert [row["score"] for row in rows] == ["0.521", "0.541", ""]
    path = tmp_path / "answer.parquet"
    assert ask(capsys, "sql", filled, sql, "--format", "parquet", "--output", path) == ""
    assert pq.read_table(path)["run_id"].to_pylist() == ["c2-1", "c4-1", "c8-1"]
    assert "c8-1" in ask(capsys, "sql", filled, sql)


def test_the_narrowest_terminal_is_readable(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (40, 60, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        for command in ("best", "runs", "compare"):
            lines = ask(capsys, command, filled).splitlines()
            assert max(map(len, lines)) <= width
        text = ask(capsys, "sql", filled, "select * from runs")
        assert max(map(len, text.splitlines())) <= width
        assert "not shown for want of width" in text


def test_every_row_stays_on_one_line_when_columns_are_left_out(filled: Path) -> None:
    rows = ranked(read(filled))
    for width in (40, 60, 80, 200):
        lines = as_text(ranking_table(rows, width), width).splitlines()
        start = next(at for at, line in enumerate(lines) if line.startswith("─")) + 1
        assert [line.split()[0] for line in lines[start : start + 3]] == ["1", "2", "3"]


def test_the_most_important_columns_stay_longest() -> None:
    columns = [Column("long", ["x" * 30], 2), Column("first", ["a"], 0), Column("second", ["b"], 1)]
    text = as_text(laid_out(columns, 20), 20)
    assert "first" in text
    assert "second" in text
    assert "x" not in text.split("not shown")[0]
    assert "want of width: long" in " ".join(text.split())


def test_columns_of_one_name_are_told_apart(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select 1 as a, 2 as b, 3 as a"
    assert json.loads(ask(capsys, "sql", filled, sql, "--format", "json")) == [{"a": 1, "b": 2, "a_2": 3}]
    assert ask(capsys, "sql", filled, sql).split()[:3] == ["a", "b", "a_2"]
    more = "select 1 as a, 2 as a, 3 as a_2, 4 as a"
    found = json.loads(ask(capsys, "sql", filled, more, "--format", "json"))
    assert found == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]


def test_a_comparison_of_runs_without_a_value_is_refused(
    writer: Writer, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(writer, run_json(), ending("diverged", score=None))
    writer.close()
    assert main(["compare", str(results)]) == 2
    assert "none of these runs has a score: there is nothing to compare" in capsys.readouterr().err


def test_long_answers_are_cut_on_a_terminal_and_say_so() -> None:
    text = as_text(plain_table(pa.table({"n": list(range(MOST_ROWS + 5))}), 60), 60)
    assert "5 more rows" in text
    assert str(MOST_ROWS + 1) not in text.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("best", "nowhere"), "nowhere: no such folder"),
        (("best", "{results}", "--sweep", "x"), "no sweep 'x' in these results; known are ranks"),
        (("best", "{results}", "--by", "x"), "no run has a metric 'x'"),
        (("runs", "{results}", "--sort", "x"), "--sort: expected a column of runs"),
        (("runs", "{results}", "--columns", "x"), "--columns: no column x in runs"),
        (("runs", "{results}", "--where", "x ="), "SQL: "),
        (
            ("runs", "{results}", "--status", "finished"),
            "--status: expected some of waiting, running, co",
        ),
        (("sql", "{results}", "select 1", "--output", "."), ".: is a folder; name a file"),
        (("sql", "{results}", "selec"), "SQL: "),
        (("sql", "{results}", "select 1", "--format", "parquet"), "--format parquet needs --output"),
        (("sql", "{results}", "select 1", "--output", "/no/such/file"), "cannot write /no/such"),
    ],
)
def test_errors_are_one_line_and_exit_2(
    filled: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(results=filled) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert message in output.err
    assert output.err.count("\n") == 1


def test_a_ledger_without_runs_is_told(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Writer(results).close()
    for command in ("best", "runs", "compare"):
        assert main([command, str(results)]) == 2
        assert "no runs in these results yet" in capsys.readouterr().err


def test_what_was_passed_over_is_told_beside_the_answer(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = (filled / "ledger/segments").iterdir()
    segment.write_bytes(segment.read_bytes() + b'{"crc":"torn')
    assert main(["best", str(filled)]) == 0
    output = capsys.readouterr()
    assert output.err.startswith("notice: 1 segment(s) end in a torn line")
    assert output.out.splitlines()[3].split()[0] == "1"


def test_the_module_is_a_command_and_a_closed_pipe_is_no_error(filled: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "analysis",
        "sql",
        str(filled),
        "select * from range(100000)",
        "--format",
        "csv",
    ]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == b"range\n"
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 0


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["low_rank.rank", "low_rank.alpha"], ["rank", "alpha"]),
        (["low_rank.dropout", "training.dropout"], ["low_rank.dropout", "training.dropout"]),
        (["a.b.c", "x.b.c", "c"], ["a.b.c", "x.b.c", "c"]),
        (["precision"], ["precision"]),
        (["training.steps"], ["training.steps"]),
    ],
)
def test_names_are_shortened_as_far_as_they_stay_apart(names: list[str], expected: list[str]) -> None:
    assert shortened(names, beside=["steps"]) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (0.5, "0.5000"),
        (16.0, "16"),
        (3e-5, "3e-05"),
        (1234567, "1,234,567"),
        (True, "yes"),
        ("a\nb", "a b"),
    ],
)
def test_cells(value: object, expected: str) -> None:
    assert cell(value) == expected


def test_json_has_null_for_what_is_not_finite() -> None:
    assert json.loads(written(pa.table({"x": [float("nan"), 1.0]}), "json")) == [{"x": None}, {"x": 1.0}]


def test_errors_shows_each_failed_run_with_its_traceback(
    writer: Writer, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 3, in step\nValueError: a [bug]\n'
    for rank, status in ((2, "completed"), (4, "failed")):
        run = run_json(f"c{rank}", 0, low_rank={"kind": "lora", "rank": rank})
        error = {"kind": "error", "message": "ValueError: a [bug]", "traceback": trace}
        train(writer, run, ending(status) | ({"error": error} if status == "failed" else {}))
    writer.close()
    shown = ask(capsys, "errors", results)
    assert trace in shown
    assert "c4-0 (rank 4): error" in shown
    assert "c2-0" not in shown
    assert json.loads(ask(capsys, "errors", results, "--format", "json"))[0]["error_traceback"] == trace


def test_errors_of_a_sweep_without_any_says_so(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "c8-1" in ask(capsys, "errors", filled, "--sweep", "ranks")
    with Writer(filled) as writer:
        writer.declare({"sweep": "sound", "kind": "grid"}, [{"run": run_json("c2", 0), "point": {}}])
    assert ask(capsys, "errors", filled, "--sweep", "sound").strip() == "no run has failed"
