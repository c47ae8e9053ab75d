"""A batch without padding: the tokens of all sequences of all members, end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbert.attention import AttentionView
from mtbert.devices import put

ROW_MULTIPLE = 32  # oneDNN builds a primitive for each new number of rows: few numbers, few primitives


class Span(NamedTuple):
    """The sequences and the token rows of one (member, task)."""

    member: int
    task: str
    sequences: slice
    rows: slice


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Sequences sorted by (member, task); the rows after the last token belong to the last member.

    Attributes:
        ids: int64 [rows], the rows past `tokens` filled with padding.
        segment_ids: int64 [rows].
        lengths: int64 [sequences], each at least 1.
        member: int64 [sequences], ascending.
        task: [sequences].
    """

    ids: Tensor
    segment_ids: Tensor
    lengths: np.ndarray
    member: np.ndarray
    task: Sequence[str]

    @property
    def rows(self) -> int:
        return self.ids.shape[0]

    @property
    def sequences(self) -> int:
        return len(self.lengths)

    @cached_property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @cached_property
    def starts(self) -> np.ndarray:
        """The first row of each sequence. int64 [sequences]"""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]])

    @cached_property
    def first_rows(self) -> Tensor:
        """`starts` on the batch's device: the rows of the [CLS] tokens."""
        return put(self.starts, self.ids.device)

    @cached_property
    def positions(self) -> Tensor:
        """The position of each row in its sequence; zero past the last token. int64 [rows]"""
        positions = np.zeros(self.rows, dtype=np.int64)
        positions[: self.tokens] = np.arange(self.tokens) - np.repeat(self.starts, self.lengths)
        return put(positions, self.ids.device)

    @cached_property
    def sequence_of_row(self) -> Tensor:
        """The sequence of each token. int64 [tokens]"""
        return put(np.repeat(np.arange(self.sequences), self.lengths), self.ids.device)

    @cached_property
    def spans(self) -> list[Span]:
        """Where each (member, task) lies, in order; the last one takes the rows past the last token."""
        found: list[Span] = []
        begin = 0
        for end in range(1, self.sequences + 1):
            same = end < self.sequences and (
                self.member[end] == self.member[begin] and self.task[end] == self.task[begin]
            )
            if not same:
                stop = self.rows if end == self.sequences else int(self.starts[end])
                rows = slice(int(self.starts[begin]), stop)
                found.append(Span(int(self.member[begin]), self.task[begin], slice(begin, end), rows))
                begin = end
        return found

    @cached_property
    def attention_all(self) -> AttentionView:
        """Every token asks."""
        return AttentionView(self.starts, self.lengths, self.rows, "all", self.ids.device)

    @cached_property
    def attention_first(self) -> AttentionView:
        """The first token of each sequence asks: all that the last layer needs for [CLS]."""
        return AttentionView(self.starts, self.lengths, self.rows, "first", self.ids.device)

    def select(self, members: Sequence[int]) -> tuple[TokenBatch, Tensor]:
        """The batch of these members alone, and the rows of this one that it kept. int64 [kept rows]

        Its rows past its last token repeat that token, of its own last member.
        """
        chosen = np.isin(self.member, members)
        if chosen.all():
            return self, torch.arange(self.rows, device=self.ids.device)
        kept = np.flatnonzero(np.repeat(chosen, self.lengths))
        kept = np.pad(kept, (0, rounded_rows(len(kept)) - len(kept)), mode="edge")
        rows = put(kept, self.ids.device)
        batch = TokenBatch(
            self.ids[rows],
            self.segment_ids[rows],
            self.lengths[chosen],
            self.member[chosen],
            [task for task, keep in zip(self.task, chosen, strict=True) if keep],
        )
        return batch, rows


def rounded_rows(tokens: int) -> int:
    """The number of rows that a batch of so many tokens takes: of many tokens, at most one in 32 more."""
    multiple = max(ROW_MULTIPLE, 1 << max(0, tokens.bit_length() - 6))
    return -(-tokens // multiple) * multiple
