"""Every row of every published table: its settings, typed here a second time; its figures; its identity."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtbert.run import Run
from mtbert.schema import plain
from sweeps.tables.counts import COLUMNS, counted
from sweeps.tables.published import FILE, Row, RowRun, Table, read_tables
from sweeps.tables.verdicts import misprints, printed_average
from tests.sweeps.conftest import ROOT
from tests.sweeps.tables.published_facts import EXPECTED, QKV

TABLES = read_tables()
ROWS = [(table, row) for table in TABLES.values() for row in table.rows]
RUNS = [(table, row, run) for table, row in ROWS for run in row.runs]
IDS = [f"{table.id} {row.label} {run.name}".strip() for table, row, run in RUNS]
REPORTS = Path(os.environ.get("MTBERT_DATA", ROOT.parent / "shared" / "data")).parent / "reports"


def value_at(settings: Any, name: str) -> Any:
    """The value of a dotted field in plain data, lists included."""
    for part in name.split("."):
        settings = settings[int(part)] if isinstance(settings, list) else (settings or {}).get(part)
    return settings


def spelt_out(run: RowRun) -> dict[str, Any]:
    """A run's configuration with its defaults; numbers as numbers."""
    found: dict[str, Any] = plain(run.configuration, defaults=True)
    return found


@pytest.mark.parametrize("table_id", EXPECTED)
def test_rows_have_the_settings_that_their_report_gives_them(table_id: str) -> None:
    rows = TABLES[table_id].rows
    assert len(rows) == len(EXPECTED[table_id])
    for row, expected in zip(rows, EXPECTED[table_id], strict=True):
        for run in row.runs:
            settings = spelt_out(run)
            for name, value in expected.items():
                assert value_at(settings, name) == value, (row.label, name)


@pytest.mark.parametrize(("_", "row", "run"), RUNS, ids=IDS)
def test_every_marked_setting_is_in_the_configuration(_: Table, row: Row, run: RowRun) -> None:
    settings = spelt_out(run)
    for name, setting in run.settings.items():
        found, value = value_at(settings, name), setting.value
        if value == "none" and name != "parallel.activation":
            value = None
        if name == "low_rank.targets" and value == ["all_linear"]:
            value = [*QKV, "attention_out", "ffn_in", "ffn_out", "pooler"]
        if isinstance(value, list) and name != "training.schedule.order":
            found, value = sorted(found), sorted(value)
        if name == "parallel.task_dropout" or name.startswith("weighting.weights."):
            continue  # a task's rate that is the common one is left out; test_rows_have_... looks at these
        assert found == value, (row.label, name)
    beyond = plain(run.configuration)
    unmarked = [
        name
        for name in leaves(beyond)
        if not any(f"{name}.".startswith(f"{marked}.") or marked.startswith(name) for marked in run.settings)
    ]
    assert not [name for name in unmarked if not name.endswith("kind")]


