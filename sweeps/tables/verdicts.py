"""Published figures against measured ones: ranks, differences beyond the noise, and whether claims hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from analysis.stats import Estimate, Noise, pooled
from sweeps.tables.measured import PARTS, overall
from sweeps.tables.published import Claim, Figure, Row, Table

Answer = Literal["yes", "no", "cannot tell"]
Samples = Callable[[Row, str], tuple[float, ...]]
"""The values of a row's metric over seeds."""
NOT_RANKED = ("trainable", "share", "seconds", "seconds_training")
_LOWER = ("gap", "training_loss", "seconds", "seconds_training")
_LOWER_ENDINGS = (".mse", ".rmse", ".mae", ".loss")


@dataclass(frozen=True)
class Comparison:
    """One column of a table, published and measured; rows by their number.

    Attributes:
        samples: the measured values over seeds; empty where there are none.
        paper, here: ranks from 1 on, equal ones shared; of rows without a figure none, if others have one.
        noise: of a single run, pooled over the rows; None with one seed.
        beyond: the rows from whose figure a row's differs by more than two single runs do by chance.
    """

    metric: str
    published: Mapping[int, Figure]
    samples: Mapping[int, tuple[float, ...]]
    paper: Mapping[int, int]
    here: Mapping[int, int]
    noise: Noise | None
    beyond: Mapping[int, tuple[int, ...]]

    @property
    def pairs(self) -> tuple[int, int]:
        """How many pairs of published figures differ beyond the noise, of how many."""
        count = len(self.published)
        return sum(len(rows) for rows in self.beyond.values()) // 2, count * (count - 1) // 2


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds here. `difference`: where it is about one; `why`: what cannot be told."""

    claim: Claim
    answer: Answer
    difference: Estimate | None = None
    why: str = ""


def lower_is_better(metric: str) -> bool:
    """Whether the smaller value of a metric is the better."""
    return metric in _LOWER or metric.endswith(_LOWER_ENDINGS)


def compared(table: Table, metric: str, samples: Samples) -> Comparison:
    """A column of the table beside what was measured."""
    published = {row.number: row.figures[metric] for row in table.rows if metric in row.figures}
    found = {row.number: samples(row, metric) for row in table.rows}
    means = {number: fmean(values) for number, values in found.items() if values}
    ranked = {number: mean for number, mean in means.items() if not published or number in published}
    noise = pooled([values for values in found.values() if values])
    no_ranks = metric in NOT_RANKED
    lower = lower_is_better(metric)
    return Comparison(
        metric=metric,
        published=published,
        samples=found,
        paper={} if no_ranks else ranks({at: figure.value for at, figure in published.items()}, lower),
        here={} if no_ranks else ranks(ranked, lower),
        noise=noise,
        beyond={} if no_ranks or noise is None else _beyond(published, noise.between_runs()),
    )


def ranks(values: Mapping[int, float], lower: bool) -> dict[int, int]:
    """Each one's rank: one more than how many are better."""
    sign = -1 if lower else 1
    return {
        number: 1 + sum(sign * other > sign * value for other in values.values())
        for number, value in values.items()
    }


def judged(claim: Claim, table: Table, samples: Samples) -> Verdict:
    """Whether the claim holds in what was measured, at 95%.

    Every difference is a contrast of rows' means with the noise pooled over the table's rows. A claim of
    several differences holds where each does, and fails where one is the other way round.
    """
    try:
        return _judged(claim, table, samples)
    except _UnknownError as error:
        return Verdict(claim, "cannot tell", why=str(error))


def misprints(table: Table) -> list[str]:
    """The rows whose printed average is not that of their printed parts, in words."""
    said = []
    for row in table.rows:
        for prefix in ("", "test."):
            found = printed_average(row, prefix)
            if found is not None and abs(found[0] - found[1]) > 0.0005 + 1e-9:
                said.append(
                    f"{row.label}: {prefix}score is printed as {found[0]:g}, its parts give {found[1]:.4f}"
                )
    return said


def printed_average(row: Row, prefix: str = "") -> tuple[float, float] | None:
    """A row's printed average, and that of its printed parts; None where one is missing."""
    names = [f"{prefix}{part}" for part in (*PARTS, "score")]
    if any(name not in row.figures for name in names):
        return None
    *parts, printed = (row.figures[name].value for name in names)
    return printed, overall(*parts)


class _UnknownError(Exception):
    """Something that a claim needs was not measured."""


def _beyond(published: Mapping[int, Figure], least: float) -> dict[int, tuple[int, ...]]:
    return {
        number: tuple(other for other in published if abs(published[other].value - figure.value) > least)
        for number, figure in published.items()
    }


def _judged(claim: Claim, table: Table, samples: Samples) -> Verdict:
    if claim.none_best:
        return Verdict(claim, _none_best(claim, table, samples))
    contrast = _Contrasts(table, claim.metric, samples)
    if claim.alike:
        found = contrast.of(table.matching(claim.alike), table.matching(claim.to))
        inside = -claim.within <= found.low and found.high <= claim.within
        outside = found.low > claim.within or found.high < -claim.within
        return Verdict(claim, "yes" if inside else "no" if outside else "cannot tell", found)
    if claim.better:
        found = contrast.of(table.matching(claim.better), table.matching(claim.than))
        return Verdict(claim, _all_above([found]), found)
    pairs = _pairs(claim, table)
    return Verdict(claim, _all_above([contrast.of([one], [other]) for one, other in pairs]))


def _pairs(claim: Claim, table: Table) -> list[tuple[Row, Row]]:
    """The better and the worse of each comparison that a claim of several makes."""
    if claim.best:
        (best,) = table.matching([claim.best])
        return [(best, other) for other in table.matching(claim.among) if other is not best]
    rising = table.matching(claim.rising)
    return list(zip(rising[1:], rising, strict=False))


class _Contrasts:
    """Differences between rows in one metric, above zero where the first is the better."""

    def __init__(self, table: Table, metric: str, samples: Samples) -> None:
        self._samples, self._metric = samples, metric
        self._sign = -1 if lower_is_better(metric) else 1
        groups = [samples(row, metric) for row in table.rows]
        self._noise = pooled([values for values in groups if values])

    def of(self, one: Sequence[Row], other: Sequence[Row]) -> Estimate:
        for row in (*one, *other):
            if not self._samples(row, self._metric):
                raise _UnknownError(f"no {self._metric} of {row.label}")
        if self._noise is None:
            raise _UnknownError("one seed says nothing of chance")
        sides = [[self._samples(row, self._metric) for row in side] for side in (one, other)]
        found = self._noise.contrast(*sides)
        return replace(found, value=self._sign * found.value)


def _all_above(found: Sequence[Estimate]) -> Answer:
    if all(each.low > 0 for each in found):
        return "yes"
    return "no" if any(each.high < 0 for each in found) else "cannot tell"


def _none_best(claim: Claim, table: Table, samples: Samples) -> Answer:
    """Yes where each row is beaten by another in some metric, no where one beats all in all."""
    rows = table.matching(claim.none_best)
    beaten, best = [], []
    for row in rows:
        others = [other for other in rows if other is not row]
        found = [
            _Contrasts(table, metric, samples).of([row], [other])
            for metric in claim.metrics
            for other in others
        ]
        beaten.append(any(each.high < 0 for each in found))
        best.append(all(each.low > 0 for each in found))
    return "yes" if all(beaten) else "no" if any(best) else "cannot tell"
