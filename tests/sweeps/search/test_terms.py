"""Constraints and costs: what texts declare, what a sampler is told, and what a search ends with."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.store import Writer
from analysis.store.state import RunState
from mtbert.configuration import Configuration
from mtbert.run import Run
from mtbert.schema import ConfigError
from sweeps.declare import Search
from sweeps.search.budget import Budget
from sweeps.search.cells import Quests
from sweeps.search.finals import finals, without_winner
from sweeps.search.quest import Quest
from sweeps.search.rungs import Rungs
from sweeps.search.space import Point, parse_space
from sweeps.search.study import SAMPLERS, WEIGHS, History, Sampler, SamplerName, propose, trials
from sweeps.search.terms import Terms, parse_constraints

BASE: dict[str, Any] = {"training": {"steps": 4}, "low_rank": {"kind": "lora"}}
SPACE = parse_space({"low_rank.rank": {"low": 1, "high": 64}, "training.warmup": {"choices": [0.1, 0.2]}})


def count(configuration: Configuration) -> Any:
    """Ten parameters of each rank, of ten thousand."""
    rank = configuration.low_rank.rank if configuration.low_rank else 0
    return SimpleNamespace(trainable=10 * rank, total=10_000)


def length(run: Run) -> int:
    return run.configuration.training.steps or 1


def never(_: Point) -> bool:
    return False


class Game:
    """A search over a ledger, in which each run comes to what its rank says: the more, the better."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        given: dict[str, Any] = {"budget": Budget(points=8), "top_k": 2, "seeds_at_end": 2, "space": SPACE}
        self.search = Search("search", BASE, **given | changes)
        self.writer = Writer(folder, "driver")
        self.accuracy = lambda rank: 0.9 - rank / 100
        self.value = lambda rank: rank / 100
        self.start_anew()

    def start_anew(self) -> None:
        self.quests = Quests(self.search, "d", "m", length, count)

    @property
    def quest(self) -> Quest:
        return self.quests.cells[0][1]

    @property
    def state(self) -> Any:
        return self.writer.refresh()

    def run(self, run: Run, point: Point, sweep: str = "search", status: str = "completed") -> None:
        record = run.as_json()
        self.writer.declare({"sweep": sweep, "kind": "search"}, [{"run": record, "point": dict(point)}])
        attempt = self.writer.begin(record, sweep).attempt
        assert attempt is not None, "given out twice"
        rank = run.configuration.low_rank.rank if run.configuration.low_rank else 0
        metrics = {"para.accuracy": self.accuracy(rank), "para.loss": None}
        end = {"status": status, "step": 4, "kept_step": 4, "error": None, "total": 10_000}
        end |= {"trainable": 10 * rank, "seconds_training": 100.0 / rank if rank else 0.0}
        end |= {"score": self.value(rank), "metrics": metrics, "seconds_evaluation": 1.0}
        self.writer.end(run.run_id, attempt, end, {}, b"")

    def play(self, rounds: int = 100) -> list[Any]:
        """Runs each that is wanted to its end, the command started anew each time; returns them in order."""
        done: list[Any] = []
        for _ in range(rounds):
            self.start_anew()
            waiting = [each for each in self.quests.listed(self.state) if not self.ended(each)]
            wanted = waiting[:1] or self.quests.more(self.state, 1)
            if not wanted:
                break
            if self.ended(wanted[0]):
                self.writer.declare({"sweep": "search"}, [{"run": wanted[0].run.as_json(), "point": {}}])
                continue
            self.run(wanted[0].run, wanted[0].point)
            done.append(wanted[0])
        return done

    def ended(self, each: Any) -> bool:
        run = self.state.runs.get(each.run.run_id)
        return run is not None and run.final

    def known(self) -> Any:
        return History(SPACE, BASE, "d", "m").known(self.state)

    def at(self, rank: int, warmup: float = 0.1, **changes: Any) -> None:
        each = self.search.run({"low_rank.rank": rank, "training.warmup": warmup}, 0, "d", "m")
        self.run(each.run, each.point, **changes)


