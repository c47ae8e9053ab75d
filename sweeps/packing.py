"""How many runs one trial holds, and how many trials a GPU, from what was seen of them at work."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import floor, inf
from typing import NamedTuple

from mtbert.run import Run
from sweeps.placement import GIB

FIRST = 4
"""Members of a pack of which nothing has been seen yet."""
MEMORY_SHARE = 0.85
"""Of a GPU's memory, or of a trial's fraction of it, that a pack may take, or the trials that share it."""
RAY_STEPS = 10_000
"""In which Ray counts a GPU."""
GAIN = 1.05
"""Times the throughput of half as many members, below which more of them bring nothing."""


class Seen(NamedTuple):
    """A turn of a pack on a GPU.

    Attributes:
        members: how many there were.
        peak, limit: bytes that tensors took at most up to then, and that there are for them.
        used: bytes of the GPU that are taken, whatever for and by whomever.
        speed: steps per second, of all members together.
    """

    members: int
    peak: float
    used: float
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


@dataclass
class Sharing:
    """How many trials share a GPU: one by itself, until that has shown what it takes.

    Attributes:
        measured: the turn of such a trial that took most.
        peak: bytes that tensors of any trial took at most.
        limit: bytes of the smallest GPU.
        most: how many there may be after memory has run out.
    """

    measured: Seen | None = None
    peak: float = 0.0
    limit: float = inf
    most: int | None = None

    def see(self, seen: Seen, by_itself: bool) -> None:
        """Takes a turn into account; `by_itself` where the trial shared its GPU with no other."""
        self.peak, self.limit = max(self.peak, seen.peak), min(self.limit, seen.limit)
        if by_itself and (self.measured is None or seen.used > self.measured.used):
            self.measured = seen

    def short(self) -> None:
        """Memory has run out in a trial: one fewer shares a GPU."""
        if self.measured is not None:
            self.most = max(1, self.trials - 1)

    @property
    def trials(self) -> int:
        """On one GPU."""
        if self.measured is None:
            return 1
        taken = self.measured.used * max(1.0, self.peak / self.measured.peak)
        fitting = max(1, floor(MEMORY_SHARE * self.limit / taken))
        return fitting if self.most is None else min(fitting, self.most)

    @property
    def part(self) -> float:
        """Of a GPU, for each trial, in the steps of which Ray counts."""
        return floor(RAY_STEPS / self.trials) / RAY_STEPS

    @property
    def spoken(self) -> str:
        """How many share, and what for."""
        assert self.measured is not None, "how many share a GPU is said once it has changed"
        taken, limit = (f"{each / GIB:.1f}" for each in (self.measured.used, self.measured.limit))
        return f"{self.trials} trials share a GPU from now on: by itself, one took {taken} of its {limit} GiB"


def kin(run: Run) -> Hashable:
    """What runs have in common whose members share a pass and, where they have low-rank factors, a bank."""
    from mtbert.adapters.low_rank import stack_key
    from mtbert.grouping import group_key

    low_rank = run.configuration.low_rank
    return group_key(run), None if low_rank is None else stack_key(low_rank)
