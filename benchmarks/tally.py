"""What came of each fault that searches were struck with, as lines and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from benchmarks.account import Account
from benchmarks.common import table

HEADER = (
    "tried",
    "runs lost",
    "stored twice",
    "trained again",
    "points wrong",
    "files unreadable",
    "steps repeated",
    "of these beyond a checkpoint",
    "hung",
    "other exit codes",
)


@dataclass
class Tally:
    """What came of a fault, over all the times that it was tried."""

    tried: int = 0
    lost: int = 0
    stored_twice: int = 0
    trained_again: int = 0
    wrong_points: int = 0
    unreadable: int = 0
    repeated: int = 0
    unexcused: int = 0
    hung: int = 0
    surprises: int = 0

    def add(self, earlier: Account, later: Account) -> None:
        """What happened between two looks."""
        self.lost += later.lost_since(earlier)
        self.stored_twice += later.stored_twice - earlier.stored_twice
        self.trained_again += later.trained_again - earlier.trained_again
        self.wrong_points += max(0, later.wrong_points - earlier.wrong_points)
        self.unreadable += max(0, len(later.unreadable) - len(earlier.unreadable))
        self.unexcused += max(0, later.unexcused - earlier.unexcused)
        self.repeated += later.repeated - earlier.repeated

    @property
    def harm(self) -> int:
        """All that must be zero; a machine too busy for Ray to start explains another exit code."""
        harmless = ("tried", "repeated", "surprises")
        return sum(getattr(self, each.name) for each in fields(self) if each.name not in harmless)


def compared(before: Account, after: Account) -> str:
    """Two accounts in a line, before → after."""
    counts: dict[str, Callable[[Account], object]] = {
        "runs ended": lambda account: len(account.ended),
        "endings stored": lambda account: account.stored,
        "points": lambda account: " ".join(f"{count} {name}" for name, count in account.points.items()),
        "steps repeated": lambda account: account.repeated,
        "files unreadable": lambda account: len(account.unreadable),
    }
    return ", ".join(f"{name} {count(before)} → {count(after)}" for name, count in counts.items())


def summary(tallies: Mapping[str, Tally]) -> str:
    """A row for each fault, and one for all."""
    rows = []
    for fault, tally in sorted(tallies.items()):
        rows.append([fault, *(str(getattr(tally, each.name)) for each in fields(tally))])
    total = [sum(int(row[at]) for row in rows) for at in range(1, len(rows[0]))]
    return table(["fault", *HEADER], [*rows, ["all", *map(str, total)]])
