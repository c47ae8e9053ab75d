"""From token ids of sentences to a `TokenBatch`: pair encoding, truncation, and the order of sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mtbert.configuration import Pairs
from mtbert.data.tokenise import Ragged, SpecialTokens, TokenSplit
from mtbert.devices import put
from mtbert.tokens import TokenBatch, rounded_rows


@dataclass(frozen=True)
class Request:
    """Examples of one task that one member wants encoded: `indices` int64 [examples] into the split."""

    member: int
    task: str
    split: TokenSplit
    indices: np.ndarray
    pairs: Pairs


@dataclass(frozen=True, eq=False)
class Sequences:
    """Encoded sequences end to end. ids, segments: int64 [tokens]; lengths: int64 [sequences]"""

    ids: np.ndarray
    segments: np.ndarray
    lengths: np.ndarray


def assemble(
    requests: Sequence[Request], special: SpecialTokens, max_length: int, device: str = "cpu"
) -> TokenBatch:
    """One batch of all requests, which come sorted by (member, task).

    A pair that is encoded separately gives two sequences an example: all first sentences, then all second.
    """
    encoded = [encode(request, special, max_length) for request in requests]
    lengths = np.concatenate([part.lengths for part in encoded])
    tokens = int(lengths.sum())
    ids = np.full(rounded_rows(tokens), special.pad, dtype=np.int64)
    segments = np.zeros(len(ids), dtype=np.int64)
    ids[:tokens] = np.concatenate([part.ids for part in encoded])
    segments[:tokens] = np.concatenate([part.segments for part in encoded])
    counts = [len(part.lengths) for part in encoded]
    return TokenBatch(
        put(ids, device),
        put(segments, device),
        lengths,
        np.repeat([request.member for request in requests], counts),
        [request.task for request, count in zip(requests, counts, strict=True) for _ in range(count)],
    )


def encode(request: Request, special: SpecialTokens, max_length: int) -> Sequences:
    """The sequences of one request, with special tokens, each at most `max_length` long."""
    split, pairs = request.split, request.pairs
    first = take(split.first, request.indices)
    if split.second is None:
        return _single(first, special, max_length)
    second = take(split.second, request.indices)
    if pairs.encoding == "separate":
        return _joined(_single(first, special, max_length), _single(second, special, max_length))
    return _pair(first, second, pairs, special, max_length)


def sequence_lengths(split: TokenSplit, pairs: Pairs, max_length: int) -> np.ndarray:
    """The tokens that each example takes, special ones included. int64 [examples]"""
    lengths: np.ndarray = np.minimum(split.first.lengths + 2, max_length)
    if split.second is not None and pairs.encoding == "separate":
        lengths = lengths + np.minimum(split.second.lengths + 2, max_length)
    elif split.second is not None:
        joint = split.first.lengths + split.second.lengths + 2 + pairs.separator
        lengths = np.minimum(joint, max_length)
    return lengths


def by_length(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Positions by ascending length, cut where a batch would pass so many tokens. int64 [batch] each"""
    order = np.argsort(lengths, kind="stable")
    begin = taken = 0
    for end, length in enumerate(lengths[order].tolist()):
        if end > begin and taken + length > tokens:
            yield order[begin:end]
            begin, taken = end, 0
        taken += length
    if begin < len(order):
        yield order[begin:]


def take(ragged: Ragged, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows at `indices` end to end: values int64 [tokens], lengths int64 [rows]."""
    begins = ragged.offsets[indices]
    lengths = ragged.offsets[indices + 1] - begins
    return ragged.values[_ranges(begins, lengths)].astype(np.int64), lengths


def _single(sentence: tuple[np.ndarray, np.ndarray], special: SpecialTokens, max_length: int) -> Sequences:
    """[CLS] sentence [SEP]"""
    values, lengths = sentence
    kept = np.minimum(lengths, max_length - 2)
    totals = kept + 2
    starts = _starts(totals)
    ids = np.full(totals.sum(), special.sep, dtype=np.int64)
    ids[starts] = special.cls
    ids[_ranges(starts + 1, kept)] = values[_ranges(_starts(lengths), kept)]
    return Sequences(ids, np.zeros_like(ids), totals)


def _pair(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    pairs: Pairs,
    special: SpecialTokens,
    max_length: int,
) -> Sequences:
    """[CLS] first [SEP] second [SEP], the longer sentence cut first; the middle [SEP] only if wanted."""
    (values_a, lengths_a), (values_b, lengths_b) = first, second
    middle = int(pairs.separator)
    room = max_length - 2 - middle
    over = lengths_a + lengths_b > room
    shorter = np.minimum(np.minimum(lengths_a, lengths_b), room // 2)
    first_is_shorter = lengths_a <= lengths_b
    kept_a = np.where(over, np.where(first_is_shorter, shorter, room - shorter), lengths_a)
    kept_b = np.where(over, np.where(first_is_shorter, room - shorter, shorter), lengths_b)
    totals = kept_a + kept_b + 2 + middle
    starts = _starts(totals)
    ids = np.full(totals.sum(), special.sep, dtype=np.int64)
    ids[starts] = special.cls
    ids[_ranges(starts + 1, kept_a)] = values_a[_ranges(_starts(lengths_a), kept_a)]
    begin_b = starts + 1 + kept_a + middle
    ids[_ranges(begin_b, kept_b)] = values_b[_ranges(_starts(lengths_b), kept_b)]
    segments = np.zeros_like(ids)
    if pairs.segment_ids:
        segments[_ranges(begin_b, kept_b + 1)] = 1
    return Sequences(ids, segments, totals)


def _joined(first: Sequences, second: Sequences) -> Sequences:
    return Sequences(
        np.concatenate([first.ids, second.ids]),
        np.concatenate([first.segments, second.segments]),
        np.concatenate([first.lengths, second.lengths]),
    )


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)


def _ranges(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """begin, begin + 1, … for each of the ranges, end to end. int64 [sum of lengths]"""
    return np.repeat(begins - _starts(lengths), lengths) + np.arange(lengths.sum())