def leaves(data: Any, before: str = "") -> Iterator[str]:
    """The dotted names of a configuration's values."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from leaves(value, f"{before}.{name}" if before else str(name))
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        for at, value in enumerate(data):
            yield from leaves(value, f"{before}.{at}")
    else:
        yield before


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_rows_differ_unless_the_paper_s_settings_do_not(table: Table) -> None:
    seen: dict[tuple[Any, ...], str] = {}
    for row in table.rows:
        merge = tuple(sorted((name, str(setting.value)) for name, setting in row.merge.items()))
        ids = tuple(Run(run.configuration, 0, "data", "model").config_id for run in row.runs)
        first = seen.setdefault((ids, merge, row.pretrained), row.label)
        assert (first == row.label) != (row.same_as == first), row.label


def config_id(table_id: str, label: str, run: str = "") -> str:
    (row,) = [row for row in TABLES[table_id].rows if row.label == label]
    (of,) = [each for each in row.runs if each.name == run]
    return Run(of.configuration, 0, "data", "model").config_id


def test_what_is_one_configuration_in_two_tables_is_one_run() -> None:
    assert config_id("004/1", "FM (Baseline)") == config_id("004/6", "Multitask AS Batch")
    assert config_id("004/5", "Baseline Finetune Multitask") == config_id("004/7", "Baseline")
    assert config_id("004/4", "Configuration 1") == config_id("004/7", "Final") == config_id("004/G", "Best")
    assert config_id("004/1", "LLL + LoRA r=4, α=8") == config_id("004/figure3", "LoRA r=4, α=8")
    assert config_id("001/2", "r=4, alpha=16") == config_id("001/4.4.2", TABLES["001/4.4.2"].rows[0].label)
    for task in ("sst", "para", "sts"):
        assert config_id("002/2", "LoRA (all linear), r=64", task) == config_id("002/3", "EoE", task)
        assert config_id("002/3", "EoE", task) == config_id("002/3", "AvgFed", task)


def test_58_of_61_printed_averages_are_those_of_the_printed_parts() -> None:
    averages = [printed_average(row, prefix) for _, row in ROWS for prefix in ("", "test.")]
    assert sum(each is not None for each in averages) == 61
    by_table = {table.id: misprints(table) for table in TABLES.values() if misprints(table)}
    assert list(by_table) == ["004/4"]
    assert [said.split(":")[0] for said in by_table["004/4"]] == [f"Configuration {at}" for at in (1, 2, 3)]
    assert "printed as 0.789, its parts give 0.7845" in by_table["004/4"][0]


@pytest.mark.parametrize(
    ("row", "column"),
    [(row, column) for _, row in ROWS for column in COLUMNS if column in row.figures],
    ids=lambda value: value.label if isinstance(value, Row) else value,
)
def test_printed_numbers_of_parameters_follow_from_the_rows(row: Row, column: str) -> None:
    printed, found = row.figures[column].value, counted(row, column)
    digits = 0 if column == "trainable" else 1 if printed == 22.8 else 2
    assert (round(found, digits) == printed) != bool(row.count_differs)


def test_how_printed_numbers_that_do_not_follow_are_explained() -> None:
    shares = {row.label: counted(row, "share") for row in TABLES["002/2"].rows if row.count_differs}
    assert {label: round(value, 2) for label, value in shares.items()} == {
        "LoRA (all linear & bias), r=64": 8.98,
        "LoRA (all linear & bias), r=128": 16.43,
    }
    mixed = {counted(row, "trainable") for row in TABLES["004/2"].rows if row.label.startswith("Mixed")}
    assert mixed == {115_469_275}
    pal, low_rank, heads_and_backbone = 3 * 314_316 + 18 * 125_460, 18 * 314_316, 109_487_623
    assert heads_and_backbone + 3 * pal + low_rank == 124_748_995


def spoken(value: float) -> set[str]:
    """A number as the reports write it."""
    found = {f"{value:g}", *(f"{value:.{digits}f}" for digits in (1, 2, 3)), f"{value:,.0f}", f"{value:.0f}"}
    whole = int(value)
    found.add(f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}")
    if value > 0:
        power = round(math.log10(value))
        found |= (
            {f"1e{power}", f"1e - {-power}", f"1e^{{{power}}}", f"10^{{{power}}}"}
            if 10.0**power == value
            else set()
        )
    return found


@cache
def texts() -> dict[str, list[str]]:
    """The reports' lines."""
    reports = yaml.safe_load(FILE.read_text(encoding="utf-8"))["reports"]
    return {
        name: (REPORTS / report["text"]).read_text(encoding="utf-8").split("\n")
        for name, report in reports.items()
    }


def in_lines(table: Table, lines: tuple[int, ...], value: float) -> bool:
    text = " ".join(texts()[table.id[:3]][line - 1] for line in lines)
    return any(form in text for form in spoken(value))


IN_WORDS = {"001/training.epochs", "003/evaluation.every", "004/parallel.upper.start"}
"""What a report states as a word: one epoch, every epoch, the first six layers."""


@pytest.mark.skipif(not REPORTS.is_dir(), reason="the reports' texts are not beside this checkout")
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_figures_and_stated_numbers_stand_in_the_lines_that_are_named(table: Table) -> None:
    for row in table.rows:
        for figure in row.figures.values():
            assert in_lines(table, row.lines, figure.value), (row.label, figure)
        for run in row.runs:
            for name, setting in run.settings.items():
                number = isinstance(setting.value, (int, float)) and not isinstance(setting.value, bool)
                if setting.mark == "stated" and number and setting.value:
                    in_words = f"{table.id[:3]}/{name}" in IN_WORDS
                    assert in_words or in_lines(table, setting.lines, setting.value), (row.label, name)
