"""Tasks as declarations: what YAML may say, and how metrics become a score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtbert.data.errors import DataError
from mtbert.schema import ConfigError
from mtbert.tasks import Task, read_tasks, score, unscaled
from tests.mtbert.data.files import REVIEWS, declare

GRADED: dict[str, Any] = {
    "name": "graded",
    "kind": "regression",
    "sentences": 2,
    "low": 0,
    "high": 5,
    "metric": "pearson",
    "score": "half_up",
    "columns": {"first": "a", "second": "b", "label": "grade"},
    "files": {"train": "t.tsv", "dev": "d.tsv"},
}
SST = Task("sst", "classification", 1, classes=5)
STS = Task("sts", "regression", 2, low=0.0, high=5.0, metric="pearson", score="half_up")
SHIPPED = Path(__file__).parents[2] / "mtbert" / "data"


def test_score_is_the_mean_with_a_correlation_brought_to_the_unit_interval() -> None:
    tasks = {"sst": SST, "para": Task("para", "binary", 2), "sts": STS}
    metrics = {"sst": 0.5, "para": 0.8, "sts": 0.4}
    assert score(tasks, metrics) == pytest.approx((0.5 + 0.8 + (1 + 0.4) / 2) / 3)
    assert unscaled(tasks, metrics) == pytest.approx((0.5 + 0.8 + 0.4) / 3)


@pytest.mark.parametrize("mean", [score, unscaled])
def test_an_undefined_metric_makes_the_mean_undefined(mean: Any) -> None:
    assert mean({"sst": SST, "sts": STS}, {"sst": 0.5, "sts": None}) is None


def test_a_metric_of_zero_is_not_taken_for_undefined() -> None:
    assert score({"sst": SST}, {"sst": 0.0}) == 0.0


def test_heads_have_a_logit_for_each_class_and_else_one_output() -> None:
    assert [SST.outputs, Task("para", "binary", 2).outputs, STS.outputs] == [5, 1, 1]


def test_the_shipped_declarations_are_the_three_tasks_of_the_reports() -> None:
    files, hub = read_tasks(SHIPPED / "cs224n.yaml"), read_tasks(SHIPPED / "hub.yaml")
    assert list(files) == ["sst", "para", "sts", "cfimdb"]
    assert list(hub) == ["sst", "para", "sts"]
    for name, task in hub.items():
        same = ("kind", "sentences", "classes", "low", "high", "metric", "score")
        assert [getattr(task, each) for each in same] == [getattr(files[name], each) for each in same]


def test_tasks_keep_the_order_of_their_file(tmp_path: Path) -> None:
    assert list(read_tasks(declare(tmp_path, GRADED, REVIEWS))) == ["graded", "reviews"]


@pytest.mark.parametrize(
    ("declared", "changes", "field", "said"),
    [
        (REVIEWS, {"kind": "ranking"}, "kind", "ranking"),
        (REVIEWS, {"classes": None}, "classes", "number of classes"),
        (REVIEWS, {"classes": 1}, "classes", "at least 2"),
        (REVIEWS, {"kind": "binary"}, "classes", "binary"),
        (REVIEWS, {"metric": "pearson"}, "metric", "accuracy"),
        (REVIEWS, {"low": 0, "high": 5}, "low", "only a regression"),
        (REVIEWS, {"sentences": 2}, "columns.second", "second"),
        (REVIEWS, {"sentences": 3}, "sentences", "3"),
        (REVIEWS, {"columns": None}, "columns", "none"),
        (REVIEWS, {"columns": {"label": "stars"}}, "columns.first", "missing"),
        (REVIEWS, {"columns": {"first": "a", "text": "b"}}, "columns.text", "no such field"),
        (REVIEWS, {"files": {"train": "t"}}, "files", "lacks dev"),
        (REVIEWS, {"files": {"train": "t", "dev": "d", "validation": "v"}}, "files.validation", "train, dev"),
        (REVIEWS, {"hub": {"repository": "a/b"}}, "hub", "both"),
        (REVIEWS, {"hub": {"config": "a"}}, "hub.repository", "missing"),
        (REVIEWS, {"delimiter": "::"}, "delimiter", "one character"),
        (REVIEWS, {"labels": {"good": 3}}, "labels.good", "0 to 2"),
        (REVIEWS, {"labels": {True: 1, False: 0}}, "labels", "quotation marks"),
        (REVIEWS, {"also": [{"labels": {"a": 0}}]}, "also[0].file", "missing"),
        (REVIEWS, {"also": [{"file": "m", "labels": {"a": 7}}]}, "also[0].labels.a", "0 to 2"),
        (REVIEWS, {"name": "a.b"}, "name", "a.b"),
        (REVIEWS, {"name": "score"}, "name", "score"),
        (REVIEWS, {"speed": 1}, "speed", "no such field"),
        (GRADED, {"high": None}, "low, .high", "None"),
        (GRADED, {"low": 5}, "low, .high", "5.0 to 5.0"),
        (GRADED, {"metric": "accuracy"}, "metric", "pearson"),
        (GRADED, {"source_range": [1]}, "source_range", "[1.0]"),
        (GRADED, {"labels": {"a": 1}}, "labels", "source_range"),
    ],
)
def test_an_impossible_declaration_is_refused_by_its_field(
    declared: dict[str, Any], changes: dict[str, Any], field: str, said: str, tmp_path: Path
) -> None:
    path = declare(tmp_path, {**declared, **changes})
    with pytest.raises(ConfigError) as error:
        read_tasks(path)
    assert f"{path}: tasks[0].{field}" in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("field", ["name", "kind", "sentences"])
def test_a_field_that_must_be_given_is_asked_for(field: str, tmp_path: Path) -> None:
    declared = {name: value for name, value in REVIEWS.items() if name != field}
    with pytest.raises(ConfigError, match=rf"tasks\[0\]\.{field}: missing"):
        read_tasks(declare(tmp_path, declared))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: [", "not YAML"),
        ("- a\n", "under 'tasks:'"),
        ("tasks: []\n", "declares no task"),
        ("tasks: [1]\nseed: 2\n", "nothing beside it"),
    ],
)
def test_a_file_of_another_form_is_refused_by_its_name(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said) as error:
        read_tasks(path)
    assert str(path) in str(error.value)


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'reviews' is declared twice"):
        read_tasks(declare(tmp_path, REVIEWS, REVIEWS))
