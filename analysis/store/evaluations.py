"""A run's evaluations, which stay text until somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from analysis.store.records import EvaluationText


class Evaluations(Sequence[dict[str, Any]]):
    """A run's evaluation records by step; each is parsed when it is asked for, and not kept."""

    def __init__(self, texts: tuple[EvaluationText, ...] = ()) -> None:
        self.texts = texts

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Evaluations: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Evaluations:
        if isinstance(index, slice):
            return Evaluations(self.texts[index])
        return self.texts[index].record

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (text.record for text in self.texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Evaluations) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __repr__(self) -> str:
        return f"Evaluations(steps={[text.step for text in self.texts]})"
