"""What a form of export says of the folder that it has filled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Written:
    """
    Attributes:
        library: that loads it, by the hub's name.
        code: that loads it, in Python.
        notes: what was done to the run's weights, a sentence or several each.
        pipeline: the hub's name of what it does; null where the library's own cannot do it alone.
    """

    library: str
    code: str
    notes: tuple[str, ...]
    pipeline: str | None = None
