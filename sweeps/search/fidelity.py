"""What trials have shown at each length, as values that a process can learn from together.

A run that was stopped is not a poor one: it was seen at its rung, beside all others that were seen there,
and what that says of its end is for the process to find out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtri

Values = NDArray[np.float64]
END = 1.0
"""The length of a run that has come to its end."""


class Seen(NamedTuple):
    """What was seen, a row for each trial and length.

    Attributes:
        trial: its place among the trials.
        length: the logarithm of the step, as a part of that of the furthest.
        value: the normal score of its rank among those seen at that length, the best the highest.
    """

    trial: NDArray[np.int64]
    length: Values
    value: Values


def seen(ended: Sequence[FrozenTrial], direction: StudyDirection) -> Seen:
    """The trials at the steps where some were stopped, and at their ends."""
    sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
    furthest = max((max(each.intermediate_values, default=1) for each in ended), default=1)
    rungs = sorted({max(each.intermediate_values) for each in ended if _waits(each)})
    found: list[Seen] = []
    for rung in rungs:
        at = [place for place, each in enumerate(ended) if rung in each.intermediate_values]
        keys = [(0.0, sign * ended[place].intermediate_values[rung]) for place in at]
        found.append(_ranked(at, min(np.log(1 + rung) / np.log(1 + furthest), END), keys))
    at = [place for place, each in enumerate(ended) if not _waits(each)]
    found.append(_ranked(at, END, [_key(ended[place], sign) for place in at]))
    return Seen(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _waits(trial: FrozenTrial) -> bool:
    """Whether a trial was stopped, or goes on from where it was."""
    return trial.state == TrialState.PRUNED and bool(trial.intermediate_values) and _excess(trial) <= 0


def _excess(trial: FrozenTrial) -> float:
    return float(sum(each for each in trial.constraints.values() if each > 0))


def _key(trial: FrozenTrial, sign: float) -> tuple[float, float]:
    """Complete before broken before infeasible."""
    if _excess(trial) > 0:
        return (-2.0, -_excess(trial))
    if trial.state == TrialState.COMPLETE:
        return (0.0, sign * float(trial.value or 0.0))
    return (-1.0, 0.0)


def _ranked(at: Sequence[int], length: float, keys: Sequence[tuple[float, float]]) -> Seen:
    if not at:
        return Seen(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    _, place, many = np.unique(np.array(keys), axis=0, return_inverse=True, return_counts=True)
    middles = np.cumsum(many) - many / 2  # of the ranks that equal keys share
    value = np.asarray(ndtri(middles[place.ravel()] / len(keys)))
    return Seen(np.array(at, np.int64), np.full(len(at), length), value)
