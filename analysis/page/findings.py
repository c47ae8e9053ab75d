"""What the numbers say: the best, how far ahead it is of each other one, and what would settle the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from analysis.leader import Behind, leader_of
from analysis.outcomes import chosen_by_halves, over_examples
from analysis.page.subject import Candidate, Subject
from analysis.ranking import mean, seconds
from analysis.selection import HalfAndHalf
from analysis.stats import LEVEL, Estimate, Noise, pooled, seeds_to_settle


@dataclass(frozen=True)
class Lead:
    """How far the best is ahead of another configuration."""

    other: Candidate
    behind: Behind

    @property
    def value(self) -> float:
        """Of the means, over the same seeds as the difference where chance can be told."""
        difference = self.behind.difference
        return self.behind.lead if difference is None else difference.value


@dataclass(frozen=True)
class Findings:
    """The verdict's parts; `best` is null where nothing has a result.

    Attributes:
        leads: over each other configuration that might have been the best, in the ranking's order.
        comparisons: how many p values are corrected for.
        scatter: of single runs, pooled over the configurations; null where none has two seeds.
        sampled: the first lead over seeds and dev examples, both of which might have been others.
        halves: what the best scores on dev examples that had no part in its choice.
    """

    best: Candidate | None
    leads: Sequence[Lead] = ()
    comparisons: int = 0
    scatter: Noise | None = None
    sampled: Estimate | None = None
    halves: HalfAndHalf | None = None

    @cached_property
    def unsettled(self) -> list[Lead]:
        """Over the configurations that may be as good as the best."""
        return [lead for lead in self.leads if not lead.behind.told_apart]

    @cached_property
    def cheapest(self) -> Candidate | None:
        """Of those that cannot be told from the best the one with the fewest trained parameters."""
        known = [lead.other for lead in self.unsettled if lead.other.row.trainable is not None]
        if self.best is None or self.best.row.trainable is None or not known:
            return None
        least = min(known, key=lambda each: (each.row.trainable or 0, each.place))
        return least if (least.row.trainable or 0) < self.best.row.trainable else None

    @cached_property
    def more_seeds(self) -> int | None:
        """How many more seeds of the best and its rival would settle a difference as large as theirs.

        Null where no number of seeds that anybody trains would.
        """
        lead = next(iter(self.unsettled), None)
        if lead is None or lead.behind.difference is None or lead.value <= 0:
            return None
        level = 1 - (1 - LEVEL) / self.comparisons
        wanted = seeds_to_settle(lead.value, lead.behind.deviations, level)
        have = min(lead.other.row.runs, self.best.row.runs if self.best else 0)
        return None if wanted is None else max(1, wanted - have)


def found(subject: Subject) -> Findings:
    """What a sweep has come to."""
    contenders = subject.contenders
    leader = leader_of([each.row for each in contenders])
    if leader is None:
        return Findings(None)
    best, *others = contenders
    leads = [Lead(each, leader.behind[each.row.config_id]) for each in others]
    return Findings(
        best,
        leads,
        leader.comparisons,
        pooled([list(each.row.by_seed.values()) for each in subject.candidates]),
        over_examples(subject.sources, leader),
        chosen_by_halves(subject.sources, leader),
    )


def seconds_of(candidate: Candidate) -> float | None:
    """Of training and evaluating one run, in the mean."""
    return mean([seconds(run) for run in candidate.runs])
