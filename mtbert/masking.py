"""The training text with words hidden, as masked language modelling reads it (Devlin et al. 2019, 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbert.batches import Request, assemble, sequence_lengths
from mtbert.configuration import Pairs
from mtbert.data.errors import DataError
from mtbert.data.tokenise import TokenisedData
from mtbert.draws import generator
from mtbert.tokens import TokenBatch

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHOSEN = 0.15  # of the tokens that are not special
MASKED, REPLACED = 0.8, 0.1  # of the chosen; the rest stay as they are
HELD_OUT = 0.05  # of the sequences
_PAIRS = Pairs()
_TOGETHER = 64  # held-out sequences in a batch


class Masked(NamedTuple):
    """Tokens as the model reads them, and what is asked of it.

    Attributes:
        ids: int64 [rows].
        chosen: the rows that are asked for, ascending. int64 [chosen]
        words: what stood there. int64 [chosen]
    """

    ids: np.ndarray
    chosen: np.ndarray
    words: np.ndarray


class MaskedBatch(NamedTuple):
    """The same as a batch. `chosen`, `words`: int64 [chosen], on its device."""

    batch: TokenBatch
    chosen: Tensor
    words: Tensor


def ordinary_words(tokenizer: Tokenizer) -> np.ndarray:
    """The ids of all words that are not special ones, [UNK] among these. int64 [words], ascending"""
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return np.array(sorted(set(tokenizer.get_vocab().values()) - special), dtype=np.int64)


def mask(ids: np.ndarray, ordinary: np.ndarray, mask_id: int, draw: np.random.Generator) -> Masked:
    """Choose 15% of the ordinary tokens; 80% of these become [MASK], 10% a random word, 10% stay.

    So many of the batch are chosen, and one at least, rather than each with that probability: the loss is
    a mean over equally many at every step.

    Args:
        ids: int64 [rows]; rows of padding are special tokens, and so never chosen.
        ordinary: what may be chosen, and what replaces. int64 [words]
    """
    candidates = np.flatnonzero(np.isin(ids, ordinary))
    count = min(len(candidates), max(1, round(CHOSEN * len(candidates))))
    chosen = np.sort(draw.permutation(candidates)[:count])
    fate = draw.random(count)
    words = draw.choice(ordinary, count)
    read = ids.copy()
    read[chosen] = np.where(fate < MASKED, mask_id, np.where(fate < MASKED + REPLACED, words, ids[chosen]))
    return Masked(read, chosen, ids[chosen])


@dataclass(frozen=True, eq=False)
class MaskedText:
    """The training examples of all tasks, one sequence for each, numbered through in the tasks' order.

    Attributes:
        ordinary: what may be hidden. int64 [words]
        max_length: of a sequence, special tokens included.
        training, held_out: int64, the sequences' numbers; a text that the data repeats may be in both.
    """

    data: TokenisedData
    ordinary: np.ndarray
    max_length: int
    seed: int
    training: np.ndarray
    held_out: np.ndarray

    @staticmethod
    def of(data: TokenisedData, ordinary: np.ndarray, max_length: int, seed: int) -> MaskedText:
        """The text of a pretraining with this seed, which decides what is held out.

        Raises:
            DataError: fewer than two sequences.
        """
        sequences = sum(len(data.splits[task, "train"].ids) for task in data.tasks)
        if sequences < 2:
            raise DataError(f"pretraining: expected at least 2 training examples, got {sequences}")
        order = generator(seed, "held out").permutation(sequences)
        count = max(1, round(HELD_OUT * sequences))
        return MaskedText(data, ordinary, max_length, seed, np.sort(order[count:]), np.sort(order[:count]))

    def step(self, number: int, batch_size: int, device: str) -> MaskedBatch:
        """A step's batch: consecutive sequences of a stream of shuffled passes, masked anew each time."""
        size = len(self.training)
        wanted = np.arange(number * batch_size, (number + 1) * batch_size)
        chosen = np.empty_like(wanted)
        for at in np.unique(wanted // size):
            of_pass = wanted // size == at
            chosen[of_pass] = _pass(self.seed, int(at), size)[wanted[of_pass] % size]
        return self._masked(self.training[chosen], generator(self.seed, "masking", number), device)

    def held_out_batches(self, device: str) -> Iterator[MaskedBatch]:
        """All that is held out, masked alike whenever it is asked for, sequences of like length together."""
        splits = [self.data.splits[task, "train"] for task in self.data.tasks]
        lengths = np.concatenate([sequence_lengths(split, _PAIRS, self.max_length) for split in splits])
        order = self.held_out[np.argsort(lengths[self.held_out], kind="stable")]
        for start in range(0, len(order), _TOGETHER):
            draw = generator(self.seed, "masking", "held out", start)
            yield self._masked(order[start : start + _TOGETHER], draw, device)

    def _masked(self, numbers: np.ndarray, draw: np.random.Generator, device: str) -> MaskedBatch:
        requests, first = [], 0
        for task in self.data.tasks:
            split = self.data.splits[task, "train"]
            indices = numbers[(numbers >= first) & (numbers < first + len(split.ids))] - first
            if len(indices):
                requests.append(Request(0, task, split, indices, _PAIRS))
            first += len(split.ids)
        batch = assemble(requests, self.data.special, self.max_length)
        found = mask(batch.ids.numpy(), self.ordinary, self.data.special.mask, draw)
        ids, chosen, words = (torch.from_numpy(array).to(device) for array in found)
        read = replace(batch, ids=ids, segment_ids=batch.segment_ids.to(device))
        return MaskedBatch(read, chosen, words)


@lru_cache(maxsize=2)
def _pass(seed: int, number: int, size: int) -> np.ndarray:
    return generator(seed, "pretraining order", number).permutation(size)
