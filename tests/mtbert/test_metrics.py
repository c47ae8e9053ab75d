"""Metrics of predictions: correlations and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mtbert.data.tokenise import TokenisedData
from mtbert.evaluation import Predictions, metrics, pearson


@pytest.mark.parametrize("seed", range(3))
def test_pearson_is_scipy_s(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(3, 2, 50)
    y = 0.5 * x + random.normal(0, 1, 50)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert pearson(x, 2 * x + 1) == pytest.approx(1.0)
    assert pearson(x, -x) == pytest.approx(-1.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 3.3])
@pytest.mark.parametrize("count", [3, 863])
def test_pearson_of_a_constant_is_undefined_whatever_its_mean_rounds_to(value: float, count: int) -> None:
    varied = np.arange(count) % 6 / 1.1
    assert pearson(np.full(count, value), varied) is None
    assert pearson(varied, np.full(count, value)) is None


def test_pearson_of_a_narrow_spread_is_defined() -> None:
    varied = np.arange(100.0)
    assert pearson(2.5 + 1e-9 * varied, varied) == pytest.approx(1.0, abs=1e-4)
    assert pearson(np.array([1.0]), np.array([1.0])) is None
    assert pearson(np.array([1.0, 2.0]), np.array([2.0, 4.0])) == pytest.approx(1.0)


def test_metrics_of_a_subset_are_those_of_its_examples(data: TokenisedData) -> None:
    random = np.random.default_rng(0)
    split = data.splits["sst", "dev"]
    values = random.integers(0, 5, 40).astype(float)
    whole = Predictions(np.arange(40), values, random.random(40))
    chosen = np.array([1, 5, 30, 39])
    part = whole.subset(chosen)
    found = metrics(data.tasks["sst"], part, split)
    assert found["accuracy"] == float((values[chosen] == split.labels[chosen]).mean())
    assert found["loss"] == pytest.approx(whole.losses[chosen].mean())
