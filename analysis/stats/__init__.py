"""How sure one can be: pure functions over values by seed and predictions by example.

What is shown by default are intervals by Student's t, which hold with three seeds; the bootstrap's
percentiles do not (docs/statistics.md).
"""

from analysis.stats.bootstrap import (
    Interval,
    improvement_interval,
    interquartile_interval,
    interquartile_mean,
    probability_of_improvement,
)
from analysis.stats.crossed import Crossed, crossed_difference
from analysis.stats.dominance import StochasticOrder, almost_stochastic_order
from analysis.stats.estimates import (
    LEVEL,
    Estimate,
    Noise,
    mean_over_seeds,
    paired_difference,
    pooled,
    welch_difference,
)
from analysis.stats.families import holm, power, seeds_to_settle
from analysis.stats.weighted import Metric, TaskPredictions, weighted

__all__ = [
    "LEVEL",
    "Crossed",
    "Estimate",
    "Interval",
    "Metric",
    "Noise",
    "StochasticOrder",
    "TaskPredictions",
    "almost_stochastic_order",
    "crossed_difference",
    "holm",
    "improvement_interval",
    "interquartile_interval",
    "interquartile_mean",
    "mean_over_seeds",
    "paired_difference",
    "pooled",
    "power",
    "probability_of_improvement",
    "seeds_to_settle",
    "weighted",
    "welch_difference",
]
