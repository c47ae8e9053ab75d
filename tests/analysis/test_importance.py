"""Importance of axes on functions that are known: what search stops, what is conditional, what is noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from analysis.__main__ import main
from analysis.anova import Point, differences_of_best, quiet, variance_shares
from analysis.importance import CHANCE, judged
from analysis.places import places
from analysis.store import Writer
from analysis.store.records import EvaluationText
from analysis.store.state import Ending, Evaluations, RunState
from tests.analysis.ledgers import ending, evaluation, run_json

STEPS = (1, 3, 9)
SPACE = {name: FloatDistribution(0, 1) for name in "abcde"}


def halved(seed: int, count: int = 90) -> tuple[np.ndarray, dict[str, list[RunState]]]:
    """A search of which each rung stops two of three; what is shown early reads higher than the end.

    The outcome hangs most on a, less on b, least on c, and not at all on d and e.
    """
    generator = np.random.default_rng(seed)
    values = generator.random((count, len(SPACE)))
    a, b, c = values.T[:3]
    outcome = 3 * (1 - (2 * a - 1) ** 2) + 1.6 * b + 0.8 * (c > 0.5)
    shown = {
        step: outcome * (0.5 + step / 18) + 12 * (1 - step / 9) + generator.normal(0, 0.15, count)
        for step in STEPS
    }
    alive, held = np.arange(count), np.full(count, STEPS[-1])
    for step in STEPS[:-1]:
        ordered = alive[np.argsort(-shown[step][alive])]
        held[ordered[len(ordered) // 3 :]] = step
        alive = ordered[: len(ordered) // 3]
    return values, {
        str(at): [run_of(str(at), {step: shown[step][at] for step in STEPS if step <= held[at]})]
        for at in range(count)
    }


def run_of(name: str, scores: dict[int, float]) -> RunState:
    last = max(scores)
    status = "completed" if last == STEPS[-1] else "stopped"
    texts = tuple(EvaluationText(f"{name}-0", 1, step, score, 1.0, b"{}") for step, score in scores.items())
    record = ending(status, last, scores[last])
    return RunState(run_json(name), status, Ending(1, 1.0, record), 1, evaluations=Evaluations(texts))


def points_of(values: np.ndarray, outcome: dict[int, float]) -> list[Point]:
    return [
        Point(dict(zip(SPACE, map(float, values[at]), strict=True)), place) for at, place in outcome.items()
    ]


Measure = Callable[[list[Point], Any, int], dict[str, float]]


@pytest.mark.parametrize("measure", [variance_shares, differences_of_best])
def test_with_stopped_runs_placed_the_order_of_a_known_function_is_found(measure: Measure) -> None:
    """On the completed alone, and on what each run showed last, it is not."""
    placed, completed, last = [], [], []
    with quiet():
        for seed in range(6):
            values, groups = halved(seed)
            runs = {int(name): of[0] for name, of in groups.items()}
            final = {at: run.scores[-1][1] or 0.0 for at, run in runs.items()}
            ended = {at: final[at] for at, run in runs.items() if run.status == "completed"}
            where = {int(name): place for name, place in places(groups, "score").of.items()}
            for outcome, found in ((where, placed), (ended, completed), (final, last)):
                found.append(measure(points_of(values, outcome), SPACE, 1))

    def mean(found: list[dict[str, float]]) -> dict[str, float]:
        return {name: float(np.mean([each[name] for each in found])) for name in SPACE}

    right, alone, naive = mean(placed), mean(completed), mean(last)
    assert right["a"] > right["b"] > right["c"] > 2 * max(right["d"], right["e"])
    assert alone["a"] < alone["b"]
    if measure is variance_shares:
        assert naive["a"] < naive["b"]


def test_a_conditional_axis_counts_by_its_share_where_it_is_asked() -> None:
    """Of the variance, most lies between having the part and not; within it, all hangs on the rank."""
    space = {
        "kind": CategoricalDistribution(["lora", "none"]),
        "rank": IntDistribution(1, 64, log=True),
        "idle": FloatDistribution(0, 1),
    }
    generator = np.random.default_rng(0)
    points = []
    for _ in range(80):
        idle = float(generator.random())
        if generator.random() < 0.5:
            points.append(Point({"kind": "none", "idle": idle}, float(generator.normal(0, 0.02))))
        else:
            rank = float(generator.uniform(0, np.log(64)))
            place = 2 + rank / np.log(64) + float(generator.normal(0, 0.02))
            points.append(Point({"kind": "lora", "rank": rank, "idle": idle}, place))
    even = {**space, "rank": FloatDistribution(0, np.log(64))}
    lora = np.array([each.place for each in points if "rank" in each.values])
    whole = np.array([each.place for each in points])
    within = len(lora) * lora.var() / (len(whole) * whole.var())
    with quiet():
        found = variance_shares(points, even, 1)
    assert found["rank"] == pytest.approx(within, rel=0.25)
    assert found["kind"] == pytest.approx(1 - within, abs=0.1)
    assert found["idle"] < 0.02


def test_chance_is_told_from_what_matters_beside_a_strong_axis() -> None:
    generator = np.random.default_rng(3)
    values = generator.random((36, len(SPACE)))
    outcome = 3 * values[:, 0] + 2.5 * values[:, 1] + generator.normal(0, 0.1, 36)
    points = points_of(values, dict(enumerate(map(float, outcome))))
    with quiet():
        found = {each.axis: each for each in judged(points, SPACE, repeats=40)}
    assert list(found)[:2] == ["a", "b"]
    for name in "ab":
        share = found[name].variance
        assert share is not None
        assert share.low <= share.value <= share.high
        assert found[name].p <= CHANCE
    assert min(found[name].p for name in "cde") > CHANCE
    assert found["a"].among_best.endswith(f"{max(values[np.argsort(-outcome)[:5], 0]):.3g}")


@pytest.fixture
def searched(results: Path) -> Path:
    """A search of 12 points, most of them stopped, better the higher the rank, and one that says nothing."""
    axes = {
        "low_rank.rank": {"low": 1, "high": 16},
        "low_rank.targets": {"choices": [["query"], ["value"]]},
        "smart": {"choices": [None]},
    }
    with Writer(results, "driver") as writer:
        for index in range(13):
            run = run_json(f"c{index:02}", low_rank={"rank": index + 1})
            point = {
                "low_rank.rank": index + 1,
                "low_rank.targets": [["query", "value"][index % 2]],
                "smart": None,
            }
            declaration = {"sweep": "search", "kind": "search", "axes": axes, "sampler": {"name": "tpe"}}
            writer.declare(declaration, [{"run": run, "point": point}])
            attempt = writer.begin(run, "search").attempt
            assert attempt is not None
            if index == 12:
                continue
            for step in (10, 20) if index > 7 else (10,):
                writer.evaluation(run["run_id"], attempt, evaluation(step, index / 20 + step / 100))
            status = "completed" if index > 7 else "stopped"
            record = ending(status, 20 if index > 7 else 10, index / 20 + 0.2 if index > 7 else None)
            writer.end(run["run_id"], attempt, record, {}, b"")
    return results


def test_the_command_says_what_matters_and_what_cannot_be_told(searched: Path, capsys: Any) -> None:
    assert main(["importance", str(searched), "--sweep", "search"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("What score hangs on beyond chance: low_rank.rank (")
    assert "Of the other axis, 12 points do not tell" in shown
    assert "8 of the points were stopped" in shown
    assert "1 more have shown nothing" in shown
    assert "The search (tpe) chose its points by what came before" in shown
    assert "smart" not in shown  # it has one value
    assert main(["importance", str(searched), "--sweep", "search", "--format", "json"]) == 0
    rank, targets = json.loads(capsys.readouterr().out)
    assert rank["axis"] == "low_rank.rank"
    assert rank["variance"] > targets["variance"]
    assert rank["variance_low"] <= rank["variance"] <= rank["variance_high"]


def test_what_has_no_axes_or_too_few_points_is_refused(results: Path, capsys: Any) -> None:
    with Writer(results, "driver") as writer:
        for kind, axes in (("ablation", {"change": ["base"]}), ("grid", {"rank": [1, 2]})):
            for index in (1, 2):
                run = run_json(f"{kind}{index}", rank=index)
                point = {"change": "base"} if kind == "ablation" else {"rank": index}
                writer.declare({"sweep": kind, "kind": kind, "axes": axes}, [{"run": run, "point": point}])
                attempt = writer.begin(run, kind).attempt
                assert attempt is not None
                writer.end(run["run_id"], attempt, ending(), {}, b"")
    for arguments, message in (
        ([], "--sweep: expected one of ablation, grid, got none"),
        (["--sweep", "ablation"], "'ablation' (ablation) has no axes along which its points differ"),
        (["--sweep", "grid"], "importance takes at least 10 points"),
        (["--sweep", "grid", "--by", "nothing"], "no run has a metric 'nothing'"),
    ):
        assert main(["importance", str(results), *arguments]) == 2
        assert message in capsys.readouterr().err
