"""The file of tables: how settings are laid over each other, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbert.configuration import parse
from mtbert.schema import ConfigError
from sweeps.tables.provenance import Setting, configuration_of, overlay, read_settings
from sweeps.tables.published import Figure, find, read_tables

FILE = """
shared: {anything: here}
reports:
  "009":
    title: A report
    text: none.txt
    examples: {sst: 10}
    settings:
      - {stated: 1, set: {training.batch_size: 16, training.epochs: 3, low_rank.rank: 4}}
    tables:
      "1":
        title: a table
        lines: [1, 9]
        columns: [sst.accuracy, score, seconds]
        settings: [{assumed: 2, why: nothing is said, set: {training.warmup: 0.0}}]
        rows:
          - {label: first, lines: [3], figures: [0.5, null, "1:02:03"]}
          - label: second
            lines: [4]
            figures: [[0.6, 0.1], 0.7, 5]
            settings: [[{inferred: [4, 5], set: {low_rank: none}}], {stated: 4, set: {training.epochs: 5}}]
            runs:
              one: [{stated: 6, set: {training.tasks: [sst], evaluation.keep: sst}}]
              two: []
        claims:
          - {says: the second is better, lines: [7], metric: score, better: [second], than: [fir*]}
"""


def changed(tmp_path: Path, old: str = "", new: str = "") -> Path:
    assert old in FILE
    path = tmp_path / "tables.yaml"
    path.write_text(FILE.replace(old, new, 1) if old else FILE)
    return path


def test_settings_of_report_table_row_and_run_are_laid_over_each_other(tmp_path: Path) -> None:
    table = read_tables(changed(tmp_path))["009/1"]
    first, second = table.rows
    assert [run.name for run in first.runs] == [""]
    common = {"training": {"batch_size": 16, "epochs": 3, "warmup": 0}, "low_rank": {"rank": 4}}
    assert first.runs[0].configuration == parse(common)
    without = {"training": {"batch_size": 16, "epochs": 5, "warmup": 0}}
    one = {"training": {**without["training"], "tasks": ["sst"]}, "evaluation": {"keep": "sst"}}
    assert [run.name for run in second.runs] == ["one", "two"]
    assert second.runs[0].configuration == parse(one)
    assert second.runs[1].configuration == parse(without)
    settings = second.runs[0].settings
    assert settings["low_rank"] == Setting("none", "inferred", (4, 5))
    assert settings["training.warmup"] == Setting(0.0, "assumed", (2,), "nothing is said")
    assert settings["training.epochs"] == Setting(5, "stated", (4,))


def test_figures_are_read_as_they_are_printed(tmp_path: Path) -> None:
    first, second = read_tables(changed(tmp_path))["009/1"].rows
    assert first.figures == {"sst.accuracy": Figure(0.5), "seconds": Figure(3723.0)}
    assert second.figures["sst.accuracy"] == Figure(0.6, 0.1)


def given(**values: object) -> dict[str, Setting]:
    """Stated settings; a double underscore is a dot."""
    dotted = {name.replace("__", "."): value for name, value in values.items()}
    return read_settings([{"stated": 1, "set": dotted}], "")


def test_a_field_takes_the_place_of_what_stands_above_and_below_it() -> None:
    base = given(low_rank__rank=4, low_rank__alpha=2.0, heads__trained=False)
    without = overlay(base, given(low_rank="none"))
    assert set(without) == {"low_rank", "heads.trained"}
    again = configuration_of(overlay(without, given(low_rank__rank=8)), "")
    assert again == parse({"low_rank": {"rank": 8}, "heads": {"trained": False}})


def test_fields_whose_names_merely_begin_alike_stay() -> None:
    both = overlay(given(pairs__separator=True), given(pairs__separators=1))
    assert set(both) == {"pairs.separator", "pairs.separators"}


def test_stages_are_set_by_their_number() -> None:
    fields = {"stages.1.tasks": ["sts"], "stages.0.tasks": ["sst"], "stages.0.learning_rate.heads": 0.5}
    found = configuration_of(read_settings([{"stated": 1, "set": fields}], ""), "")
    first = {"tasks": ["sst"], "learning_rate": {"heads": 0.5}}
    assert found == parse({"stages": [first, {"tasks": ["sts"]}]})
    with pytest.raises(ConfigError, match="here: expected stages from 0 on without a gap, got \\[1\\]"):
        configuration_of(read_settings([{"stated": 1, "set": {"stages.1.steps": 5}}], ""), "here")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{stated: 1, set", "{set", "009/1: expected one of stated, inferred, assumed"),
        ("{stated: 1, set", "{stated: 1, assumed: 2, set", "009/1: expected one of stated"),
        ("{stated: 1, set", "{stated: page 1, set", "009/1: expected a line of the report"),
        ("{assumed: 2, why", "{assumed: 2, reason", "009/1: expected one of stated"),
        ("figures: [0.5, null,", "figures: [0.5,", r"009/1, row 1 \(first\): expected 3 figures, got 2"),
        ('"1:02:03"', '"soon"', r"row 1 \(first\): expected a number, .* got 'soon'"),
        ("label: second", "label: first", "009/1: two rows are labelled 'first'"),
        ("than: [fir*]", "than: [third]", "009/1: no row is labelled 'third'"),
        ("than: [fir*]", "than: [second]", "009/1: a claim compares 'second' with itself"),
        ("than: [fir*]", "to: [first]", "expected a metric with better and than"),
        ("metric: score, ", "", "expected a metric with better and than"),
        ("title: a table", "titel: a table", "titel: no such field; did you mean 'title'"),
    ],
)
def test_what_cannot_be_is_refused_by_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_tables(changed(tmp_path, old, new))


def test_a_configuration_that_cannot_be_names_row_and_field(tmp_path: Path) -> None:
    table = read_tables(changed(tmp_path, "low_rank: none", "low_rank.rank: 0"))["009/1"]
    with pytest.raises(
        ConfigError, match=r"009/1, row 2 \(second\), one: .*low_rank\.rank: expected a number"
    ):
        _ = table.rows[1].runs[0].configuration


def test_an_unknown_table_is_refused_with_those_of_its_report() -> None:
    with pytest.raises(ConfigError, match=r"expected one of 000/1, 000/A, got '000/9'; --list shows all"):
        find(read_tables(), "000/9")
