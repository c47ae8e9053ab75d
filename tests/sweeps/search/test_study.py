"""Optuna's study as the ledger has it, for every sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

import pytest
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from analysis.store import State, Writer
from mtbert.run import Run
from mtbert.schema import ConfigError
from sweeps.search.points import configuration_at
from sweeps.search.settled import settled_study
from sweeps.search.space import Point, parse_space, suggest
from sweeps.search.study import History, Sampler, SamplerName, propose, trials

BASE: dict[str, Any] = {"training": {"steps": 4}, "low_rank": {"kind": "lora"}}
SPACE = parse_space({"low_rank.rank": {"low": 1, "high": 64}, "low_rank.dropout": {"choices": [0.0, 0.1]}})
NAMES: tuple[SamplerName, ...] = get_args(SamplerName)


class Book:
    """A ledger in which runs come to what the test says."""

    def __init__(self, folder: Path) -> None:
        self.writer = Writer(folder, "driver")

    @property
    def state(self) -> State:
        return self.writer.refresh()

    def begin(self, point: Point, seed: int = 0, data: str = "d", base: Mapping[str, Any] = BASE) -> Any:
        run = Run(configuration_at(base, point), seed, data, "m")
        return run.run_id, self.writer.begin(run.as_json(), "search").attempt

    def end(self, rank: int, score: float | None, status: str = "completed", **where: Any) -> None:
        run_id, attempt = self.begin(at(rank), **where)
        record = {"step": 2, "epoch": 0, "rows": [], "score": 0.9, "tokens": 1}
        self.writer.evaluation(run_id, attempt, record)
        end = {"status": status, "step": 4, "kept_step": 4, "score": score, "metrics": {}, "error": None}
        self.writer.end(run_id, attempt, end, {}, b"")

    def told(self, sampler: SamplerName = "tpe") -> list[tuple[int, str, float | None]]:
        known = History(SPACE, BASE, "d", "m").known(self.state)
        found = trials(SPACE, sampler, known, "score")
        return [(trial.params["low_rank.rank"], trial.state.name, trial.value) for trial in found]


def at(rank: int) -> dict[str, Any]:
    return {"low_rank.rank": rank, "low_rank.dropout": 0.1}


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_runs_are_told_in_the_order_of_their_first_begin(book: Book) -> None:
    declared = [Run(configuration_at(BASE, at(rank)), 0, "d", "m").as_json() for rank in (5, 3, 7)]
    book.writer.declare({"sweep": "search"}, [{"run": run, "point": {}} for run in declared])
    for rank in (7, 3, 5):
        book.end(rank, rank / 10)
    book.begin(at(1))
    told = [(7, "COMPLETE", 0.7), (3, "COMPLETE", 0.3), (5, "COMPLETE", 0.5), (1, "RUNNING", None)]
    assert book.told() == told
    book.end(7, 0.1, seed=1)
    assert [rank for rank, *_ in book.told()] == [7, 3, 5, 1]


def test_replicates_are_one_point_by_their_mean(book: Book) -> None:
    for seed, score in enumerate((0.2, 0.4, 0.9)):
        book.end(4, score, seed=seed)
    book.begin(at(4), seed=3)
    assert book.told() == [(4, "COMPLETE", pytest.approx(0.5))]


def test_a_run_that_goes_on_from_a_rung_is_told_by_what_it_has_shown(book: Book) -> None:
    book.end(3, 0.9, status="stopped")
    book.begin(at(3))
    book.begin(at(5))
    known = History(SPACE, BASE, "d", "m").known(book.state)
    promoted, new = trials(SPACE, "tpe", known, "score")
    assert (promoted.state, promoted.intermediate_values) == (TrialState.PRUNED, {2: 0.9})
    assert (new.state, new.intermediate_values) == (TrialState.RUNNING, {})
    assert book.told("gp") == [(3, "RUNNING", None), (5, "RUNNING", None)]


@pytest.mark.parametrize("status", ["stopped", "diverged", "failed"])
def test_what_was_cut_is_pruned_for_tpe_and_the_worst_for_the_others(book: Book, status: str) -> None:
    book.end(1, 0.7)
    book.end(2, 0.4)
    book.end(3, None, status=status)
    known = History(SPACE, BASE, "d", "m").known(book.state)
    last = trials(SPACE, "tpe", known, "score")[-1]
    assert (last.state, last.intermediate_values) == (TrialState.PRUNED, {2: 0.9})
    for sampler in ("gp", "cma_es", "nsga2", "random", "quasi_random"):
        assert book.told(sampler)[-1] == (3, "COMPLETE", 0.4)


def test_an_undefined_score_is_the_worst_for_all(book: Book) -> None:
    book.end(1, 0.7)
    book.end(2, None)
    for sampler in NAMES:
        assert book.told(sampler)[-1] == (2, "COMPLETE", 0.7)


def test_only_comparable_runs_are_told(book: Book) -> None:
    book.end(1, 0.1)
    book.end(2, 0.2, data="other")
    book.end(3, 0.3, base={**BASE, "training": {"steps": 5}})
    book.end(4, 0.4, base={**BASE, "biases": "trained"})
    run = Run(configuration_at(BASE, at(5)), 0, "d", "m").as_json() | {"method_version": 0}
    book.writer.begin(run, "search")
    assert [rank for rank, *_ in book.told()] == [1]


@pytest.mark.parametrize("name", NAMES)
def test_one_state_gives_one_proposal_and_the_next_state_another(book: Book, name: SamplerName) -> None:
    history = History(SPACE, BASE, "d", "m")

    def next_point() -> dict[str, Any]:
        known = history.known(book.state)
        ranks = [each.point["low_rank.rank"] for each in known]
        taken = lambda point: point["low_rank.rank"] in ranks  # noqa: E731 - as short as what it says
        (point,) = propose(SPACE, Sampler(name, 1), known, "score", 1, taken)
        return point

    seen: list[dict[str, Any]] = []
    for _ in range(11):
        point = next_point()
        assert next_point() == point
        seen.append(point)
        book.end(point["low_rank.rank"], point["low_rank.rank"] / 100)
    assert len({point["low_rank.rank"] for point in seen}) == 11


@pytest.mark.parametrize("name", NAMES)
def test_a_history_that_followed_the_ledger_tells_and_proposes_as_a_fresh_one(
    book: Book, name: SamplerName
) -> None:
    followed = History(SPACE, BASE, "d", "m")

    def tells(history: History) -> list[Any]:
        found = trials(SPACE, name, history.known(book.state), "score")
        what = ("params", "state", "values", "intermediate_values", "constraints", "system_attrs")
        return [[getattr(trial, each) for each in what] for trial in found]

    def proposes(history: History) -> list[Any]:
        known = history.known(book.state)
        taken = [each.point for each in known]
        return propose(SPACE, Sampler(name), known, "score", 1, lambda point: point in taken)

    happenings: list[Callable[[], Any]] = [
        *(partial(book.end, rank, rank / 100) for rank in range(20, 28)),
        partial(book.end, 3, None, status="diverged"),
        partial(book.end, 4, 0.6, status="stopped"),
        partial(book.begin, at(5)),
        partial(book.end, 6, 0.1),  # the worst from now on, which what diverged may be told as
        partial(book.end, 20, 0.9, seed=1),
        partial(book.begin, at(4)),
        partial(book.end, 21, None, status="failed", seed=1),
    ]
    for happens in happenings:
        happens()
        assert tells(followed) == tells(History(SPACE, BASE, "d", "m"))
    assert proposes(followed) == proposes(History(SPACE, BASE, "d", "m"))


def test_what_has_not_changed_is_not_told_anew(book: Book) -> None:
    history = History(SPACE, BASE, "d", "m")
    book.end(1, 0.7)
    book.end(2, 0.4)
    before = trials(SPACE, "tpe", history.known(book.state), "score")
    book.end(2, 0.5, seed=1)
    after = trials(SPACE, "tpe", history.known(book.state), "score")
    assert [one is other for one, other in zip(before, after, strict=True)] == [True, False]
    other = trials(SPACE, "nsga2", history.known(book.state), "score")
    assert [bool(trial.system_attrs) for trial in other] == [True, True]


def test_a_study_takes_settled_trials_in_their_order_and_leaves_them_as_they_are(book: Book) -> None:
    for rank in (5, 3):
        book.end(rank, rank / 10)
    told = trials(SPACE, "tpe", History(SPACE, BASE, "d", "m").known(book.state), "score")
    study = settled_study(told, [StudyDirection.MAXIMIZE], RandomSampler(seed=0))
    suggest(SPACE, study.ask())
    assert [trial.number for trial in study.trials] == [0, 1, 2]
    assert [trial.params for trial in study.trials[:2]] == [trial.params for trial in told]
    assert study.best_trial.params["low_rank.rank"] == 5
    assert [trial.number for trial in told] == [-1, -1]


@pytest.mark.parametrize("name", NAMES)
def test_a_small_space_is_exhausted_without_a_duplicate(book: Book, name: SamplerName) -> None:
    space = parse_space(
        {"low_rank.rank": {"choices": [1, 2, 3, 4]}, "low_rank.dropout": {"choices": [0.0, 0.1]}}
    )
    history = History(space, BASE, "d", "m")
    seen: list[dict[str, Any]] = []
    while True:
        known = history.known(book.state)
        taken = [each.point for each in known]
        found = propose(space, Sampler(name), known, "score", 1, lambda point, taken=taken: point in taken)
        if not found:
            break
        assert found[0] not in seen
        seen += found
        run_id, attempt = book.begin(found[0])
        end = {"status": "completed", "step": 4, "kept_step": 4, "score": 0.5, "metrics": {}, "error": None}
        book.writer.end(run_id, attempt, end, {}, b"")
    assert len(seen) == 8


def test_several_points_asked_at_once_differ() -> None:
    points = propose(SPACE, Sampler(), [], "score", 8, lambda _: False)
    assert len({str(point) for point in points}) == 8


def test_the_sampler_goes_where_the_scores_are(book: Book) -> None:
    history = History(SPACE, BASE, "d", "m")
    for rank in range(4, 64, 4):
        book.end(rank, 1 - abs(rank - 48) / 64)
    known = history.known(book.state)
    points = propose(SPACE, Sampler(), known, "score", 20, lambda _: False)
    near = sum(point["low_rank.rank"] >= 32 for point in points)
    assert near > 13  # at random, half


def play_numbers(folder: Path, name: SamplerName, seed: int, count: int) -> list[float]:
    """How far from the best each point was of a search over two numbers, its study rebuilt for each."""
    names = ("training.warmup", "training.learning_rate.heads")
    space = parse_space({name: {"low": 0.01, "high": 0.8} for name in names})
    book, history, missed = Book(folder), History(space, BASE, "d", "m"), []
    for _ in range(count):
        known = history.known(book.state)
        (point,) = propose(space, Sampler(name, seed), known, "score", 1, lambda _: False)
        missed.append(sum((point[name] - best) ** 2 for name, best in zip(names, (0.6, 0.15), strict=True)))
        run_id, attempt = book.begin(point)
        end = {"status": "completed", "step": 4, "kept_step": 4, "metrics": {}, "error": None}
        book.writer.end(run_id, attempt, end | {"score": 1 - missed[-1]}, {}, b"")
    return missed


def test_cma_es_closes_in_through_studies_that_are_rebuilt(tmp_path: Path) -> None:
    seeds, half = range(3), 24
    evolved = [play_numbers(tmp_path / f"cma{seed}", "cma_es", seed, 2 * half) for seed in seeds]
    random = [play_numbers(tmp_path / f"random{seed}", "random", seed, 2 * half) for seed in seeds]
    assert all(median(missed[half:]) < median(missed[:half]) for missed in evolved)
    assert max(median(missed[half:]) for missed in evolved) < min(median(m[half:]) for m in random) / 2
    assert median(map(min, evolved)) < median(map(min, random))


def test_a_sampler_that_has_settled_does_not_exhaust_the_space(book: Book) -> None:
    space = parse_space({"low_rank.rank": {"low": 1, "high": 64}})
    known = History(space, BASE, "d", "m")
    for rank in [32] * 60:
        run_id, attempt = book.begin({"low_rank.rank": rank}, seed=len(book.state.runs))
        end = {"status": "completed", "step": 4, "kept_step": 4, "score": 0.5, "metrics": {}, "error": None}
        book.writer.end(run_id, attempt, end, {}, b"")
    few = lambda point: point["low_rank.rank"] > 4  # noqa: E731 - as short as what it says
    found = propose(space, Sampler("cma_es"), known.known(book.state), "score", 4, few)
    assert sorted(point["low_rank.rank"] for point in found) == [1, 2, 3, 4]


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ConfigError, match="sampler: expected one of kriging, tpe, gp"):
        Sampler("sobol")  # type: ignore[arg-type]
