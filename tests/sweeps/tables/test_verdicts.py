"""Published against measured: ranks, differences beyond the noise, and claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mtbert.schema import ConfigError
from sweeps.tables.published import Claim, Figure, Row, Table
from sweeps.tables.verdicts import Samples, compared, judged, misprints, ranks

SCORES = {"a": 0.80, "b": 0.70, "c": 0.71}


def table(published: Mapping[str, float | None], metric: str = "score") -> Table:
    """A table of one column, a row for each."""
    rows = tuple(
        Row(number, label, (1,), {} if value is None else {metric: Figure(value)}, (), {})
        for number, (label, value) in enumerate(published.items(), 1)
    )
    return Table("009/1", "", "", (1,), "", (metric,), rows, (), {}, "leave")


def samples(values: Mapping[str, tuple[float, ...]]) -> Samples:
    return lambda row, _: values.get(row.label, ())


def around(centre: float, spread: float = 0.01) -> tuple[float, ...]:
    return (centre - spread, centre, centre + spread)


MEASURED = samples({"a": around(0.6), "b": around(0.5), "c": around(0.502)})


@given(st.dictionaries(st.integers(1, 9), st.sampled_from([0.1, 0.2, 0.3]), min_size=1), st.booleans())
def test_a_rank_is_one_more_than_how_many_are_better(values: dict[int, float], lower: bool) -> None:
    expected = scipy.stats.rankdata([value if lower else -value for value in values.values()], "min")
    assert list(ranks(values, lower).values()) == expected.tolist()


def test_a_column_is_compared_in_ranks_and_against_the_noise() -> None:
    found = compared(table(SCORES), "score", MEASURED)
    assert found.paper == {1: 1, 2: 3, 3: 2}
    assert found.here == {1: 1, 2: 3, 3: 2}
    assert found.noise is not None
    least = scipy.stats.t.ppf(0.975, 6) * 0.01 * np.sqrt(2)  # three rows of three seeds
    assert (found.noise.deviation, found.noise.freedom) == (pytest.approx(0.01), 6)
    assert found.noise.between_runs() == pytest.approx(least)
    assert 0.01 < least < 0.09
    assert found.beyond == {1: (2, 3), 2: (1,), 3: (1,)}
    assert found.pairs == (2, 3)


def test_rows_without_a_figure_are_shown_and_not_ranked() -> None:
    found = compared(table({**SCORES, "b": None}), "score", MEASURED)
    assert found.samples[2] == around(0.5)
    assert found.paper == found.here == {1: 1, 3: 2}
    none = compared(table(dict.fromkeys(SCORES)), "score", MEASURED)
    assert (none.paper, none.here) == ({}, {1: 1, 2: 3, 3: 2})


def test_with_one_seed_there_are_ranks_and_no_noise() -> None:
    found = compared(table(SCORES), "score", samples({label: (value,) for label, value in SCORES.items()}))
    assert found.here == found.paper
    assert (found.noise, found.beyond) == (None, {})


def test_errors_are_better_where_they_are_lower_and_times_are_not_ranked() -> None:
    assert compared(table(SCORES, "sts.mse"), "sts.mse", MEASURED).here == {1: 3, 2: 1, 3: 2}
    assert compared(table(SCORES, "seconds"), "seconds", MEASURED).here == {}


def claim(metric: str = "score", **fields: Any) -> Claim:
    return Claim("", (1,), "" if "none_best" in fields else metric, **fields)


CLAIMS = [
    (claim(better=("a",), than=("b", "c")), "yes"),
    (claim(better=("b", "c"), than=("a",)), "no"),
    (claim(better=("c",), than=("b",)), "cannot tell"),
    (claim("sts.mse", better=("b",), than=("a",)), "yes"),
    (claim(alike=("b",), to=("c",), within=0.05), "yes"),
    (claim(alike=("a",), to=("b",), within=0.05), "no"),
    (claim(alike=("b",), to=("c",), within=0.01), "cannot tell"),
    (claim(best="a", among=("*",)), "yes"),
    (claim(best="b", among=("*",)), "no"),
    (claim(best="b", among=("c",)), "cannot tell"),
    (claim(rising=("b", "a")), "yes"),
    (claim(rising=("a", "b")), "no"),
    (claim(rising=("b", "c", "a")), "cannot tell"),
    (claim(none_best=("*",), metrics=("score",)), "no"),
    (claim(none_best=("b", "c"), metrics=("score",)), "cannot tell"),
    (claim(none_best=("a", "b"), metrics=("score", "sts.mse")), "yes"),
]


@pytest.mark.parametrize(("of", "expected"), CLAIMS)
def test_a_claim_holds_fails_or_cannot_be_told(of: Claim, expected: str) -> None:
    assert judged(of, table(SCORES), MEASURED).answer == expected


def test_a_claim_about_a_row_that_was_not_measured_cannot_be_told() -> None:
    found = judged(claim(better=("a",), than=("d",)), table({**SCORES, "d": 0.5}), MEASURED)
    assert (found.answer, found.why) == ("cannot tell", "no score of d")


def test_the_difference_of_a_claim_is_a_t_interval() -> None:
    only = samples({"a": (0.5, 0.7, 0.9), "b": (0.1, 0.3)})
    found = judged(claim(better=("a",), than=("b",)), table({"a": 1, "b": 1}), only).difference
    expected = scipy.stats.ttest_ind([0.5, 0.7, 0.9], [0.1, 0.3]).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_nothing_can_be_told_from_one_seed() -> None:
    found = judged(claim(better=("a",), than=("b",)), table(SCORES), samples({"a": (0.9,), "b": (0.1,)}))
    assert (found.answer, found.why) == ("cannot tell", "one seed says nothing of chance")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"better": ("a",)},
        {"better": ("a",), "than": ("b",), "rising": ("a", "b")},
        {"alike": ("a",), "to": ("b",)},
        {"rising": ("a",)},
        {"none_best": ("a",)},
    ],
)
def test_a_claim_has_one_form_and_all_of_it(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected a metric with better and than"):
        claim(**fields)


def test_a_printed_average_that_does_not_follow_is_said() -> None:
    parts = {"sst.accuracy": Figure(0.53), "para.accuracy": Figure(0.9), "sts.pearson": Figure(0.847)}
    rows = [
        Row(1, label, (1,), {**parts, "score": Figure(score)}, (), {})
        for label, score in (("right", 0.785), ("wrong", 0.789))
    ]
    of = Table("009/1", "", "", (1,), "", (), tuple(rows), (), {}, "leave")
    assert misprints(of) == ["wrong: score is printed as 0.789, its parts give 0.7845"]