@pytest.mark.parametrize(
    ("text", "found", "kept"),
    [
        ("trainable<=1%", {"trainable": 100}, True),
        ("trainable<=1%", {"trainable": 101}, False),
        ("trainable<=100", {"trainable": 101}, False),
        (" para.accuracy >= 80% ", {"metrics": {"para.accuracy": 0.8}}, True),
        ("para.accuracy>=0.80", {"metrics": {"para.accuracy": 0.79}}, False),
        ("para.accuracy>=0.80", {"metrics": {"para.accuracy": None}}, False),
        ("seconds<=5", {"seconds_training": 4.0, "seconds_evaluation": 1.5}, False),
        ("seconds<=6", {"seconds_training": 4.0, "seconds_evaluation": 1.5}, True),
        ("score>=5e-1", {"score": 0.5}, True),
    ],
)
def test_a_text_binds_what_a_run_came_to(text: str, found: dict[str, Any], kept: bool) -> None:
    terms = Terms(parse_constraints([text]))
    run = SimpleNamespace(status="completed", ended={"total": 10_000, **found})
    assert terms.kept([run]) is kept  # type: ignore[list-item]


def test_replicates_keep_a_constraint_in_their_mean() -> None:
    terms = Terms(parse_constraints(["para.accuracy>=0.8"]))
    runs: list[RunState] = [
        SimpleNamespace(status="completed", ended={"metrics": {"para.accuracy": each}})  # type: ignore[misc]
        for each in (0.75, 0.85)
    ]
    assert terms.kept(runs)
    assert terms.excesses(runs[:1]) == {"para.accuracy>=0.8": pytest.approx(0.0625)}


@pytest.mark.parametrize(
    "text", ["trainable", "trainable<1%", "<=3", "para.accuracy>=high", "seconds<=1.2.3", "a b<=1", "x>=nan"]
)
def test_a_text_that_declares_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"constraint: expected a name, <= or >=, and a number, as train"):
        Search("s", BASE, SPACE, constraints=[text])


def test_a_constraint_on_what_no_run_has_is_refused() -> None:
    for text, message in {
        "trainable<=0.01": "a count, or a share with %, got 0.01",
        "seconds<=5%": "expected seconds as a number",
        "accuracy>=0.8": "expected one of trainable, seconds, score, or TASK.METRIC, got 'accuracy'",
    }.items():
        with pytest.raises(ConfigError, match=message):
            parse_constraints([text])
    for name in ("quora.accuracy", "para.acuracy"):
        terms = Terms(parse_constraints([f"{name}>=0.8"]))
        with pytest.raises(
            ConfigError, match=f"one of trainable, seconds, score, para.accuracy, got '{name}'"
        ):
            terms.check(["para.accuracy"])
    Terms(parse_constraints(["para.accuracy>=0.8", "score>=0.5", "seconds<=3"])).check(["para.accuracy"])


@pytest.mark.parametrize("name", ["tpe", "cma_es", "quasi_random"])
def test_no_point_over_the_limit_is_ever_trained(tmp_path: Path, name: SamplerName) -> None:
    game = Game(tmp_path, sampler=Sampler(name), constraints=["trainable<=3%"])
    done = game.play()
    assert len({each.run.run_id for each in done}) == len(done) == 8 + 2
    assert all(each.point["low_rank.rank"] <= 30 for each in done)


def test_a_limit_that_nothing_keeps_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    game = Game(tmp_path / "one", constraints=["trainable<=5"])
    with pytest.raises(ConfigError, match="constraint trainable<=5: of 1000 points of the space, none keeps"):
        game.quests.sample(16)
    with pytest.raises(ConfigError, match="start: a constraint forbids the point"):
        Game(
            tmp_path / "two",
            constraints=["trainable<=5"],
            start=[{"low_rank.rank": 9, "training.warmup": 0.1}],
        )


