"""The command of the published tables: what it lists, refuses, trains and writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from analysis.store import read
from mtbert.schema import ConfigError
from sweeps import published
from sweeps.published import inputs_of
from sweeps.tables.published import read_tables
from tests.sweeps.conftest import ROOT, Started, Workplace

SCRIPT = str(ROOT / "sweeps" / "published.py")
TABLES = read_tables()

REFUSED = {
    "": "table: expected one, such as 004/3; --list shows all",
    "004/8": "table: expected one of 004/1, 004/2",
    "004/3 --scale 2": "--scale: expected a factor above 0 and at most 1, got 2",
    "004/3 --seeds 0": "seeds: expected a count of at least 1, got 0",
    "004/3 --set features": "--set: expected field=value, got 'features'",
    "004/3 --set nonsense=1": "--set: no row of 004/3 can be: configuration.nonsense: no such field",
    "004/3 --data /no/such/folder": "/no/such/folder",
    "004/3 --pretrained /no/such/folder": "/no/such/folder",
    "004/3 --pack 0": "--pack: expected at least 1, got 0",
    "004/3 --name other": "unrecognized arguments: --name other",
}


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert published.main(argv) == 0
    return capsys.readouterr().out


def test_what_is_wrong_is_said_in_a_line_before_ray_starts(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom sweeps.published import main\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    try: code = main(line.split())\n"
        "    except SystemExit as end: code = end.code\n"
        "    print(code, 'ray' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(REFUSED) + "\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        check=False,
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(REFUSED), done.stderr
    for message, code, expected in zip(lines[::2], lines[1::2], REFUSED.values(), strict=True):
        assert message.startswith("error: ")
        assert expected in message
        assert code == "2 False"
    assert not (tmp_path / "results").exists()


def test_all_tables_are_listed_and_those_without_figures_said(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "--list").splitlines()
    listed = {line.split()[0]: line for line in lines if "/" in line.split()[0]}
    assert list(listed) == list(TABLES)
    assert {name for name, line in listed.items() if " none " in line} == {
        name for name, table in TABLES.items() if not table.printed
    }
    of_one = said(capsys, "003", "--list")
    assert "003/leaderboard" in of_one
    assert "004/" not in of_one


def test_settings_are_shown_with_how_they_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in said(capsys, "001/2", "--settings").splitlines()]
    assert ["low_rank.scaling", "alpha_over_rank", "assumed", "45"] in [line[:4] for line in lines]
    assert ["1", "r=2,", "alpha=16", "low_rank.rank", "2", "inferred", "108,", "118"] in lines


def test_a_dry_run_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = str(tmp_path / "results")
    text = said(capsys, "003/5.4.2", "--dry-run", "--scale", "0.01", "--limit", "48", "--results", results)
    assert "row full model: base, cosine, seed 0" in text
    assert "python -m mtbert pretrain --model demo --data demo --out FOLDER" in text
    assert "shortened: every run has 0.01 of its steps" in text
    assert "Nothing was started" in text
    assert not Path(results).exists()


def cfimdb_folder(tmp_path: Path, files: Sequence[str] = published.CFIMDB_FILES) -> str:
    for name in files:
        (tmp_path / name).write_text("")
    return str(tmp_path)


def test_cfimdb_enters_as_in_the_report_where_the_data_has_it(tmp_path: Path) -> None:
    data = {"data": cfimdb_folder(tmp_path)}
    assert inputs_of(TABLES["004/1"], data)[0].cfimdb == "join"
    assert inputs_of(TABLES["003/5.4.1"], data)[0].cfimdb == "task"
    assert inputs_of(TABLES["003/5.4.2"], data)[0].cfimdb == "leave"
    assert inputs_of(TABLES["002/1"], data) == (inputs_of(TABLES["001/1"], data)[0], "")


def test_without_cfimdb_it_is_left_out_and_said(tmp_path: Path) -> None:
    for data in ("demo", cfimdb_folder(tmp_path, published.CFIMDB_FILES[:1])):
        inputs, note = inputs_of(TABLES["004/1"], {"data": data})
        assert (inputs.cfimdb, note) == ("leave", "the report joins CFIMDB to SST; this data has none")
    with pytest.raises(ConfigError):
        inputs_of(TABLES["004/1"], {"limit": {"sst": 0}})


FLAGS = "001/1 --scale 0.002 --seeds 2 --limit 48 --set training.batch_size=4 --pack 2 --address local"


def run(place: Workplace) -> Started:
    started = place.run(SCRIPT, *FLAGS.split())
    assert started.process.returncode == 0, started.output
    return started


@pytest.mark.slow
def test_a_table_is_trained_shown_and_written(workplace: Workplace) -> None:
    output = run(workplace).output
    assert "training examples in the report: sst 8,544, para 141,506, sts 6,041; here: sst 48" in output
    assert "noise: one run deviates by" in output
    runs = read(workplace.results).runs
    assert {run.status for run in runs.values()} == {"completed"}
    rows = duckdb.sql(f"from '{workplace.results}/published/001-1.parquet'").df()
    assert rows["row"].tolist() == ["Multitask Baseline", "Fine-Tuning"]
    assert rows["sts.pearson.published"].tolist() == [0.277, 0.168]
    assert sorted(run_id for of in rows["run_ids"] for run_id in of) == sorted(runs)
    found = [runs[run_id].ended or {} for run_id in rows["run_ids"][0]]
    accuracies = [record["metrics"]["sst.accuracy"] for record in found]
    assert rows["sst.accuracy.mean"][0] == pytest.approx(sum(accuracies) / 2)
    claims = duckdb.sql(f"from '{workplace.results}/published/001-1-claims.parquet'").df()
    assert len(claims) == 3
    assert set(claims["holds"]) <= {"yes", "no", "cannot tell"}
    again = run(workplace).output
    assert "nothing to train" in again
    assert again[again.index("sst.accuracy\n") :] == output[output.index("sst.accuracy\n") :]
