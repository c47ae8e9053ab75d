"""Delimited files: what is read from them, and what is said of a broken one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from mtbert.data.errors import DataError
from mtbert.data.examples import Example
from mtbert.data.load import load
from tests.mtbert.data.files import HEADER, REVIEWS, declare, reviews, rows

PAIRS: dict[str, Any] = {
    "name": "graded",
    "kind": "regression",
    "sentences": 2,
    "low": 0,
    "high": 5,
    "metric": "pearson",
    "columns": {"first": "a", "second": "b", "label": "grade"},
    "files": {"train": "train.tsv", "dev": "dev.tsv"},
}


def train_of(path: Path, task: str = "reviews") -> list[Example]:
    return list(load(str(path)).examples[task, "train"])


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as error:
        load(str(path))
    return str(error.value)


def test_columns_are_read_by_name_whatever_stands_beside_them(tmp_path: Path) -> None:
    text = "\tstars\tnotes\tkey\ttext\n0\t2\tx\tk1\t Fine film \n1\t0\t\tk2\tBad film\n"
    path = reviews(tmp_path, text)
    assert train_of(path) == [Example("k1", "Fine film", None, 2.0), Example("k2", "Bad film", None, 0.0)]


def test_quoted_fields_are_read_as_the_csv_module_writes_them(tmp_path: Path) -> None:
    texts = ['He said "no" .', '" quoted "', "a\ttab", "two\nlines", '"', "plain", 'ends with "']
    with (tmp_path / "train.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["key", "text", "stars"])
        writer.writerows([f"k{at}", text, 1] for at, text in enumerate(texts))
    path = reviews(tmp_path, (tmp_path / "train.tsv").read_bytes())
    assert [example.first for example in train_of(path)] == texts


def test_a_file_without_quoting_keeps_its_quotation_marks(tmp_path: Path) -> None:
    path = reviews(tmp_path, HEADER + 'k1\t"open\t1\nk2\t"both"\t2\n', quoted=False)
    assert [example.first for example in train_of(path)] == ['"open', '"both"']


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_line_ends_and_empty_lines_make_no_difference(
    mark: bytes, end: str, tmp_path: Path
) -> None:
    text = (HEADER + "k1\tCafé\t1\n\nk2\tb\t2\n\n").replace("\n", end)
    path = reviews(tmp_path, mark + text.encode())
    assert [(example.first, example.label) for example in train_of(path)] == [("Café", 1.0), ("b", 2.0)]


def test_examples_without_an_id_column_are_numbered(tmp_path: Path) -> None:
    path = reviews(tmp_path, columns={"first": "text", "label": "stars"})
    assert [example.example_id for example in train_of(path)][:2] == ["train-1", "train-2"]


def test_another_delimiter_is_declared(tmp_path: Path) -> None:
    comma = (HEADER + rows(10)).replace("\t", ",")
    path = reviews(tmp_path, comma, (HEADER + rows(5, 1000)).replace("\t", ","), delimiter=",")
    assert len(train_of(path)) == 10


def test_a_comma_file_may_hold_texts_of_several_lines_with_commas(tmp_path: Path) -> None:
    text = 'key,text,stars\nk1,"one, 1\nk2,two, 2",1\n'
    path = reviews(tmp_path, text, (HEADER + rows(5, 1000)).replace("\t", ","), delimiter=",")
    assert [example.first for example in train_of(path)] == ["one, 1\nk2,two, 2"]


def test_labels_are_mapped_to_classes_by_their_text_or_number(tmp_path: Path) -> None:
    text = HEADER + "k1\ta\tgood\nk2\tb\t1.0\nk3\tc\t-1\n"
    path = reviews(tmp_path, text, HEADER + "d\td\tgood\n", labels={"good": 2, "1": 1, "-1": 0})
    assert [example.label for example in train_of(path)] == [2.0, 1.0, 0.0]


def test_a_label_outside_the_mapping_is_refused(tmp_path: Path) -> None:
    path = reviews(tmp_path, HEADER + "k1\ta\tgood\nk2\tb\tgreat\n", labels={"good": 2, "bad": 0})
    assert refusal(path).endswith("line 3, column 'stars': expected one of good, bad, got 'great'")


@pytest.mark.parametrize(("lowest", "highest"), [(0, 1), (1, 5), (-1, 1)])
def test_another_scale_is_brought_to_the_tasks_own(lowest: int, highest: int, tmp_path: Path) -> None:
    shares = (0.0, 0.2, 0.52, 1.0)
    for split in ("train", "dev"):
        lines = [
            f"{split} a{at}\tb\t{lowest + share * (highest - lowest)}\n" for at, share in enumerate(shares)
        ]
        (tmp_path / f"{split}.tsv").write_text("a\tb\tgrade\n" + "".join(lines), encoding="utf-8")
    path = declare(tmp_path, {**PAIRS, "source_range": [lowest, highest]})
    assert [each.label for each in train_of(path, "graded")] == pytest.approx([5 * share for share in shares])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("3", "a whole number from 0 to 2"),
        ("-1", "0 to 2"),
        ("1.5", "0 to 2"),
        ("good", "0 to 2"),
        ("inf", "0 to 2"),
    ],
)
def test_a_label_out_of_range_is_refused_with_file_line_and_column(
    label: str, expected: str, tmp_path: Path
) -> None:
    said = refusal(reviews(tmp_path, HEADER + f"k1\ta\t1\n\nk2\tb\t{label}\n"))
    assert said.startswith(f"{tmp_path / 'train.tsv'}, line 4, column 'stars': expected ")
    assert expected in said
    assert said.endswith(f"got {label!r}")


def test_a_similarity_beyond_its_scale_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\tb\tgrade\nx\ty\t5.5\n", encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("a\tb\tgrade\nx\ty\t5\n", encoding="utf-8")
    said = refusal(declare(tmp_path, PAIRS))
    assert said.endswith("line 2, column 'grade': expected a number from 0 to 5, got '5.5'")


def test_rows_without_label_or_sentence_are_skipped_and_listed(tmp_path: Path) -> None:
    broken = "x1\ta\t\nx2\t \t1\nx3\ta\tnan\n"
    dataset = load(str(reviews(tmp_path, HEADER + rows(300) + broken)))
    assert len(dataset.examples["reviews", "train"]) == 300
    (notice,) = dataset.notices
    assert notice.startswith(f"{tmp_path / 'train.tsv'}: 3 of 303 rows")
    assert notice.endswith("line 302 (no stars); line 303 (no text); line 304 (no stars)")


def test_a_pair_without_its_second_sentence_is_skipped(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        lines = [f"{split} {at}\tb\t1\n" for at in range(200)]
        (tmp_path / f"{split}.tsv").write_text("a\tb\tgrade\nx\t\t1\n" + "".join(lines), encoding="utf-8")
    dataset = load(str(declare(tmp_path, PAIRS)))
    assert len(dataset.examples["graded", "train"]) == 200
    assert [notice.rsplit(": ", 1)[1] for notice in dataset.notices] == ["line 2 (no b)"] * 2


@pytest.mark.parametrize(("whole", "accepted"), [(99, True), (98, False)])
def test_more_than_one_row_in_a_hundred_to_skip_is_an_error(
    whole: int, accepted: bool, tmp_path: Path
) -> None:
    path = reviews(tmp_path, HEADER + rows(whole) + "x\ttext\t\n")
    if accepted:
        assert len(load(str(path)).notices) == 1
    else:
        assert "1 of 99 rows lack a sentence or a label, more than 1%: line 100 (no stars)" in refusal(path)


def test_test_files_need_no_label_and_keep_every_row_in_order(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("text\tkey\nb\tk2\na\tk1\n", encoding="utf-8")
    path = reviews(tmp_path, files={**REVIEWS["files"], "test": "test.tsv"})
    found = load(str(path)).examples["reviews", "test"]
    assert found == [Example("k2", "b", None, None), Example("k1", "a", None, None)]


def test_labels_of_a_test_file_are_kept_and_its_unlabelled_ones_are_none(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text(HEADER + "k1\ta\t2\nk2\tb\t-1\n", encoding="utf-8")
    path = reviews(tmp_path, files={**REVIEWS["files"], "test": "test.tsv"}, unlabelled=-1)
    assert [each.label for each in load(str(path)).examples["reviews", "test"]] == [2.0, None]


@pytest.mark.parametrize(("declared", "found"), [("\t", ","), (",", "\t"), ("\t", ";")])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_wrong_delimiter_is_named_with_the_one_found(
    declared: str, found: str, quote: str, tmp_path: Path
) -> None:
    text = found.join(f"{quote}{name}{quote}" for name in ("key", "text", "stars")) + "\n"
    said = refusal(reviews(tmp_path, text + found.join(("k1", "a", "1")) + "\n", delimiter=declared))
    names = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}
    assert said.startswith(f"{tmp_path / 'train.tsv'}: expected columns separated by {names[declared]}, ")
    assert f"it is {names[found]} that separates" in said


def test_a_missing_column_is_named_with_those_there(tmp_path: Path) -> None:
    said = refusal(reviews(tmp_path, "key\tsentence\tstars\nk\ta\t1\n"))
    assert said.endswith("line 1: expected a column 'text', got 'key', 'sentence', 'stars'")


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert "expected one column 'text', got 2" in refusal(
        reviews(tmp_path, "key\ttext\ttext\tstars\n1\t1\t1\t1\n")
    )


@pytest.mark.parametrize("row", ["k2\tb\n", "k2\tb\t1\textra\n", "only text\n"])
def test_a_row_of_another_width_is_refused_by_its_line(row: str, tmp_path: Path) -> None:
    said = refusal(reviews(tmp_path, HEADER + "k1\ta\t1\n" + row))
    assert f"train.tsv, line 3: expected 3 fields separated by a tab, got {row.count(chr(9)) + 1}" in said


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_said_to_be_empty(content: bytes, tmp_path: Path) -> None:
    assert refusal(reviews(tmp_path, dev=content)).startswith(f"{tmp_path / 'dev.tsv'}: is empty")


def test_a_header_alone_is_said_to_have_no_rows(tmp_path: Path) -> None:
    assert refusal(reviews(tmp_path, dev=HEADER)) == f"{tmp_path / 'dev.tsv'}: has no rows"


def test_text_that_is_not_utf8_is_refused_by_line_and_byte(tmp_path: Path) -> None:
    said = refusal(reviews(tmp_path, HEADER.encode() + b"k1\ta\t1\nk2\tCaf\xe9\t1\n"))
    assert f"{tmp_path / 'train.tsv'}, line 3, byte 7 of it: expected UTF-8, got 0xe9" in said


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf16_is_refused(encoding: str, tmp_path: Path) -> None:
    said = refusal(reviews(tmp_path, (HEADER + rows(3)).encode(encoding)))
    assert said.startswith(f"{tmp_path / 'train.tsv'}, line 1")
    assert "expected UTF-8" in said


def test_an_id_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    said = refusal(reviews(tmp_path, HEADER + "k1\ta\t1\nk2\tb\t1\nk1\tc\t0\n"))
    assert "line 4, column 'key': id 'k1' stands on line 2 already" in said


def test_an_id_that_is_missing_is_refused(tmp_path: Path) -> None:
    assert "line 2, column 'key': expected an id" in refusal(reviews(tmp_path, HEADER + "\ta\t1\n"))


@pytest.mark.parametrize(
    "swallowing",
    [
        'k5\t"He said so\t1\n' + rows(400, 10),  # to the end of the file
        'k5\t"He said so\t1\n' + rows(3, 10) + 'k8\tsaid "no" again\t1\n',  # to a later quotation mark
        'k5\t"He said so\t1\n' + rows(3, 10) + 'k8\t"whole"\t1\n',  # to a later quoted field
        'k5\t"He said so\t1\n' + rows(3, 10) + 'k8\ta disk of 5"\t1\n',  # to one that seems to close it
        'k5\t"He said so\t1\nk8\ta disk of 5"\t1\n',
        'k5\t"He" said so\t1\n',
        'k5\t"' + "long " * 40_000 + "\t1\n",
    ],
)
def test_a_quotation_mark_left_open_is_refused_by_its_line(swallowing: str, tmp_path: Path) -> None:
    said = refusal(reviews(tmp_path, HEADER + 'k1\t"two\nlines"\t1\nk2\tb\t2\n' + swallowing + rows(3, 900)))
    assert said.startswith(f"{tmp_path / 'train.tsv'}, line 5: a quotation mark ")
    assert "quoted: false" in said


def test_a_field_that_is_too_long_is_told_as_such(tmp_path: Path) -> None:
    said = refusal(reviews(tmp_path, HEADER + "k1\ta\t1\nk2\t" + "long " * 40_000 + "\t2\n"))
    assert said.startswith(f"{tmp_path / 'train.tsv'}, line 3: a field of more than 131,072 characters")


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    odd = "k1\ta\u2028b\x0bc\x85d\t1\n"  # what str.splitlines would cut
    said = refusal(reviews(tmp_path, HEADER + odd + 'k2\t"one\n\ntwo"\t1\nk3\tc\t9\n'))
    assert "train.tsv, line 6, column 'stars'" in said


def test_further_training_files_join_with_labels_mapped(tmp_path: Path) -> None:
    (tmp_path / "more.tsv").write_text("key\tquote\tgood\nm1\tx\t0\nm2\ty\t1\n", encoding="utf-8")
    more = {
        "file": "more.tsv",
        "columns": {"id": "key", "first": "quote", "label": "good"},
        "labels": {"0": 0, "1": 2},
    }
    dataset = load(str(reviews(tmp_path, also=[more])))
    found = dataset.examples["reviews", "train"]
    assert found[-2:] == [Example("m1", "x", None, 0.0), Example("m2", "y", None, 2.0)]
    assert len(found) == 12
    assert len(dataset.examples["reviews", "dev"]) == 5


def test_joined_files_that_share_an_id_are_refused(tmp_path: Path) -> None:
    (tmp_path / "more.tsv").write_text(HEADER + "k3\tx\t0\n", encoding="utf-8")
    assert "more.tsv: id 'k3'" in refusal(reviews(tmp_path, also=[{"file": "more.tsv"}]))