def test_a_sampler_that_reads_constraints_is_told_by_how_much_and_the_others_the_worst(
    tmp_path: Path,
) -> None:
    game = Game(tmp_path)
    for rank in (5, 20, 40):
        game.at(rank)
    game.at(50, status="diverged")
    terms = Terms(parse_constraints(["para.accuracy>=0.8"]))
    for name in SAMPLERS:
        told = trials(SPACE, name, game.known(), "score", terms)
        excess = [each.constraints.get("para.accuracy>=0.8") for each in told]
        assert excess[:3] == pytest.approx([-0.0625, 0.125, 0.375])
        reads = name in ("kriging", "tpe", "gp", "nsga2")
        assert [each.value for each in told[:3]] == ([0.05, 0.2, 0.4] if reads else [0.05, 0.05, 0.05])
        if name in ("kriging", "tpe"):
            assert (told[3].state.name, told[3].constraints) == ("PRUNED", {})
        else:  # as bad as the worst of each
            assert (told[3].state.name, told[3].value, excess[3]) == ("COMPLETE", 0.05, pytest.approx(1.0))


@pytest.mark.parametrize(("name", "asked"), [("tpe", 8), ("gp", 1), ("nsga2", 32)])
def test_a_sampler_that_reads_constraints_keeps_to_where_they_are_kept(
    tmp_path: Path, name: SamplerName, asked: int
) -> None:
    game = Game(tmp_path)
    for rank in range(2, 64, 3):
        game.at(rank, 0.1 + rank % 2 / 10)
    known, terms = game.known(), Terms(parse_constraints(["para.accuracy>=0.6"]))
    bound, free = (
        [each["low_rank.rank"] for each in propose(SPACE, Sampler(name), known, "score", asked, never, those)]
        for those in (terms, Terms())
    )
    assert fmean(bound) < fmean(free) - 5
    assert sum(rank <= 31 for rank in bound) > asked / 2 > sum(rank <= 31 for rank in free)


def test_constraints_bind_finalists_and_winner(tmp_path: Path) -> None:
    game = Game(tmp_path, constraints=["para.accuracy>=0.6"], top_k=3)
    for rank in (10, 20, 30, 31, 40, 60):
        game.at(rank)
    space = parse_space({"low_rank.rank": {"low": 1, "high": 64}, "training.warmup": 0.1})
    game.search = Search("search", BASE, space, Budget(points=6), constraints=["para.accuracy>=0.6"])
    game.start_anew()
    ranks = [each.point["low_rank.rank"] for each in game.quest.finalists(game.state)]
    assert ranks == [30, 20, 10]
    best = game.quests.best(game.state)
    assert best is not None
    assert best.point["low_rank.rank"] == 30


def test_where_nothing_keeps_the_constraints_the_closest_is_named_and_nothing_is_called_the_best(
    tmp_path: Path,
) -> None:
    game = Game(tmp_path, constraints=["para.accuracy>=0.95", "trainable<=5%"])
    done = game.play()
    assert len(done) == 8  # no finalists
    assert game.quests.best(game.state) is None
    least = min(done, key=lambda each: each.point["low_rank.rank"])
    text = without_winner(game.quests, game.state) or ""
    accuracy = 0.9 - least.point["low_rank.rank"] / 100
    assert f"The closest is {least.run.config_id}" in text
    assert f"it breaks para.accuracy>=0.95 (it has {accuracy:.4f})" in text


def test_where_further_seeds_break_a_constraint_it_is_the_finalist_that_is_named(tmp_path: Path) -> None:
    game = Game(tmp_path, constraints=["para.accuracy>=0.6"], top_k=1)
    for rank in (10, 30):
        game.at(rank)
    (finalist,) = game.quest.finalists(game.state)
    assert finalist.point["low_rank.rank"] == 30
    game.accuracy = lambda _: 0.1
    second = game.search.run(finalist.point, 1, "d", "m")
    game.run(second.run, second.point)
    assert game.quests.best(game.state) is None
    text = without_winner(game.quests, game.state) or ""
    assert "None of the finalists keeps, over its seeds, every constraint" in text
    assert f"The closest is {finalist.config_id}, with 0.3000" in text
    assert "it breaks para.accuracy>=0.6 (it has 0.3500)" in text


