"""The pretraining corpus as token ids: batches of it, and what is hidden and falsified in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mtbert.demo import judgements
from mtbert.demo.generator import pretraining_text
from mtbert.demo.lexicon import FRAMES, NUMBERS, PEOPLE, PLACES, TIMES, TOPIC_GROUPS, Concept
from mtbert.demo.vocabulary import SPECIAL

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MASKED = 0.15  # of all tokens
FALSIFIED = 0.1  # of the words in a second text that have others of their kind
EXCHANGED = 0.2  # of the second texts, where they have two words of one kind
PAD, _, CLS, SEP, MASK = range(len(SPECIAL))
_POOL = 64  # batches whose passages are sorted by length together, to pad little
_FUNCTION_WORDS = "a about and as at by for from gave got had in into of on to was were with"


@dataclass(frozen=True)
class Encoded:
    """Passages as token ids, padded to the longest.

    Attributes:
        ids: int64 [passages, width]; `segments`: 1 for the second text.
        lengths: int64 [passages].
        strangers: int64 [passages], 1 where the second text does not follow.
    """

    ids: np.ndarray
    segments: np.ndarray
    lengths: np.ndarray
    strangers: np.ndarray

    @property
    def attended(self) -> np.ndarray:
        """1 for tokens, 0 for padding. int64 [passages, width]"""
        return (np.arange(self.ids.shape[1]) < self.lengths[:, None]).astype(np.int64)

    def batches(self, size: int, random: np.random.Generator) -> Iterator[Encoded]:
        """All passages in batches of like lengths, in a random order; a last, smaller one is left out."""
        order = random.permutation(len(self.lengths))
        for start in range(0, len(order), size * _POOL):
            pool = order[start : start + size * _POOL]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches = [pool[at : at + size] for at in range(0, len(pool) - size + 1, size)]
            for index in random.permutation(len(batches)):
                yield self._take(batches[index])

    def _take(self, rows: np.ndarray) -> Encoded:
        width = int(self.lengths[rows].max())
        return Encoded(
            self.ids[rows, :width], self.segments[rows, :width], self.lengths[rows], self.strangers[rows]
        )


@dataclass(frozen=True)
class Corrupted:
    """What a model reads in place of a batch, and what it is asked about it. [batch, width] each.

    Attributes:
        ids: with some tokens masked, and some words of second texts falsified.
        masked: the tokens whose words are asked for.
        doubted: the words of which is asked whether they are false.
        false: whether they are.
    """

    ids: np.ndarray
    masked: np.ndarray
    doubted: np.ndarray
    false: np.ndarray


def encode(seed: int, passages: int, tokenizer: Tokenizer) -> Encoded:
    """The corpus of a seed, as [CLS] first [SEP] second [SEP]."""
    texts = list(pretraining_text(seed, passages))
    encodings = tokenizer.encode_batch([(passage.first, passage.second) for passage in texts])
    lengths = np.array([len(encoding.ids) for encoding in encodings])
    ids = np.full((passages, lengths.max()), PAD)
    segments = np.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : lengths[row]] = encoding.ids
        segments[row, : lengths[row]] = encoding.type_ids
    return Encoded(
        ids, segments, lengths, np.array([not passage.follows for passage in texts], dtype=np.int64)
    )


class Kinds:
    """Which words could stand in each other's place, by their numbers in the vocabulary."""

    def __init__(self, pieces: Sequence[str]) -> None:
        number = {piece: index for index, piece in enumerate(pieces)}
        self._members = [np.array(sorted(number[word] for word in kind)) for kind in kinds_of_words()]
        self._of = np.full(len(pieces), -1)
        for index, members in enumerate(self._members):
            self._of[members] = index

    def known(self, ids: np.ndarray) -> np.ndarray:
        """Whether there are other words of a word's kind. Any shape"""
        known: np.ndarray = self._of[ids] >= 0
        return known

    def other(self, word: int, random: np.random.Generator) -> int:
        """Another word of its kind, all equally likely."""
        members = self._members[self._of[word]]
        members = members[members != word]
        return int(members[int(random.random() * len(members))])

    def pairs(self, ids: np.ndarray, columns: np.ndarray) -> list[tuple[int, int]]:
        """The columns of two different words of one kind."""
        return [
            (int(one), int(two))
            for at, one in enumerate(columns)
            for two in columns[at + 1 :]
            if ids[one] != ids[two] and self._of[ids[one]] == self._of[ids[two]]
        ]


def kinds_of_words() -> list[set[str]]:
    """Sets of words that can take each other's place in a sentence; no word is in two."""
    verbs = {
        word
        for frame in FRAMES
        for pattern in frame.patterns
        for word in pattern.replace("[", " ").replace("]", " ").replace("|", " ").split()
        if "{" not in word and word not in _FUNCTION_WORDS.split()
    }
    topics = [
        _last_words(concept for group in groups for concept in group) for groups in TOPIC_GROUPS.values()
    ]
    attitudes = ({forms[form] for forms in judgements.ATTITUDES} for form in (0, 1))
    judging = [set(judgements.ADJECTIVES), set(judgements.QUALITIES), *attitudes]
    whom = (_last_words(who for who in PEOPLE if named == (" " not in who[0])) for named in (True, False))
    kinds = [*whom, _last_words(NUMBERS), _last_words(PLACES), _last_words(TIMES), *topics, *judging, verbs]
    taken: set[str] = set()
    distinct = []
    for kind in kinds:
        distinct.append(kind - taken)
        taken |= kind
    return distinct


def corrupt(batch: Encoded, kinds: Kinds, random: np.random.Generator) -> Corrupted:
    """Masks tokens (Devlin et al. 2019), and falsifies words of second texts that follow on the first.

    Of the tokens asked for nine in ten are masked, and one is left as it is.
    """
    masked = (random.random(batch.ids.shape) < MASKED) & ~np.isin(batch.ids, (PAD, CLS, SEP))
    doubted = kinds.known(batch.ids) & (batch.segments == 1) & ~masked & (batch.strangers == 0)[:, None]
    false = doubted & (random.random(batch.ids.shape) < FALSIFIED)
    ids = batch.ids.copy()
    for row, column in zip(*np.nonzero(false), strict=True):
        ids[row, column] = kinds.other(batch.ids[row, column], random)
    for row in np.flatnonzero(random.random(len(ids)) < EXCHANGED):
        pairs = kinds.pairs(batch.ids[row], np.flatnonzero(doubted[row] & ~false[row]))
        if pairs:
            one, two = pairs[int(random.random() * len(pairs))]
            ids[row, [one, two]] = batch.ids[row, [two, one]]
            false[row, [one, two]] = True
    ids[masked & (random.random(batch.ids.shape) < 0.9)] = MASK
    return Corrupted(ids, masked, doubted, false)


def _last_words(concepts: Iterator[Concept] | Sequence[Concept]) -> set[str]:
    return {surface.split()[-1] for concept in concepts for surface in concept}
