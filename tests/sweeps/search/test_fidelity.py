"""What trials have shown at each length, as ranks among those seen there."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.special import ndtri

from sweeps.search.fidelity import END, seen


def trial(state: TrialState, value: float | None = None, **shown: float) -> FrozenTrial:
    steps = {int(step.removeprefix("at")): score for step, score in shown.items()}
    return create_trial(state=state, value=value, intermediate_values=steps)


def scores(*ranks: float) -> list[float]:
    return [float(ndtri((rank - 0.5) / len(ranks))) for rank in ranks]


def test_a_stopped_run_is_ranked_among_those_at_its_rung_and_not_below_those_that_ended() -> None:
    trials = [
        trial(TrialState.COMPLETE, 0.3, at3=0.1, at9=0.2, at26=0.3),
        trial(TrialState.PRUNED, at3=0.8),
        trial(TrialState.COMPLETE, 0.5, at3=0.2, at9=0.1, at26=0.5),
        trial(TrialState.PRUNED, at3=0.5, at9=0.9),
    ]
    found = seen(trials, StudyDirection.MAXIMIZE)
    assert found.trial.tolist() == [0, 1, 2, 3, 0, 2, 3, 0, 2]
    lengths = np.log([4, 10, 27]) / np.log(27)
    assert found.length == pytest.approx(np.repeat(lengths, (4, 3, 2)))
    assert found.value == pytest.approx([*scores(1, 4, 2, 3), *scores(2, 1, 3), *scores(1, 2)])
    assert seen(trials, StudyDirection.MINIMIZE).value == pytest.approx(-found.value)


def test_at_the_end_what_is_sound_stands_above_what_broke_and_that_above_what_breaks_a_constraint() -> None:
    trials = [
        trial(TrialState.COMPLETE, 0.3),
        create_trial(state=TrialState.COMPLETE, value=0.9, constraints={"size": 2.0}),
        trial(TrialState.COMPLETE, 0.5),
        trial(TrialState.PRUNED),
        trial(TrialState.COMPLETE, 0.3),
    ]
    found = seen(trials, StudyDirection.MAXIMIZE)
    assert found.length.tolist() == [END] * 5
    assert found.value == pytest.approx(scores(3.5, 1, 5, 2, 3.5))
