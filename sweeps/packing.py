"""How many runs one trial holds, from what was seen of packs at work: pure functions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import floor
from typing import NamedTuple

from mtbert.run import Run

FIRST = 4
"""Members of a pack of which nothing has been seen yet."""
MEMORY_SHARE = 0.85
"""Of a GPU's memory, or of a trial's fraction of it, that a pack may take."""
GAIN = 1.05
"""Times the throughput of half as many members, below which more of them bring nothing."""


class Seen(NamedTuple):
    """A turn of a pack on a GPU.

    Attributes:
        members: how many there were.
        peak, limit: bytes that tensors took at most up to then, and that there are for them.
        speed: steps per second, of all members together.
    """

    members: int
    peak: float
    limit: float
    speed: float


def growth(grown: Sequence[Seen], seen: Seen) -> list[Seen]:
    """What each size of a pack showed while it was the largest so far, with one more turn.

    Peaks never fall: what a pack shows after a larger one tells nothing.
    """
    if not grown or seen.members > grown[-1].members:
        return [*grown, seen]
    last = grown[-1]
    if seen.members < last.members:
        return list(grown)
    return [*grown[:-1], seen._replace(peak=max(seen.peak, last.peak), speed=max(seen.speed, last.speed))]


def size(grown: Sequence[Seen]) -> int:
    """How many members a pack may have: twice as many as the most so far, as long as that fits and has paid.

    What a member takes is what the last growth took, or, before the first, an equal share of all.
    """
    if not grown:
        return FIRST
    most = grown[-1]
    member = most.peak / most.members
    if len(grown) > 1:
        before = grown[-2]
        if most.members >= 2 * before.members and most.speed < GAIN * before.speed:
            return most.members
        member = max(1.0, (most.peak - before.peak) / (most.members - before.members))
    fitting = most.members + floor((MEMORY_SHARE * most.limit - most.peak) / member)
    return max(1, min(2 * most.members, fitting))


def kin(run: Run) -> Hashable:
    """What runs have in common whose members share a pass and, where they have low-rank factors, a bank."""
    from mtbert.adapters.low_rank import stack_key
    from mtbert.grouping import group_key

    low_rank = run.configuration.low_rank
    return group_key(run), None if low_rank is None else stack_key(low_rank)
