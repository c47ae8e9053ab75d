"""Kriging as a sampler: what it makes of ranks, and where it looks in spaces of every kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.special import ndtr
from scipy.stats import spearmanr

from sweeps.search.coding import Coding
from sweeps.search.fidelity import Seen
from sweeps.search.kriging import STARTUP, Kriging, Process, _Loss, foremost
from sweeps.search.space import Space, distributions, parse_space, suggest, told

SPACE = parse_space(
    {
        "method": {"choices": ["none", "small", "large"]},
        "method.rank": {"low": 1, "high": 64, "log": True},
        "rate": {"low": 0.01, "high": 1.0, "log": True},
        "share": {"low": 0.0, "high": 1.0, "step": 0.25, "when": {"method": ["large"]}},
        "steps": {"choices": [100]},
    }
)


def known(space: Space, point: dict[str, Any], value: float | None) -> FrozenTrial:
    state = TrialState.RUNNING if value is None else TrialState.COMPLETE
    return create_trial(
        state=state, value=value, params=told(space, point), distributions=distributions(space, point)
    )


def study_of(space: Space, seed: int, trials: list[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=Kriging(space, seed))
    study.add_trials(trials)
    return study


def test_points_come_back_from_their_rows_and_hold_what_the_space_asks_alone() -> None:
    coding = Coding(SPACE)
    rows = coding.drawn(np.random.default_rng(0), 200)
    rows = np.concatenate([rows, coding.varied(np.random.default_rng(1), rows[:20])])
    for row in rows:
        values = coding.told(row)
        fixed = optuna.create_study().ask()
        fixed._fixed_params = values  # Optuna asks for what is asked, in its order
        point = suggest(SPACE, fixed)
        assert told(SPACE, point) == values
    again = coding.read([coding.told(row) for row in rows])
    assert coding.keys(again) == coding.keys(rows)


def test_choices_that_are_numbers_stand_in_their_order_and_others_side_by_side() -> None:
    coding = Coding(
        parse_space(
            {
                "rate": {"choices": [0.1, 0.001, 0.01]},
                "layers": {"choices": ["all", 1, 2]},
                "bias": {"choices": [True, False]},
            }
        )
    )
    rows = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, 1.0]])
    features = coding.features(rows)
    assert coding.axis.tolist() == [0, 1, 1, 1, 2, 2]
    assert features[:, 0].tolist() == [1.0, 0.0, 0.5]
    for axis, apart in ((1, 1 - np.eye(3)), (2, np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]]))):
        of_axis = features[:, coding.axis == axis]
        assert np.square(of_axis[:, None] - of_axis[None]).sum(axis=-1) == pytest.approx(apart)


@pytest.mark.parametrize(
    ("parameter", "codes", "apart"),
    [
        ({"choices": [1, 2, 4, 8]}, [0, 1, 2, 3], [0, 0.5, 1, 0.5]),
        ({"low": 1, "high": 4}, [0, 1 / 3, 2 / 3, 1], [0, 0.5, 1, 0.5]),
        ({"low": 0.1, "high": 0.2}, [0, 0.25, 0.5, 1], [0, 0.5, 1, 0]),
        ({"low": 0.1, "high": 0.2, "step": 0.1}, [0, 1], [0, 1]),
        ({"low": 1, "high": 64, "log": True}, [0, 0.25, 0.5, 1], [0, 0.5, 1, 0]),
        ({"choices": ["a", "b", "c"]}, [0, 1, 2], [0, 1, 1]),
        ({"choices": [1, 2]}, [0, 1], [0, 1]),
    ],
)
def test_where_a_search_begins_no_end_of_a_range_is_far_out(
    parameter: dict[str, Any], codes: list[float], apart: list[float]
) -> None:
    coding = Coding(parse_space({"one": parameter}))
    rows = np.array(codes, dtype=float)[:, None]
    assert coding.apart(rows[:1], rows)[0] == pytest.approx(apart)


@pytest.mark.parametrize("seed", range(4))
def test_a_search_begins_half_a_circle_from_its_first_point(seed: int) -> None:
    space = parse_space({"one": {"low": 0.0, "high": 1.0}})
    study = study_of(space, seed, [])
    first, second = (suggest(space, study.ask())["one"] for _ in range(2))
    assert abs(first - second) == pytest.approx(0.5, abs=0.05)


def test_distances_know_what_is_asked_and_that_words_have_no_order() -> None:
    coding = Coding(SPACE)
    points = [{"method": name, "rate": 0.1, "steps": 100} for name in ("none", "small", "large")]
    points[1]["method.rank"] = points[2]["method.rank"] = 8
    points[2]["share"] = 0.5
    features = coding.features(coding.read([told(SPACE, point) for point in points]))
    by_axis = [(features[:, None] - features[None])[..., coding.axis == axis] for axis in range(4)]
    method, rank, rate, share = (np.square(each).sum(axis=-1) for each in by_axis)
    assert method == pytest.approx(1 - np.eye(3))
    assert rank[1, 2] == pytest.approx(0)
    assert rate == pytest.approx(np.zeros((3, 3)))
    assert share == pytest.approx(np.zeros((3, 3)))  # 0.5 is the middle, where what is not asked stands


def test_the_gradient_of_the_loss_is_its_slope() -> None:
    random = np.random.default_rng(0)
    points = random.random((7, 3))
    apart = np.square(points[:, None] - points[None]).transpose(2, 0, 1).reshape(3, -1)
    loss = _Loss(apart, random.normal(size=7))
    at = loss.usual + random.normal(size=4) / 4
    _, gradient = loss(at)
    for axis in range(4):
        step = np.eye(4)[axis] * 1e-5
        slope = (loss(at + step)[0] - loss(at - step)[0]) / 2e-5
        assert gradient[axis] == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_expected_improvement_is_what_draws_from_the_process_bring() -> None:
    points = np.array([[0.0], [0.4], [1.0]])
    process = Process.of(np.array([1.0]), 0.01, points, np.array([-1.0, 0.3, 0.8]))
    at = np.array([[0.7]])

    def kernel(one: float, other: float) -> float:
        apart = math.sqrt(5) * abs(one - other)
        return (1 + apart + apart**2 / 3) * math.exp(-apart)

    covariance = np.array([[kernel(a, b) for b in points[:, 0]] for a in points[:, 0]]) + 0.01 * np.eye(3)
    shared = np.array([kernel(0.7, b) for b in points[:, 0]])
    mean = shared @ np.linalg.solve(covariance, process.values)
    deviation = math.sqrt(1 - shared @ np.linalg.solve(covariance, shared))
    assert process.mean(at) == pytest.approx([mean])
    for threshold in (0.5, mean + 3 * deviation):
        z = (mean - threshold) / deviation
        expected = deviation * (math.exp(-z * z / 2) / math.sqrt(2 * math.pi) + z * ndtr(z))
        assert np.exp(process.log_improvement(at, threshold)) == pytest.approx([expected], rel=1e-4)
    assert np.isfinite(process.log_improvement(at, 1e3)).all()


def test_believed_points_keep_the_mean_and_lessen_the_doubt() -> None:
    process = Process.of(np.array([3.0]), 1e-4, np.array([[0.0], [3.0]]), np.array([-1.0, 1.0]))
    at = np.array([[0.5]])
    believing = process.believing(at)
    assert believing.mean(at) == pytest.approx(process.mean(at), abs=1e-3)
    assert believing.log_improvement(at, 1.0) < process.log_improvement(at, 1.0) - 5


def test_of_many_points_the_latest_and_the_best_are_held_with_all_that_they_have_shown() -> None:
    values = np.array([0.9, 0.1, 0.8, 0.2, 0.3, 0.0])
    shown = Seen(np.array([*range(6), 1]), np.ones(7), np.array([*values, 0.85]))
    assert foremost(shown, 6, 6).all()
    assert np.flatnonzero(foremost(shown, 6, 4)).tolist() == [0, 1, 4, 5, 6]


def test_length_scales_are_those_of_the_points_that_tell_and_all_points_are_held() -> None:
    random = np.random.default_rng(0)
    points = random.random((30, 2))
    values, axis = np.sin(5 * points[:, 0]) + points[:, 1], np.array([0, 1])
    telling = np.arange(30) < 12
    process = Process.fitted(points, axis, values, telling)
    alone = Process.fitted(points[:12], axis, values[:12], np.ones(12, dtype=bool))
    assert (process.scale, process.noise) == (pytest.approx(alone.scale), pytest.approx(alone.noise))
    assert np.abs(process.mean(points) - values).mean() < np.abs(alone.mean(points) - values).mean()


def test_it_finds_the_best_of_a_conditional_space_sooner_than_chance() -> None:
    def value(point: dict[str, Any]) -> float:
        rank = -abs(math.log2(point["method.rank"]) - 4) if "method.rank" in point else -5.0
        return rank - abs(math.log10(point["rate"]) + 1) + point.get("share", -0.5)

    trials: list[FrozenTrial] = []
    for count in range(40):
        point = suggest(SPACE, study_of(SPACE, count, trials).ask())
        trials.append(known(SPACE, point, value(point)))
    best = max(each.value or -9.0 for each in trials)
    drawn = Coding(SPACE)
    rows = drawn.drawn(np.random.default_rng(0), 2000)
    chance = sorted(value(_plain(drawn.told(row))) for row in rows)
    assert best > chance[-20]  # forty at random would have the best fortieth: the fiftieth-best of 2,000
    assert len({str(each.params) for each in trials}) == 40


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ("method", "steps")}


@pytest.mark.parametrize("ended", [0, 3, STARTUP + 4])
def test_points_in_flight_are_neither_given_out_again_nor_crowded(ended: int) -> None:
    space = parse_space({"x": {"low": 0, "high": 19}, "y": {"low": 0, "high": 19}})
    spots = [{"x": (7 * place) % 20, "y": (3 * place) % 20} for place in range(ended)]
    trials = [known(space, spot, -abs(spot["x"] - 9.0) - abs(spot["y"] - 9.0)) for spot in spots]
    study = study_of(space, 0, trials)
    points = [suggest(space, study.ask()) for _ in range(8)]
    everywhere = [*points, *spots]
    assert len({str(each) for each in everywhere}) == len(everywhere)


def test_the_same_study_gives_the_same_points_and_another_seed_others() -> None:
    def asked(seed: int) -> list[dict[str, Any]]:
        study = study_of(SPACE, seed, [])
        return [suggest(SPACE, study.ask()) for _ in range(3)]

    assert asked(3) == asked(3)
    assert asked(3) != asked(4)


LINE = parse_space({"x": {"low": 0.0, "high": 1.0}})


def on_the_line(count: int, early: Callable[[float], float]) -> list[FrozenTrial]:
    """Trials along the line that end higher the further right; the last three wait at step 3 of 27."""
    trials = []
    for at in range(count):
        x = (at * 0.381966) % 1
        trial = known(LINE, {"x": x}, x)
        trial.intermediate_values = {3: early(x), 27: x}
        if at >= count - 3:
            trial.state, trial.values, trial.intermediate_values = TrialState.PRUNED, None, {3: early(x)}
        trials.append(trial)
    return trials


@pytest.mark.parametrize("early", [lambda x: x, lambda x: -x], ids=["as the end", "the other way round"])
def test_a_run_that_waits_is_expected_to_end_as_its_like_did_whatever_it_showed(
    early: Callable[[float], float],
) -> None:
    trials = on_the_line(14, early)
    places = np.array([each.params["x"] for each in trials])
    expected = Kriging(LINE, 0).expected(trials)
    assert spearmanr(places, expected).statistic > 0.95
    assert Kriging(LINE, 0).expected(trials[: STARTUP - 1]).size == 0


def test_the_study_of_stopped_runs_is_searched_where_the_ends_are_high() -> None:
    points = [suggest(LINE, study_of(LINE, seed, on_the_line(14, lambda x: -x)).ask()) for seed in range(5)]
    assert min(point["x"] for point in points) > 0.8


def test_nobody_is_warned_of_what_the_library_calls_experimental(recwarn: pytest.WarningsRecorder) -> None:
    Kriging(SPACE, 0)
    assert not recwarn.list
