"""What masked language modelling hides: how much, of what, and never what is special or not for training."""

from __future__ import annotations

import numpy as np
import pytest

from mtbert.data.errors import DataError
from mtbert.data.tokenise import TokenisedData, TokenSplit
from mtbert.draws import generator
from mtbert.masking import Masked, MaskedText, mask, ordinary_words
from mtbert.weights import load_base
from tests.mtbert import toys

ORDINARY = np.arange(toys.FIRST_WORD, toys.VOCABULARY)
MANY = 40_000


def masked(ids: np.ndarray, seed: int = 0) -> Masked:
    return mask(ids, ORDINARY, toys.SPECIAL.mask, generator(seed, "test"))


def text_of(data: TokenisedData, seed: int = 0, max_length: int = 64) -> MaskedText:
    return MaskedText.of(data, ORDINARY, max_length, seed)


def within(found: int, of: int, probability: float) -> bool:
    """Whether a binomial count is within five standard deviations of its mean."""
    spread = np.sqrt(of * probability * (1 - probability))
    return bool(abs(found - of * probability) < 5 * spread)


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    """Words and special tokens, five to one, padding at the end."""
    random = np.random.default_rng(0)
    found = random.integers(toys.FIRST_WORD, toys.VOCABULARY, MANY)
    found[random.random(MANY) < 1 / 6] = random.integers(0, toys.FIRST_WORD)
    found[-50:] = toys.SPECIAL.pad
    return found


def test_fifteen_in_a_hundred_words_are_chosen_and_no_special_token(ids: np.ndarray) -> None:
    found = masked(ids)
    words = int((ids >= toys.FIRST_WORD).sum())
    assert len(found.chosen) == round(0.15 * words)
    assert len(set(found.chosen.tolist())) == len(found.chosen)
    assert (ids[found.chosen] >= toys.FIRST_WORD).all()
    assert (found.words == ids[found.chosen]).all()


def test_of_the_chosen_eight_in_ten_are_masked_one_replaced_and_one_kept(ids: np.ndarray) -> None:
    found = masked(ids)
    read, count = found.ids[found.chosen], len(found.chosen)
    hidden = int((read == toys.SPECIAL.mask).sum())
    same = int((read == found.words).sum())
    by_chance = 0.1 / len(ORDINARY)  # a random word may be the same
    assert within(hidden, count, 0.8)
    assert within(same, count, 0.1 + by_chance)
    others = read[(read != toys.SPECIAL.mask) & (read != found.words)]
    assert (others >= toys.FIRST_WORD).all()
    assert len(np.unique(others)) > 0.85 * len(ORDINARY)  # of all words, not of some


def test_what_is_not_chosen_stays_and_the_given_tokens_too(ids: np.ndarray) -> None:
    before = ids.copy()
    found = masked(ids)
    rest = np.setdiff1d(np.arange(MANY), found.chosen)
    assert (found.ids[rest] == ids[rest]).all()
    assert (ids == before).all()


def test_every_word_is_chosen_as_often_as_any_other() -> None:
    ids = np.array([1, 20, 21, 22, 23, 24, 25, 2, 0, 0])
    counts = np.zeros(len(ids))
    for seed in range(600):
        counts[masked(ids, seed).chosen] += 1
    assert set(np.flatnonzero(counts)) == set(range(1, 7))
    assert all(within(int(count), 600, 1 / 6) for count in counts[1:7])


def test_a_short_text_has_one_chosen_word_and_one_without_words_none() -> None:
    assert len(masked(np.array([1, 50, 2])).chosen) == 1
    found = masked(np.array([1, 2, 0, 0]))
    assert len(found.chosen) == len(found.words) == 0
    assert (found.ids == [1, 2, 0, 0]).all()


