"""How sure it is that the first of a ranking is better than the others: in numbers, and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.ranking import RankedConfiguration
from analysis.stats import LEVEL, Estimate, holm, paired_difference, seeds_to_settle, welch_difference


@dataclass(frozen=True)
class Behind:
    """How far a configuration is behind the leader.

    Attributes:
        lead: of the means; below zero where a single run is above a leader with several.
        difference: above zero where the leader is the better; None where one of the two has a single run.
        paired: how many seeds both have, over which alone the difference is; 0 for one of independent means.
        deviations: of the differences, or of each one's runs, as `seeds_to_settle` takes them.
        p: corrected for all comparisons of the ranking; None where chance cannot be told.
    """

    lead: float
    difference: Estimate | None
    paired: int
    deviations: tuple[float, ...]
    p: float | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the leader is better by more than chance explains."""
        ahead = self.difference is not None and self.difference.value > 0
        return ahead and self.p is not None and self.p <= 1 - LEVEL


@dataclass(frozen=True)
class Leader:
    """The leader of a ranking against each other configuration that has a value.

    Attributes:
        behind: by configuration, in the order of the ranking.
        comparisons: how many are corrected for.
    """

    row: RankedConfiguration
    others: tuple[RankedConfiguration, ...]
    behind: Mapping[str, Behind]
    comparisons: int

    @property
    def told_apart(self) -> int:
        """From how many of the others."""
        return sum(each.told_apart for each in self.behind.values())


def leader_of(rows: Sequence[RankedConfiguration], lowest_first: bool = False) -> Leader | None:
    """The first of a ranking, as `ranked` gives it whole, against the others; None where it has no value.

    What breaks a constraint of its sweep is none of these.

    Differences are paired where one's seeds are all among the other's, else by Welch. Holm's family is every
    pair of configurations with several runs, not only those with the leader: it leads because it did best,
    and of twenty equal ones with ten seeds the best would otherwise be told apart from another 19% of the
    time instead of 5% (`benchmarks/interval_coverage.py`).
    """
    valued = [row for row in rows if row.mean is not None and not row.breaks]
    if not valued or valued[0] is not rows[0]:
        return None
    leader, *others = valued
    found = {row.config_id: _behind(leader, row, -1 if lowest_first else 1) for row in others}
    several = sum(row.runs > 1 for row in valued)
    comparisons = several * (several - 1) // 2
    tested = {
        config_id: each.difference.p for config_id, each in found.items() if each.difference is not None
    }
    p_values = {config_id: p for config_id, p in tested.items() if p is not None}
    corrected = dict(zip(p_values, holm(list(p_values.values()), of=comparisons), strict=True))
    behind = {config_id: replace(each, p=corrected.get(config_id)) for config_id, each in found.items()}
    return Leader(leader, tuple(others), behind, comparisons)


def verdict(found: Leader) -> str:
    """Whether the leader is better than the next, by how much, and what would settle it, in a sentence."""
    leader = found.row
    if not found.others:
        return f"{_named(leader)} is the only configuration that has a value and may be called the best"
    if leader.runs == 1:
        return (
            f"{_named(leader)} is first with a single run, which has no interval: nothing is settled; "
            "two seeds or more of each would tell how far chance goes"
        )
    following = found.others[0]
    said = _lead(found, following, found.behind[following.config_id])
    return said if len(found.others) == 1 else f"{said}; {_from_the_others(found)}"


def _lead(found: Leader, following: RankedConfiguration, behind: Behind) -> str:
    over = f"over {_named(following)}"
    difference = behind.difference
    if difference is None:
        lead = _number(abs(behind.lead))
        if behind.lead < 0:
            above = f"{_named(following)} is {lead} above it with a single run"
            return f"{_named(found.row)} leads those with several runs; {above}: not settled"
        return f"{_named(found.row)} leads by {lead} {over}, which has a single run: not settled"
    width = f"{_number(abs(difference.value))} ± {_number(difference.half_width)}"
    said = f"{_named(found.row)} leads by {width} {over}"
    if difference.value < 0:
        shared = f"on the {behind.paired} seeds that both have"
        where = shared if behind.paired else "by the runs that have a value"
        other = _named(following)
        return f"{_named(found.row)} is first, but {where} {other} is {width} above it: not settled"
    if difference.p is None:
        return f"{said}: not settled, for the seeds show no spread to judge it by"
    if behind.told_apart:
        return f"{said}: settled (p {_p(behind.p)} of {_comparisons(found)})"
    level = 1 - (1 - LEVEL) / found.comparisons
    seeds = seeds_to_settle(difference.value, behind.deviations, level) if difference.value > 0 else None
    would = "no number of seeds in reach" if seeds is None else f"about {seeds} seeds"
    return f"{said}: not settled (p {_p(behind.p)} of {_comparisons(found)}); {would} would settle it"


def _from_the_others(found: Leader) -> str:
    several = [row for row in found.others if found.behind[row.config_id].difference is not None]
    single = len(found.others) - len(several)
    told = f"told apart from {found.told_apart} of {len(found.others)} others"
    return told + (f", of which {single} with a single run" if single else "")


def _behind(leader: RankedConfiguration, other: RankedConfiguration, sign: int) -> Behind:
    shared = leader.by_seed.keys() & other.by_seed.keys()
    if 1 < len(shared) == min(leader.runs, other.runs):
        difference = paired_difference(leader.by_seed, other.by_seed)
        deviations = [] if difference is None else [difference.error * math.sqrt(len(shared))]
        paired = len(shared)
    else:
        difference = welch_difference(list(leader.by_seed.values()), list(other.by_seed.values()))
        deviations = [row.std for row in (leader, other) if row.std is not None]
        paired = 0
    if difference is not None:
        difference = replace(difference, value=sign * difference.value)
    lead = sign * ((leader.mean or 0.0) - (other.mean or 0.0))
    return Behind(lead, difference, paired, tuple(deviations))


def _named(row: RankedConfiguration) -> str:
    return f"#{row.rank} ({row.config_id})"


def _comparisons(found: Leader) -> str:
    return "1 comparison" if found.comparisons == 1 else f"{found.comparisons} comparisons"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"


def _p(p: float | None) -> str:
    return "unknown" if p is None else f"{p:.3f}" if p >= 0.001 else "below 0.001"
