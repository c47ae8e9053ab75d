"""Where data can come from: the demo, a folder, a YAML file; and what is done and said on the way."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mtbert.data.errors import DataError
from mtbert.data.examples import Example, fingerprint, hold_out
from mtbert.data.load import load
from mtbert.schema import ConfigError
from tests.mtbert.data.files import HEADER, cs224n_folder, declare, reviews, rows

REAL = os.environ.get("MTBERT_DATA")
needs_real = pytest.mark.skipif(REAL is None, reason="MTBERT_DATA names no folder with the real files")


def sizes(source: str | Path, **arguments: Any) -> dict[tuple[str, str], int]:
    return {key: len(found) for key, found in load(str(source), **arguments).examples.items()}


def test_a_folder_with_the_projects_names_gives_the_three_tasks(tmp_path: Path) -> None:
    dataset = load(str(cs224n_folder(tmp_path)))
    assert list(dataset.tasks) == ["sst", "para", "sts"]
    found = {key: len(each) for key, each in dataset.examples.items()}
    counts = {"sst": (20, 6, 3), "para": (12, 5, 2), "sts": (12, 5, 2)}
    for task, of_task in counts.items():
        assert tuple(found[task, split] for split in ("train", "dev", "test")) == of_task
    assert dataset.examples["sst", "test"][0] == Example("test1", "unseen 1", None, None)
    assert dataset.examples["sts", "dev"][4] == Example("sts-dev4", "dev one 4", "dev two 4", 4.0)
    assert dataset.source == str(tmp_path)


def test_cfimdb_is_left_is_a_binary_task_or_joins_sst_as_its_extreme_classes(tmp_path: Path) -> None:
    folder = str(cs224n_folder(tmp_path))
    task = load(folder, cfimdb="task")
    assert list(task.tasks) == ["sst", "para", "sts", "cfimdb"]
    assert task.tasks["cfimdb"].kind == "binary"
    assert [each.label for each in task.examples["cfimdb", "dev"]] == [0.0, 1.0, 0.0, 1.0]
    joined = load(folder, cfimdb="join")
    assert list(joined.tasks) == ["sst", "para", "sts"]
    found = joined.examples["sst", "train"]
    assert found[:20] == task.examples["sst", "train"]
    assert [(each.first, each.label) for each in found[20:]] == [
        (f"train review {at}", 4.0 * (at % 2)) for at in range(8)
    ]
    assert joined.examples["sst", "dev"] == task.examples["sst", "dev"]
    assert any("8 training examples of ids-cfimdb-train.csv join 20" in notice for notice in joined.notices)
    assert len({load(folder).fingerprint, task.fingerprint, joined.fingerprint}) == 3


def test_a_folder_needs_cfimdb_only_where_it_is_asked_for_and_test_files_never(tmp_path: Path) -> None:
    folder = cs224n_folder(tmp_path, cfimdb=False)
    for path in folder.glob("*-test-student.csv"):
        path.unlink()
    assert set(sizes(folder)) == {
        (task, split) for task in ("sst", "para", "sts") for split in ("train", "dev")
    }
    with pytest.raises(DataError, match=r"lacks ids-cfimdb-train.csv \(sst train\)\. "):
        load(str(folder), cfimdb="join")
    with pytest.raises(DataError, match=r"ids-cfimdb-train.csv \(cfimdb train\), ids-cfimdb-dev.csv"):
        load(str(folder), cfimdb="task")


def test_all_missing_files_are_named_at_once_with_their_tasks(tmp_path: Path) -> None:
    folder = cs224n_folder(tmp_path)
    (folder / "sts-dev.csv").unlink()
    (folder / "quora-train.csv").unlink()
    with pytest.raises(DataError) as error:
        load(str(folder))
    said = f"{folder}: lacks quora-train.csv (para train), sts-dev.csv (sts dev). "
    assert str(error.value).startswith(said)


def test_a_yaml_file_s_own_tasks_are_read_from_beside_it_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    path = reviews(there)
    monkeypatch.chdir(tmp_path)
    assert sizes(path) == sizes("there/tasks.yaml") == {("reviews", "train"): 10, ("reviews", "dev"): 5}


def test_a_yaml_file_with_a_missing_file_names_it(tmp_path: Path) -> None:
    path = reviews(tmp_path, files={"train": "train.tsv", "dev": "dev.tsv", "test": "none.tsv"})
    with pytest.raises(DataError, match=r"tasks.yaml: lacks none.tsv \(reviews test\)"):
        load(str(path))


def test_a_task_that_lies_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="task para has neither files nor hub"):
        load(str(declare(tmp_path, {"name": "para", "kind": "binary", "sentences": 2})))


def test_a_source_that_is_not_there_is_refused_with_what_could_be() -> None:
    with pytest.raises(DataError, match="data 'nowhere': no such folder; expected demo, hub, a folder"):
        load("nowhere")
    with pytest.raises(DataError, match=r"absent\.yaml: No such file"):
        load("absent.yaml")


def test_the_demo_gives_the_three_tasks_with_what_training_needs() -> None:
    dataset = load("demo")
    assert list(dataset.tasks) == ["sst", "para", "sts"]
    for name, task in dataset.tasks.items():
        highest = {"classification": 4, "binary": 1, "regression": 5}[task.kind]
        for split in ("train", "dev"):
            found = dataset.examples[name, split]
            assert len({each.example_id for each in found}) == len(found) > 0
            assert all(each.label is not None and 0 <= each.label <= highest for each in found)
            assert all((each.second is not None) == (task.sentences == 2) for each in found)


@pytest.mark.parametrize("source", ["demo", "yaml"])
def test_cfimdb_is_refused_where_it_means_nothing(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cfimdb: 'join' is for a folder"):
        load("demo" if source == "demo" else str(reviews(tmp_path)), cfimdb="join")


def test_overlap_of_dev_and_train_is_told_and_goes_on(tmp_path: Path) -> None:
    train = HEADER + rows(8) + "a\tGood  film\t1\n"
    dev = HEADER + rows(3, 1000) + "b\tgood film\t2\nc\tgood film\t2\n"
    dataset = load(str(reviews(tmp_path, train, dev)))
    assert len(dataset.examples["reviews", "dev"]) == 5
    assert [notice for notice in dataset.notices if "2 of 5 dev examples are in train too" in notice]


def test_held_out_examples_are_neither_trained_on_nor_lost(tmp_path: Path) -> None:
    path = str(reviews(tmp_path, HEADER + rows(100)))
    whole, split = load(path), load(path, holdout=0.1)
    kept, held = split.examples["reviews", "train"], split.examples["reviews", "holdout"]
    assert (len(kept), len(held)) == (90, 10)
    assert sorted([*kept, *held], key=str) == sorted(whole.examples["reviews", "train"], key=str)
    assert split.examples["reviews", "dev"] == whole.examples["reviews", "dev"]
    assert any("10 training examples are held out" in notice for notice in split.notices)


def test_the_holdout_is_the_same_under_any_limit(tmp_path: Path) -> None:
    path = str(reviews(tmp_path, HEADER + rows(100)))
    limited = load(path, holdout=0.2, limit=30)
    assert limited.examples["reviews", "holdout"] == load(path, holdout=0.2).examples["reviews", "holdout"]
    assert len(limited.examples["reviews", "train"]) == 30


def test_a_limit_cuts_train_alone_for_all_tasks_or_by_task(tmp_path: Path) -> None:
    folder = cs224n_folder(tmp_path)
    whole = sizes(folder)
    limited = sizes(folder, limit=7)
    assert {key for key in whole if limited[key] != whole[key]} == {
        ("sst", "train"),
        ("para", "train"),
        ("sts", "train"),
    }
    assert {limited[task, "train"] for task in ("sst", "para", "sts")} == {7}
    assert sizes(folder, limit={"para": 5}) == {**whole, ("para", "train"): 5}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"limit": 0}, "limit: expected at least 1 example of reviews, got 0"),
        ({"limit": {"sst": 5}}, "limit: the data has no task 'sst'; it has reviews"),
        ({"holdout": 1.0}, r"holdout: expected .* below 1, got 1\.0"),
        ({"holdout": -0.1}, "holdout: expected"),
    ],
)
def test_an_impossible_limit_or_holdout_is_refused(
    arguments: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        load(str(reviews(tmp_path)), **arguments)


def test_the_fingerprint_knows_limit_and_holdout_but_not_where_the_files_lie(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    path = str(reviews(one, HEADER + rows(50)))
    found = [load(path, **arguments).fingerprint for arguments in ({}, {"limit": 20}, {"holdout": 0.1})]
    assert len(set(found)) == 3
    assert load(path, limit=50).fingerprint == found[0]
    assert load(str(reviews(two, HEADER + rows(50)))).fingerprint == found[0]
    assert load(str(reviews(two, HEADER + rows(50) + "new\tnew\t0\n"))).fingerprint != found[0]


def test_the_fingerprint_is_that_of_what_is_returned(tmp_path: Path) -> None:
    path = str(reviews(tmp_path, HEADER + rows(50)))
    dataset, whole = load(path, holdout=0.1), load(path)
    kept, held = hold_out("reviews", whole.examples["reviews", "train"], 0.1)
    expected = {**whole.examples, ("reviews", "train"): kept, ("reviews", "holdout"): held}
    assert dataset.fingerprint == fingerprint(dataset.tasks, expected)
    renamed = replace(dataset.tasks["reviews"], classes=4)
    assert dataset.fingerprint != fingerprint({"reviews": renamed}, dataset.examples)


@needs_real
@pytest.mark.parametrize(
    ("task", "stem", "label"),
    [
        ("sst", "ids-sst", "sentiment"),
        ("cfimdb", "ids-cfimdb", "sentiment"),
        ("para", "quora", "is_duplicate"),
        ("sts", "sts", "similarity"),
    ],
)
def test_real_files_hold_what_pandas_reads_in_them(task: str, stem: str, label: str) -> None:
    dataset = load(str(REAL), cfimdb="task")
    for split in ("train", "dev", "test"):
        path = Path(str(REAL)) / f"{stem}-{split}{'-student' if split == 'test' else ''}.csv"
        if not path.exists():
            assert (task, split) not in dataset.examples
            continue
        table = pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])
        names = ["sentence"] if dataset.tasks[task].sentences == 1 else ["sentence1", "sentence2"]
        table = table.dropna(subset=names if split == "test" else [*names, label])
        found = dataset.examples[task, split]
        assert [each.example_id for each in found] == table["id"].tolist()
        assert [each.first for each in found] == table[names[0]].str.strip().tolist()
        if len(names) == 2:
            assert [each.second for each in found] == table[names[1]].str.strip().tolist()
        expected = [None] * len(table) if split == "test" else table[label].astype(float).round(6).tolist()
        assert [each.label for each in found] == expected


@needs_real
def test_the_real_quora_files_two_incomplete_rows_are_met_and_told() -> None:
    dataset = load(str(REAL))
    (notice,) = [each for each in dataset.notices if "skipped" in each]
    assert "quora-train.csv: 2 of 16214 rows" in notice
    assert notice.endswith("line 217 (no is_duplicate); line 15507 (no sentence2, no is_duplicate)")