def test_ordinary_words_are_all_of_a_tokenizer_s_but_the_special_ones() -> None:
    tokenizer = load_base("demo").tokenizer()
    special = {tokenizer.token_to_id(f"[{name}]") for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    assert set(ordinary_words(tokenizer).tolist()) == set(range(tokenizer.get_vocab_size())) - special


def test_one_in_twenty_sequences_is_held_out_and_the_rest_trained_on(data: TokenisedData) -> None:
    text = text_of(data)
    assert len(text.held_out) == round(0.05 * 200)
    assert sorted([*text.held_out, *text.training]) == list(range(200))
    assert set(text_of(data, seed=1).held_out) != set(text.held_out)


def sequences(text: MaskedText, steps: int, batch_size: int) -> list[tuple[int, ...]]:
    """What the steps read, with the hidden words put back."""
    found = []
    for step in range(steps):
        batch, chosen, words = text.step(step, batch_size, "cpu")
        ids = batch.ids.numpy().copy()
        ids[chosen.numpy()] = words.numpy()
        assert len(batch.lengths) == batch_size
        for start, length in zip(batch.starts, batch.lengths, strict=True):
            found.append(tuple(ids[start : start + length].tolist()))
    return found


def expected(data: TokenisedData, numbers: np.ndarray) -> list[tuple[int, ...]]:
    """[CLS] first [SEP] second [SEP] of these examples, counted through in the tasks' order."""
    whole = []
    for task in data.tasks:
        split = data.splits[task, "train"]
        for at in range(len(split.ids)):
            row = [toys.SPECIAL.cls]
            for side in (split.first, split.second):
                if side is not None:
                    row += [*side.values[side.offsets[at] : side.offsets[at + 1]], toys.SPECIAL.sep]
            whole.append(tuple(map(int, row)))
    return [whole[number] for number in numbers]


def test_a_pass_reads_every_training_text_once_and_the_next_one_in_another_order(data: TokenisedData) -> None:
    text = text_of(data)
    read = sequences(text, 38, 10)  # two passes over 190
    for one_pass in (read[:190], read[190:]):
        assert sorted(one_pass) == sorted(expected(data, text.training))
    assert read[:190] != read[190:]


def test_a_batch_may_reach_over_several_passes(data: TokenisedData) -> None:
    read = sequences(text_of(data), 1, 400)
    assert set(read) == set(expected(data, text_of(data).training))
    assert {read.count(row) for row in read} == {2, 3}


def test_a_pair_is_one_sequence_and_its_second_sentence_another_segment(data: TokenisedData) -> None:
    batch, _, _ = text_of(data).step(0, 20, "cpu")
    for at, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
        ids = batch.ids[start : start + length].tolist()
        segments = batch.segment_ids[start : start + length].tolist()
        ends = [place for place, word in enumerate(ids) if word == toys.SPECIAL.sep]
        assert len(ends) == data.tasks[batch.task[at]].sentences
        assert segments == [0] * (ends[0] + 1) + [1] * (length - ends[0] - 1)


def test_every_pass_hides_other_words_and_what_is_held_out_always_the_same(data: TokenisedData) -> None:
    text = text_of(data)
    read = []
    for step in range(2):
        batch, _, _ = text.step(step, 190, "cpu")
        spans = zip(batch.starts, batch.lengths, strict=True)
        read.append({tuple(batch.ids[start : start + length].tolist()) for start, length in spans})
    assert len(read[0] & read[1]) < 50  # those of which nothing is hidden
    once, again = (list(text.held_out_batches("cpu")) for _ in range(2))
    assert sum(len(batch.batch.lengths) for batch in once) == 10
    for one, other in zip(once, again, strict=True):
        assert (one.batch.ids == other.batch.ids).all()
        assert (one.chosen == other.chosen).all()


def test_a_text_that_comes_again_has_other_words_hidden() -> None:
    """Equal sentences make every step's batch the same, but for what is hidden in it."""
    sst = {"sst": toys.TASKS["sst"]}
    made = toys.random_data(sizes=(40,), tasks=sst).splits["sst", "train"]
    same = TokenSplit(made.ids, toys.ragged([np.arange(20, 40)] * 40), None, made.labels)
    text = text_of(TokenisedData(sst, "alike", {("sst", "train"): same}, toys.SPECIAL))
    chosen = [text.step(step, 8, "cpu").chosen.tolist() for step in range(5)]
    assert all(one != other for at, one in enumerate(chosen) for other in chosen[:at])


def test_the_same_seed_reads_the_same_and_another_something_else(data: TokenisedData) -> None:
    one, same, other = (text_of(data, seed).step(3, 16, "cpu") for seed in (0, 0, 1))
    assert (one.batch.ids == same.batch.ids).all()
    assert (one.words == same.words).all()
    assert one.batch.ids.tolist() != other.batch.ids.tolist()


def test_only_training_text_is_read(data: TokenisedData) -> None:
    train = {key: split for key, split in data.splits.items() if key[1] == "train"}
    alone = TokenisedData(data.tasks, data.fingerprint, train, data.special)
    one, other = (text_of(of).step(0, 16, "cpu") for of in (data, alone))
    assert (one.batch.ids == other.batch.ids).all()
    held_out = {tuple(row) for row in sequences(text_of(alone), 19, 10)}
    assert not held_out & set(expected(data, text_of(data).held_out))


def test_sequences_are_cut_to_the_maximum_length(data: TokenisedData) -> None:
    batch, _, _ = text_of(data, max_length=9).step(0, 64, "cpu")
    assert batch.lengths.max() == 9


def test_too_little_text_is_refused() -> None:
    tiny = toys.random_data(sizes=(1,), tasks={"sst": toys.TASKS["sst"]})
    with pytest.raises(DataError, match="at least 2 training examples, got 1"):
        text_of(tiny)
