"""A file whose every write may be the last thing that a process does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Mortal = Callable[[Callable[..., Any], Callable[..., Any]], Callable[..., Any]]
"""Makes of a call, and of the part of it that is done in dying, a call at which the process may die."""


class MortalFile:
    """An open file whose every write is such a call.

    Args:
        cut: the part of what is written that a death leaves.
    """

    def __init__(self, file: Any, mortal: Mortal, cut: Callable[[Any], Any]) -> None:
        self._file = file
        self.write = mortal(file.write, lambda data: file.write(cut(data)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> MortalFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
