"""The embedded data: deterministic, split by combinations of words, labelled by the rules it states."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from mtbert.data.examples import Example, overlapping
from mtbert.demo import generator, judgements
from mtbert.demo.chance import Chance, reserved
from mtbert.demo.events import (
    SIDELINES,
    Event,
    change,
    draw_event,
    exchange,
    omit,
    same_meaning,
    similarity,
    tell,
)
from mtbert.demo.lexicon import FRAMES

Splits = dict[tuple[str, str], list[Example]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return generator.examples()


def events(count: int) -> list[tuple[Event, Chance]]:
    chances = [Chance("test", index) for index in range(count)]
    return [(draw_event(chance), chance) for chance in chances]


def test_another_process_with_other_hashes_draws_the_same(splits: Splits) -> None:
    program = (
        "import hashlib; from mtbert.demo import generator; "
        "text = repr(generator.examples()) + repr(list(generator.pretraining_text(3, 50))); "
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    here = repr(splits) + repr(list(generator.pretraining_text(3, 50)))
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == hashlib.sha256(here.encode()).hexdigest()


def test_sizes_ids_and_sentences_are_as_declared(splits: Splits) -> None:
    for task, sizes in generator.SIZES.items():
        for split, size in sizes.items():
            found = splits[task, split]
            assert len(found) == size
            assert len({example.example_id for example in found}) == size
            assert all((example.second is None) == (task == "sst") for example in found)
            assert all((example.label is None) == (split == "test") for example in found)


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_no_example_is_in_two_splits(splits: Splits, task: str) -> None:
    for one, two in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert overlapping(splits[task, one], splits[task, two]) == 0


@pytest.mark.parametrize("split", ["train", "dev"])
def test_every_class_is_frequent(splits: Splits, split: str) -> None:
    size = len(splits["sst", split])
    classes = Counter(example.label for example in splits["sst", split])
    assert set(classes) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert min(classes.values()) > size / 10
    assert max(classes.values()) < size / 3
    pairs = Counter(example.label for example in splits["para", split])
    assert set(pairs) == {0.0, 1.0}
    assert min(pairs.values()) > 0.45 * len(splits["para", split])


def test_similarities_cover_the_whole_scale(splits: Splits) -> None:
    labels = [example.label for example in splits["sts", "train"] if example.label is not None]
    assert min(labels) == 0
    assert max(labels) == 5
    bands = Counter(min(4, int(label)) for label in labels)
    assert min(bands[band] for band in range(5)) > len(labels) / 20


# --- sentiment: a reader of the test's own, who knows the words' values and the rules ---


def modifiers(sentence: str) -> set[tuple[str, str]]:
    """Every modifier that stands before an adjective, perhaps with another between, and that adjective."""
    adjectives = "|".join(judgements.ADJECTIVES)
    middle = "|".join(judgements.INTENSIFIERS)
    found = set()
    for word in (*judgements.INTENSIFIERS, *judgements.DAMPENERS, *judgements.NEGATORS):
        pattern = rf"\b{word} (?:(?:{middle}) )?({adjectives})\b"
        found |= {(word, match[1]) for match in re.finditer(pattern, sentence)}
    return found


def read_clause(clause: str) -> float:
    words = clause.split()
    value, found = 0.0, 0
    for table in (judgements.ADJECTIVES, judgements.QUALITIES):
        for word, of in table.items():
            if word in words:
                value, found = of, found + 1
    negated = any(f" {phrase} " in f" {clause} " for phrase in (*judgements.NEGATORS, *judgements.ABSENCE))
    for forms, of in judgements.ATTITUDES.items():
        if set(forms) & set(words):
            value, found = of, found + 1
            negated = "did not" in clause or clause.startswith(judgements.NOBODIES)
    assert found == 1, clause
    if any(f" {word} " in clause for word in judgements.INTENSIFIERS):
        value *= 1.6
    if any(f" {word} " in clause for word in judgements.DAMPENERS):
        value *= 0.4
    return -0.6 * value if negated else value


def read(sentence: str) -> int:
    text = sentence.removesuffix(" .")
    for lead in ("although ", "while "):
        if text.startswith(lead):
            lesser, greater = text.removeprefix(lead).split(", ")
            break
    else:
        parts = re.split(r", (but|yet|although|even if) ", text)
        if len(parts) == 1:
            values = [read_clause(clause) for clause in text.split(" and ")]
            return grade(sum(values) / len(values))
        first, joint, second = parts
        if first.startswith("i expected"):
            return grade(read_clause(second))
        lesser, greater = (first, second) if joint in ("but", "yet") else (second, first)
    return grade(0.25 * read_clause(lesser) + 0.85 * read_clause(greater))


def grade(value: float) -> int:
    return sum(value >= limit for limit in (-1.3, -0.4, 0.4, 1.3))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the plot was good .", 3),
        ("the plot was not good .", 1),
        ("the plot was very good .", 4),
        ("the plot was slightly superb .", 3),
        ("the plot was awful, but the cast was superb .", 3),
        ("the cast was superb, but the plot was awful .", 1),
        ("although the plot was awful, nobody hated the cast .", 3),
    ],
)
def test_the_reader_of_these_tests_reads_as_people_do(sentence: str, expected: int) -> None:
    assert read(sentence) == expected


def test_sentiment_follows_from_the_words_but_for_neighbouring_classes(splits: Splits) -> None:
    found = splits["sst", "train"] + splits["sst", "dev"]
    off = Counter(abs(read(example.first) - int(example.label or 0)) for example in found)
    assert set(off) == {0, 1}
    assert 0.03 < off[1] / len(found) < 0.09  # the stated 6% of labels one class off


def test_reserved_combinations_are_in_half_of_dev_and_nowhere_in_train(splits: Splits) -> None:
    def with_reserved(split: str) -> float:
        return sum(
            any(reserved(*pair) for pair in modifiers(example.first)) for example in splits["sst", split]
        ) / len(splits["sst", split])

    assert with_reserved("train") == 0
    assert 0.25 < with_reserved("dev") <= 0.5  # the rest of the half by other words than modifiers


# --- events: what is the same, what is near, and how it is told ---


def test_every_sentence_pattern_names_all_that_takes_part() -> None:
    for frame in FRAMES:
        for pattern in frame.patterns:
            assert ("{topic}" in pattern) == bool(frame.topics), pattern
            assert "{agent}" in pattern, pattern
            assert "{other}" in pattern, pattern


def test_one_changed_fact_is_another_meaning() -> None:
    for event, chance in events(300):
        assert same_meaning(event, event)
        for slot in event.slots():
            assert not same_meaning(event, change(event, slot, chance)), (event, slot)
        assert not same_meaning(event, generator.near_miss(event, chance))


def test_exchanging_two_persons_is_another_meaning_unless_the_event_is_mutual() -> None:
    found = [event for event, _ in events(300)]
    assert {event.frame.symmetric for event in found} == {True, False}
    for event in found:
        assert same_meaning(event, exchange(event)) == event.frame.symmetric


def test_similarity_falls_with_each_further_change_and_less_for_what_is_left_unsaid() -> None:
    for event, chance in events(300):
        moved = event
        last = similarity(event, event)
        assert last == 5
        for slot in event.slots():
            if slot in SIDELINES:
                changed, unsaid = change(event, slot, chance), omit(event, slot)
                assert similarity(event, changed) < similarity(event, unsaid) < 5
            moved = change(moved, slot, chance)
            assert similarity(event, moved) < last
            last = similarity(event, moved)


def test_paraphrases_are_told_in_other_words_and_facts_are_told_as_they_are() -> None:
    for event, chance in events(200):
        told = {tell(event, chance) for _ in range(12)}
        assert len(told) > 1
        for text in told:
            for concept in (event.agent, event.other, event.topic, event.place, event.time):
                assert concept is None or any(word in text for word in concept)


def test_paraphrase_labels_are_balanced_at_any_overlap_of_words(splits: Splits) -> None:
    """Counting shared words must not answer the question."""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for example in splits["para", "train"]:
        one, two = set(example.first.split()), set((example.second or "").split())
        shares[example.label == 1].append(len(one & two) / len(one | two))
    means = {label: sum(values) / len(values) for label, values in shares.items()}
    assert abs(means[True] - means[False]) < 0.12, means
