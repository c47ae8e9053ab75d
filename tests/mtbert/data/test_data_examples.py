"""Holding out, limiting, overlap and the fingerprint, over examples that lie nowhere."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from mtbert.data.errors import DataError
from mtbert.data.examples import Dataset, Example, columns_of, fingerprint, hold_out, limited, overlapping
from mtbert.tasks import Task

TASKS = {
    "sst": Task("sst", "classification", 1, classes=5),
    "para": Task("para", "binary", 2),
}


def examples(count: int, first: int = 0) -> list[Example]:
    return [Example(f"e{at}", f"sentence {at}", None, float(at % 5)) for at in range(first, first + count)]


def ids(found: list[Example]) -> list[str]:
    return [example.example_id for example in found]


@pytest.mark.parametrize("part", [0.1, 0.25, 0.5])
def test_held_out_and_kept_examples_are_all_of_train_each_once_in_order(part: float) -> None:
    train = examples(200)
    kept, held = hold_out("sst", train, part)
    assert len(held) == round(part * 200)
    for found in (kept, held):
        assert ids(found) == [each for each in ids(train) if each in set(ids(found))]
    assert sorted(ids(kept) + ids(held)) == sorted(ids(train))


def test_a_task_has_a_draw_of_its_own() -> None:
    assert ids(hold_out("sst", examples(200), 0.1)[1]) != ids(hold_out("sts", examples(200), 0.1)[1])
    assert ids(limited("sst", examples(200), 20)) != ids(limited("sts", examples(200), 20))


def test_repeated_sentences_are_held_out_together() -> None:
    train = [
        Example(f"e{at}", *pair, 1.0)
        for at in range(0, 300, 3)
        for at, pair in (
            (at, (f"a {at}", "b")),
            (at + 1, ("b", f"A  {at} ")),
            (at + 2, (f"c {at}", f"d {at}")),
        )
    ]
    for part in (0.05, 0.1, 0.15, 0.3):
        kept, held = hold_out("para", train, part)
        assert not overlapping(kept, held)
        assert len(held) - round(part * 300) in (0, 1)


def test_what_is_held_out_hangs_on_the_sentences_and_not_on_their_order() -> None:
    train = examples(100)
    held = hold_out("sst", train, 0.2)[1]
    assert set(ids(hold_out("sst", train[::-1], 0.2)[1])) == set(ids(held))


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(DataError, match=r"sst: holding out 0\.9 of 3"):
        hold_out("sst", examples(3), 0.9)


def test_a_limit_takes_so_many_in_order_and_a_smaller_one_is_part_of_a_larger() -> None:
    train = examples(300)
    large, small = limited("sst", train, 100), limited("sst", train, 30)
    assert (len(large), len(small)) == (100, 30)
    assert ids(large) == [each for each in ids(train) if each in set(ids(large))]
    assert set(ids(small)) < set(ids(large))
    assert ids(large) != ids(train)[:100]


def test_a_limit_beyond_the_size_takes_all() -> None:
    assert limited("sst", examples(10), 50) == examples(10)


def test_repeated_sentences_do_not_pass_the_limit() -> None:
    assert len(limited("sst", [Example(f"e{at}", "same", None, 0.0) for at in range(9)], 4)) == 4


def test_overlap_looks_past_case_spacing_and_the_order_of_a_pair() -> None:
    train = [Example("a", "One  cat", "two dogs", 1.0), Example("b", "x", "y", 0.0)]
    dev = [
        Example("c", "two dogs", "one cat", 1.0),
        Example("d", "one cat", "three dogs", 1.0),
        Example("e", "X", "Y", 0.0),
        Example("f", "onecat", "two dogs", 1.0),
    ]
    assert overlapping(train, dev) == 2


def test_the_fingerprint_sees_all_that_can_change_a_result() -> None:
    base = {("sst", "train"): examples(5), ("sst", "dev"): examples(3, 50), ("sst", "test"): examples(2, 90)}
    changed_example = [replace(examples(1)[0], label=4.0), *examples(5)[1:]]
    changed = [
        {**base, ("sst", "train"): changed_example},
        {**base, ("sst", "train"): [replace(examples(1)[0], first="other"), *examples(5)[1:]]},
        {**base, ("sst", "train"): [replace(examples(1)[0], example_id="e9"), *examples(5)[1:]]},
        {**base, ("sst", "train"): examples(5)[::-1]},
        {**base, ("sst", "train"): examples(4)},
        {**base, ("sst", "dev"): examples(2, 50)},
        {**base, ("sst", "holdout"): examples(1, 70)},
    ]
    tasks = {"sst": TASKS["sst"]}
    found = [fingerprint(tasks, each) for each in (base, *changed)]
    found += [
        fingerprint({"sst": replace(TASKS["sst"], **change)}, base)
        for change in ({"score": "half_up"}, {"classes": 6})
    ]
    assert len(set(found)) == len(found)


def test_the_fingerprint_sees_neither_test_nor_where_the_data_lay() -> None:
    base = {("sst", "train"): examples(5), ("sst", "dev"): examples(3, 50)}
    elsewhere = replace(TASKS["sst"], delimiter=",", unlabelled=-1.0)
    with_test = {("sst", "test"): examples(2), **base, ("sst", "holdout"): []}
    assert fingerprint({"sst": elsewhere}, with_test) == fingerprint({"sst": TASKS["sst"]}, base)


def test_the_fingerprint_sees_the_order_of_the_tasks() -> None:
    backwards = dict(reversed(TASKS.items()))
    assert fingerprint(TASKS, {}) != fingerprint(backwards, {})


def test_draws_and_fingerprint_are_the_same_in_another_process() -> None:
    program = (
        "from tests.mtbert.data.test_data_examples import *\n"
        "print(fingerprint(TASKS, {('sst', 'train'): hold_out('sst', examples(90), 0.1)[1],"
        " ('sst', 'dev'): limited('sst', examples(90), 9)}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_columns_hold_every_example_with_its_task_and_split() -> None:
    of = {("sst", "train"): examples(2), ("para", "dev"): [Example("p", "a", "b", None)]}
    assert columns_of(Dataset(TASKS, of, (), "f", "s")) == {
        "id": ["e0", "e1", "p"],
        "task": ["sst", "sst", "para"],
        "split": ["train", "train", "dev"],
        "first": ["sentence 0", "sentence 1", "a"],
        "second": [None, None, "b"],
        "label": [0.0, 1.0, None],
    }
