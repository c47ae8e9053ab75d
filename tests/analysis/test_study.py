"""A sweep as an Optuna study: each point once, in the state that a person expects to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from analysis.__main__ import main
from analysis.store import Writer
from analysis.study import distribution, distributions, shown
from tests.analysis.ledgers import ending, evaluation, run_json, train

AXES = {
    "low_rank.kind": {"choices": ["lora", "none"]},
    "low_rank.rank": {"low": 1, "high": 16, "log": True, "when": {"low_rank.kind": ["lora"]}},
    "low_rank.targets": {"choices": [["query"], ["query", "value"]]},
    "training.warmup": {"low": 0.0, "high": 0.5, "step": 0.1},
}
POINT = {"low_rank.kind": "lora", "low_rank.rank": 4, "low_rank.targets": ["query"], "training.warmup": 0.1}
SWEEP = {"sweep": "search", "kind": "search", "axes": AXES, "objective": "score"}


def declare(writer: Writer, run: dict[str, Any], point: dict[str, Any] | None = None) -> None:
    writer.declare(SWEEP, [{"run": run, "point": point or POINT}])


@pytest.fixture
def filled(results: Path) -> Path:
    """A search with a point in each state; the first has two replicates."""
    with Writer(results, "gone") as writer:
        for seed, score in ((0, 0.5), (1, 0.7)):
            run = run_json("done", seed)
            declare(writer, run)
            train(writer, run, ending(score=score, step=10))
        for name, status in (("cut", "stopped"), ("nan", "diverged"), ("bug", "failed")):
            run = run_json(name)
            declare(writer, run, {"low_rank.kind": "none"})
            train(writer, run, ending(status, step=10, score=None))
        declare(writer, run_json("later"))
        left = run_json("left")
        declare(writer, left)
        writer.begin(left, "search")
    return results


def study_of(folder: Path, name: str = "search") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/study.db")


def ask(results: Path, *more: str) -> int:
    storage = f"sqlite:///{results.parent}/study.db"
    return main(["study", str(results), "--sweep", "search", "--storage", storage, *more])


def by_id(study: optuna.Study) -> dict[str, Any]:
    return {trial.user_attrs["config_id"]: trial for trial in study.trials}


def test_each_point_is_one_trial_in_the_state_that_a_person_expects(filled: Path, capsys: Any) -> None:
    with Writer(filled, "alive") as writer:
        running = run_json("now")
        declare(writer, running)
        attempt = writer.begin(running, "search").attempt
        assert attempt is not None
        writer.evaluation("now-0", attempt, evaluation(5, 0.25))
        assert ask(filled) == 0
    assert "complete" in capsys.readouterr().out
    found = by_id(study_of(filled.parent))
    assert {name: trial.state for name, trial in found.items()} == {
        "done": TrialState.COMPLETE,
        "cut": TrialState.PRUNED,
        "nan": TrialState.PRUNED,
        "bug": TrialState.FAIL,
        "later": TrialState.WAITING,
        "left": TrialState.WAITING,
        "now": TrialState.RUNNING,
    }
    assert found["now"].intermediate_values == {5: 0.25}
    assert found["cut"].intermediate_values == {5: 0.5, 10: 0.5}
    assert found["left"].user_attrs["status"] == {"left-0": "interrupted"}


def test_replicates_are_one_trial_with_their_mean(filled: Path) -> None:
    assert ask(filled) == 0
    trial = by_id(study_of(filled.parent))["done"]
    assert trial.value == pytest.approx(0.6)
    assert trial.user_attrs["run_ids"] == ["done-0", "done-1"]
    assert trial.user_attrs["trainable"] == 1000
    assert trial.user_attrs["seconds"] == pytest.approx(2 * (1.0 + 0.1 + 0.25))
    assert trial.datetime_start <= trial.datetime_complete


def test_parameters_are_distributed_as_declared(filled: Path) -> None:
    assert ask(filled) == 0
    trial = by_id(study_of(filled.parent))["done"]
    assert trial.params == POINT | {"low_rank.targets": '["query"]'}
    assert trial.distributions == {
        "low_rank.kind": CategoricalDistribution(["lora", "none"]),
        "low_rank.rank": IntDistribution(1, 16, log=True),
        "low_rank.targets": CategoricalDistribution(['["query"]', '["query", "value"]']),
        "training.warmup": FloatDistribution(0.0, 0.5, step=0.1),
    }


def test_doing_it_again_doubles_nothing_and_takes_in_what_is_new(filled: Path) -> None:
    assert ask(filled) == ask(filled) == 0
    assert len(study_of(filled.parent).trials) == 6
    with Writer(filled, "next") as writer:
        train(writer, run_json("later"), ending(score=0.9), "search")
    assert ask(filled) == 0
    study = study_of(filled.parent)
    assert len(study.trials) == 6
    assert study.best_trial.user_attrs["config_id"] == "later"
    assert optuna.get_all_study_names(f"sqlite:///{filled.parent}/study.db") == ["search"]


def test_points_of_an_earlier_declaration_widen_what_is_declared(results: Path) -> None:
    points = [{"low_rank.rank": 64, "low_rank.kind": "dora"}, {"low_rank.rank": 2, "low_rank.kind": "lora"}]
    with Writer(results, "driver") as writer:
        for index, point in enumerate(points):
            declare(writer, run_json(f"c{index}"), point)
            train(writer, run_json(f"c{index}"), ending())
    assert ask(results) == 0
    found = by_id(study_of(results.parent))
    assert found["c0"].params == points[0]
    assert found["c1"].distributions == {
        "low_rank.rank": IntDistribution(1, 64, log=True),
        "low_rank.kind": CategoricalDistribution(["lora", "none", "dora"]),
    }


@pytest.mark.parametrize(
    ("axis", "values", "found"),
    [
        ({"low": 0.0, "high": 1.0, "step": 0.1}, [0.25, 0.3], {"low": 0.0, "high": 1.0, "log": False}),
        ({"low": 0.0, "high": 1.0, "step": 0.1}, [0.2, 0.3], {"low": 0.0, "high": 1.0, "step": 0.1}),
        ({"low": 1, "high": 9, "step": 2}, [1, 4], {"low": 1, "high": 9, "log": False}),
        ({"low": 1, "high": 9}, [1.5], {"low": 1.0, "high": 9.0, "log": False}),
        ({"low": 1, "high": 9, "log": True}, [2, 16], {"low": 1, "high": 16, "log": True}),
    ],
)
def test_a_step_of_a_later_declaration_holds_only_what_is_on_it(
    axis: dict[str, Any], values: list[float], found: dict[str, Any]
) -> None:
    made = distributions({"x": axis}, [{"x": value} for value in values])["x"]
    assert made == distribution(found, shown)
    for value in values:
        assert made._contains(made.to_internal_repr(value))


def test_a_grids_axes_are_choices(results: Path) -> None:
    axes = {"low_rank.rank": [1, 4], "low_rank.targets": [["query"], ["value"]]}
    with Writer(results, "driver") as writer:
        sweep = {"sweep": "search", "kind": "grid", "axes": axes, "objective": "sst.accuracy"}
        point = {"low_rank.rank": 4, "low_rank.targets": ["value"]}
        writer.declare(sweep, [{"run": run_json(), "point": point}])
        train(writer, run_json(), ending(score=0.25))
    assert ask(results) == 0
    (trial,) = study_of(results.parent).trials
    assert trial.params == {"low_rank.rank": 4, "low_rank.targets": '["value"]'}
    assert trial.distributions["low_rank.rank"] == CategoricalDistribution([1, 4])
    assert (trial.value, trial.intermediate_values) == (0.25, {})
    assert study_of(results.parent).metric_names == ["sst.accuracy"]


@pytest.mark.parametrize(("against", "costs"), [("parameters", [1000, 30]), ("seconds", [1.65, 3.3])])
def test_a_front_has_both_its_values_and_the_costly_point_is_not_among_the_best(
    results: Path, against: str, costs: list[float]
) -> None:
    with Writer(results, "driver") as writer:
        for name in ("a", "b"):
            for seed in (0, 1):
                run = run_json(name, seed)
                writer.declare(SWEEP | {"against": against}, [{"run": run, "point": POINT}])
                of = {
                    "a": ending(step=10 + 10 * seed, score=0.5 + seed / 10),
                    "b": ending(step=30, score=0.5),
                }
                train(writer, run, of[name] | ({"trainable": 30} if name == "b" else {}))
    assert ask(results) == 0
    study = study_of(results.parent)
    assert [each.name for each in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["score", against]
    found = {name: trial.values for name, trial in by_id(study).items()}
    assert found == {"a": pytest.approx([0.55, costs[0]]), "b": pytest.approx([0.5, costs[1]])}
    best = {trial.user_attrs["config_id"] for trial in study.best_trials}
    assert best == ({"a", "b"} if against == "parameters" else {"a"})


def test_what_cannot_be_is_said(filled: Path, capsys: Any) -> None:
    assert main(["study", str(filled), "--storage", "sqlite:///x.db"]) == 2
    assert "--sweep: expected one of search, got none" in capsys.readouterr().err
    assert main(["study", str(filled), "--sweep", "search", "--storage", "nothing"]) == 2
    assert "expected a URL such as sqlite:///study.db" in capsys.readouterr().err
    own = f"sqlite:///{filled.parent}/own.db"
    optuna.create_study(study_name="search", storage=own)
    assert main(["study", str(filled), "--sweep", "search", "--storage", own]) == 2
    assert "was not made from a ledger" in capsys.readouterr().err
