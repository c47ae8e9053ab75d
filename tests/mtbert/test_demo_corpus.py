"""The embedded model's pretraining corpus: what is hidden in it, what is falsified, how it is batched."""

from __future__ import annotations

import numpy as np
import pytest

from mtbert.demo.corpus import CLS, MASK, PAD, SEP, Encoded, Kinds, corrupt, encode, kinds_of_words
from mtbert.demo.generator import pretraining_text
from mtbert.demo.vocabulary import build_tokenizer, vocabulary

PASSAGES = 300


@pytest.fixture(scope="module")
def pieces() -> list[str]:
    return vocabulary()


@pytest.fixture(scope="module")
def corpus(pieces: list[str]) -> Encoded:
    return encode(5, PASSAGES, build_tokenizer(pieces))


def random() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(1))


def test_passages_are_encoded_as_bert_has_pairs(corpus: Encoded, pieces: list[str]) -> None:
    for row, passage in enumerate(pretraining_text(5, PASSAGES)):
        ids = corpus.ids[row, : corpus.lengths[row]]
        ends = np.flatnonzero(ids == SEP)
        assert ids[0] == CLS
        assert len(ends) == 2
        assert ends[-1] == len(ids) - 1
        assert corpus.segments[row].sum() == ends[1] - ends[0]
        assert " ".join(pieces[index] for index in ids[1 : ends[0]]) == passage.first.replace(",", " ,")
        assert (corpus.ids[row, len(ids) :] == PAD).all()
        assert corpus.strangers[row] == (not passage.follows)


def test_some_second_texts_follow_and_some_do_not(corpus: Encoded) -> None:
    assert 0.2 < corpus.strangers.mean() < 0.45


def test_batches_hold_every_passage_once_and_pad_to_their_longest(corpus: Encoded) -> None:
    batches = list(corpus.batches(8, random()))
    assert len(batches) == PASSAGES // 8
    for batch in batches:
        assert batch.ids.shape == (8, batch.lengths.max())
        assert (batch.attended.sum(axis=1) == batch.lengths).all()
    seen = {row.tobytes() for batch in batches for row in np.pad(batch.ids, ((0, 0), (0, 64)))[:, :64]}
    rows = {row.tobytes() for row in np.pad(corpus.ids, ((0, 0), (0, 64)))[:, :64]}
    assert seen <= rows
    assert len(seen) > len(rows) - 8


def test_words_that_replace_each_other_are_of_one_kind_alone() -> None:
    kinds = kinds_of_words()
    assert sum(len(kind) for kind in kinds) == len(set().union(*kinds))
    assert all(len(kind) > 1 for kind in kinds)
    together = [kind for kind in kinds if "superb" in kind]
    assert together
    assert {"awful", "plain"} <= together[0]


def test_masked_and_false_words_are_where_they_may_be(corpus: Encoded, pieces: list[str]) -> None:
    read = corrupt(corpus, Kinds(pieces), random())
    changed = read.ids != corpus.ids
    assert (changed <= (read.masked | read.false)).all()
    assert not read.masked[np.isin(corpus.ids, (PAD, CLS, SEP))].any()
    assert 0.12 < read.masked.sum() / (corpus.attended.sum() - 3 * PASSAGES) < 0.18
    assert 0.8 < (read.ids[read.masked] == MASK).mean() < 0.97
    assert (read.false <= read.doubted).all()
    assert not (read.doubted & read.masked).any()
    assert (corpus.segments[read.doubted] == 1).all()
    assert not read.doubted[corpus.strangers == 1].any()
    assert 0.1 < read.false.sum() / read.doubted.sum() < 0.3


def test_a_false_word_is_another_of_the_same_kind(corpus: Encoded, pieces: list[str]) -> None:
    read = corrupt(corpus, Kinds(pieces), random())
    kind_of = {word: index for index, kind in enumerate(kinds_of_words()) for word in kind}
    exchanged = 0
    for row in range(PASSAGES):
        true, false = corpus.ids[row][read.false[row]], read.ids[row][read.false[row]]
        assert (true != false).all()
        for one, two in zip(true, false, strict=True):
            assert kind_of[pieces[one]] == kind_of[pieces[two]]
        exchanged += len(true) > 1 and sorted(true) == sorted(false)
    assert exchanged > PASSAGES / 50
