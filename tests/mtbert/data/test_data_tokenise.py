"""Token ids: what the tokenizer gives, as arrays that can be shared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mtbert.configuration import Pairs
from mtbert.data.examples import Dataset, Example
from mtbert.data.load import load
from mtbert.data.tokenise import TokenisedData, tokenise, truncated
from mtbert.tasks import Task
from mtbert.weights import ModelError
from tests.mtbert.data.files import cs224n_folder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "##s", "is", "bad", "."]
TASKS = {"sst": Task("sst", "classification", 1, classes=5), "para": Task("para", "binary", 2)}
EXAMPLES = {
    ("sst", "train"): [Example("é1", "A film .", None, 3.0), Example("2", "films", None, 0.0)],
    ("sst", "test"): [Example("t", "\u200b", None, None)],
    ("para", "train"): [Example("p", "a film is bad", "films is", 1.0), Example("q", "bad", "unheard", 0.0)],
}


def wordpiece(words: Mapping[str, int] | None = None) -> Tokenizer:
    """BERT's tokenizer over a few words, set to cut and pad, as published tokenizers are."""
    vocabulary = words or {word: at for at, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    return tokenizer


def dataset() -> Dataset:
    return Dataset(TASKS, EXAMPLES, (), "print", "here")


def sentences(data: TokenisedData, task: str, split: str, side: str = "first") -> list[list[str]]:
    ragged = getattr(data.splits[task, split], side)
    return [
        [WORDS[token] for token in ragged.values[ragged.offsets[at] : ragged.offsets[at + 1]]]
        for at in range(len(ragged))
    ]


def test_sentences_become_words_without_special_tokens_cuts_or_padding() -> None:
    data = tokenise(dataset(), wordpiece())
    assert sentences(data, "sst", "train") == [["a", "film", "."], ["film", "##s"]]
    assert sentences(data, "para", "train") == [["a", "film", "is", "bad"], ["bad"]]
    assert sentences(data, "para", "train", "second") == [["film", "##s", "is"], ["[UNK]"]]
    assert sentences(data, "sst", "test") == [[]]
    assert data.splits["sst", "train"].second is None
    assert data.splits["sst", "train"].ids == ("é1", "2")


def test_labels_are_numbers_and_nan_where_there_is_none() -> None:
    data = tokenise(dataset(), wordpiece())
    assert data.splits["sst", "train"].labels.tolist() == [3.0, 0.0]
    assert math.isnan(data.splits["sst", "test"].labels[0])


def test_array_types_are_those_promised() -> None:
    split = tokenise(dataset(), wordpiece()).splits["para", "train"]
    assert split.second is not None
    assert [array.dtype for array in (split.first.values, split.second.offsets, split.labels)] == [
        np.int32,
        np.int64,
        np.float32,
    ]


def test_the_callers_tokenizer_stays_as_it_is() -> None:
    tokenizer = wordpiece()
    before = tokenizer.to_str()
    tokenise(dataset(), tokenizer)
    assert tokenizer.to_str() == before


def test_only_the_splits_asked_for_are_tokenised() -> None:
    data = tokenise(dataset(), wordpiece(), splits=("train", "dev"))
    assert set(data.splits) == {("sst", "train"), ("para", "train")}


def test_special_tokens_are_those_of_the_vocabulary() -> None:
    special = tokenise(dataset(), wordpiece()).special
    found = (special.cls, special.sep, special.pad, special.mask)
    assert [WORDS[token] for token in found] == ["[CLS]", "[SEP]", "[PAD]", "[MASK]"]


@pytest.mark.parametrize("token", ["[CLS]", "[SEP]", "[PAD]", "[MASK]"])
def test_a_tokenizer_without_a_special_token_is_refused(token: str) -> None:
    words = {word: at for at, word in enumerate(each for each in WORDS if each != token)}
    with pytest.raises(ModelError, match=rf"lacks \[{token.strip('[]')}\] among its 10 words"):
        tokenise(dataset(), wordpiece(words))


def test_a_tokenizer_with_ids_beyond_its_vocabulary_is_refused() -> None:
    words = {word: at for at, word in enumerate(WORDS)} | {".": 11}
    with pytest.raises(ModelError, match=r"gives '\.' the id 11, and has 11 words"):
        tokenise(dataset(), wordpiece(words))


def test_description_and_arrays_bring_back_the_same_data() -> None:
    data = tokenise(dataset(), wordpiece())
    again = TokenisedData.from_arrays(json.loads(json.dumps(data.describe())), data.arrays())
    assert (again.tasks, again.fingerprint, again.special) == (data.tasks, data.fingerprint, data.special)
    assert list(again.splits) == list(data.splits)
    for key, split in data.splits.items():
        other = again.splits[key]
        assert other.ids == split.ids
        np.testing.assert_array_equal(other.labels, split.labels)
        for side in ("first", "second"):
            one, two = getattr(split, side), getattr(other, side)
            assert (one is None) == (two is None)
            if one is not None:
                np.testing.assert_array_equal(one.values, two.values)
                np.testing.assert_array_equal(one.offsets, two.offsets)


def test_declared_tasks_come_back_whole(tmp_path: Path) -> None:
    found = load(str(cs224n_folder(tmp_path)), cfimdb="join")
    data = tokenise(found, wordpiece())
    assert TokenisedData.from_arrays(data.describe(), data.arrays()).tasks == found.tasks


def test_arrays_are_shared_without_a_copy_and_refuse_writes() -> None:
    data = tokenise(dataset(), wordpiece())
    writable = {name: array.copy() for name, array in data.arrays().items()}
    again = TokenisedData.from_arrays(data.describe(), writable)
    split = again.splits["para", "train"]
    assert split.second is not None
    assert np.shares_memory(split.first.values, writable["para/train/first"])
    assert np.shares_memory(split.labels, writable["para/train/labels"])
    for found in (split, data.splits["para", "train"]):
        assert found.second is not None
        for array in (found.first.values, found.first.offsets, found.second.values, found.labels):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
    assert writable["para/train/labels"].flags.writeable


@pytest.mark.parametrize(
    ("pairs", "lengths"),
    [
        (Pairs(), [[4 + 3 + 3], [1 + 1 + 3]]),
        (Pairs(separator=False), [[4 + 3 + 2], [1 + 1 + 2]]),
        (Pairs(encoding="separate"), [[4 + 2, 3 + 2], [1 + 2, 1 + 2]]),
    ],
)
def test_cut_sequences_are_counted_with_their_special_tokens(pairs: Pairs, lengths: list[list[int]]) -> None:
    data = tokenise(dataset(), wordpiece())
    for limit in range(2, 12):
        assert truncated(data, pairs, limit) == {
            ("sst", "train"): (limit < 5) + (limit < 4),
            ("sst", "test"): int(limit < 2),
            ("para", "train"): sum(length > limit for pair in lengths for length in pair),
        }