def test_where_all_diverges_it_is_said_that_there_is_no_best_and_why(tmp_path: Path) -> None:
    game = Game(tmp_path, budget=Budget(points=2))
    assert without_winner(game.quests, game.state) is None
    for rank in (10, 30):
        game.at(rank, status="diverged")
    text = without_winner(game.quests, game.state)
    assert text == "None is called the best: no run has come to a score (2 diverged)"


@pytest.mark.parametrize(
    ("name", "against"), [*((name, "parameters") for name in WEIGHS), ("tpe", "seconds")]
)
def test_a_front_is_sought_and_one_state_gives_one_proposal(
    tmp_path: Path, name: SamplerName, against: Any
) -> None:
    game = Game(tmp_path, sampler=Sampler(name), against=against, budget=Budget(points=9))
    game.at(64, sweep="other")
    game.at(32, sweep="other", status="diverged")
    for _ in range(9):  # ten are told at the last: from there on a sampler learns
        (wanted,) = Quests(game.search, "d", "m", length, count).more(game.state, 1)
        assert [each.run.run_id for each in game.play(rounds=1)] == [wanted.run.run_id]
    told = trials(SPACE, name, game.known(), "score", game.search.terms)
    assert [each.state.name for each in told] == ["COMPLETE"] * 11  # none prunes with two objectives
    costs = [each.values[1] for each in told]
    assert told[1].values == [min(each.values[0] for each in told), max(costs)]
    assert told[0].values == [0.64, 640 if against == "parameters" else pytest.approx(100 / 64 + 1)]


def test_the_front_is_what_nothing_beats_in_both_and_the_finalists_are_spread_over_it(tmp_path: Path) -> None:
    game = Game(tmp_path, against="parameters", top_k=3)
    values = {1: 0.1, 4: 0.5, 8: 0.4, 16: 0.6, 32: 0.6, 40: 0.7, 50: 0.8, 64: 0.75}
    game.value = values.__getitem__
    for rank in values:
        game.at(rank)
    ranks = [each.point["low_rank.rank"] for each in game.quest.front(game.state)]
    assert ranks == [50, 40, 16, 4, 1]
    finalists = [each.point["low_rank.rank"] for each in game.quest.finalists(game.state)]
    assert finalists == [50, 16, 1]
    best = game.quests.best(game.state)
    assert best is not None
    assert best.point["low_rank.rank"] == 50
    text = "\n".join(finals(game.quests, game.state))
    assert "The front, score against parameters" in text
    assert all(each.config_id in text for each in game.quest.front(game.state))


def test_a_front_keeps_the_constraints(tmp_path: Path) -> None:
    game = Game(tmp_path, against="parameters", constraints=["trainable<=3%", "para.accuracy>=0.7"])
    for rank in (5, 15, 25, 60):
        game.at(rank)
    assert [each.point["low_rank.rank"] for each in game.quest.front(game.state)] == [15, 5]


def test_what_cannot_be_weighed_is_refused() -> None:
    rungs = Rungs(grace=1)
    for changes, message in (
        ({"against": "weight"}, "against: expected one of parameters, seconds, got 'weight'"),
        (
            {"against": "seconds", "sampler": Sampler("cma_es")},
            "sampler: expected one of kriging, tpe, gp, ",
        ),
        ({"against": "seconds", "rungs": rungs}, "rungs: expected none with against seconds .--rule none."),
    ):
        with pytest.raises(ConfigError, match=message):
            Search("s", BASE, SPACE, **changes)  # type: ignore[arg-type]
