"""What a search wants next, from the ledger alone; and the searcher that gives it out, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.store import State, Writer
from mtbert.run import Run
from mtbert.schema import ConfigError
from sweeps.declare import Search
from sweeps.plan import Growth, reached
from sweeps.search.budget import Budget
from sweeps.search.quest import Quest
from sweeps.search.rungs import Rungs
from sweeps.search.space import parse_space
from tests.sweeps.direct import Desk, ended, lone

BASE: dict[str, Any] = {"training": {"steps": 4}}
SPACE = {
    "low_rank.kind": {"choices": ["lora", "none"]},
    "low_rank.rank": {"low": 1, "high": 64, "role": "nuisance"},
    "training.warmup": {"choices": [0.1, 0.2]},
}


def search(**changes: Any) -> Search:
    given = {"base": BASE, "budget": Budget(6), "top_k": 2, "seeds_at_end": 3, "space": parse_space(SPACE)}
    return Search("search", **given | changes)


def stopping(points: int, **changes: Any) -> Search:
    """A search that stops runs at rungs."""
    given = {
        "base": {"training": {"steps": 9}, "evaluation": {"every": 1}},
        "space": parse_space({"training.warmup": {"low": 0.0, "high": 0.5}}),
        "budget": Budget(points),
        "rungs": Rungs(grace=1, reduction=3),
    }
    return search(**given | changes)


def length(run: Run) -> int:
    return run.configuration.training.steps or 1


class Play:
    """Carries a search out over a ledger, each run scored by what the test says."""

    def __init__(self, folder: Path, sought: Search, scored: Callable[[Any], float] | None = None) -> None:
        self.scored = scored or score
        self.writer = Writer(folder, "driver")
        self.search = sought
        self.quest = Quest(sought, "d", "m", length)

    @property
    def state(self) -> State:
        return self.writer.refresh()

    def run(self, each: Any, score: float | None, sweep: str = "search") -> None:
        record = each.run.as_json()
        self.writer.declare({"sweep": sweep, "kind": "search"}, [{"run": record, "point": dict(each.point)}])
        if each.run.run_id in self.state.runs and self.state.runs[each.run.run_id].final:
            return  # it belongs to the search from now on, and is not run again
        attempt = self.writer.begin(record, sweep).attempt
        assert attempt is not None, "given out twice"
        end = {"status": "completed", "step": 4, "kept_step": 4, "score": score, "metrics": {}, "error": None}
        self.writer.end(each.run.run_id, attempt, end, {}, b"")

    def play(self, rounds: int = 100) -> list[Any]:
        """Runs each that is wanted to its end; returns them in order."""
        done = []
        for _ in range(rounds):
            listed = self.quest.listed(self.state)
            waiting = [each for each in listed if each.run.run_id not in self.state.runs]
            wanted = waiting or self.quest.more(self.state, 1)
            if not wanted:
                break
            for each in wanted:
                self.run(each, self.scored(each))
                done.append(each)
        return done

    def go_on(self) -> int:
        """Takes one run as far as is wanted of it, or asks for more; returns the steps made, 0 at the end."""
        aims = self.quest.aims(self.state)
        for each in self.quest.listed(self.state):
            run, run_id = self.state.runs.get(each.run.run_id), each.run.run_id
            if not reached(run, aims.targets[run_id]):
                return self.train(each, 0 if run is None else run.step, aims.targets[run_id])
        new = self.quest.more(self.state, 1)
        points = [{"run": each.run.as_json(), "point": dict(each.point)} for each in new]
        self.writer.declare({"sweep": "search", "kind": "search"}, points)
        return self.go_on() if new else 0

    def train(self, each: Any, step: int, until: int) -> int:
        run_id, value = each.run.run_id, self.scored(each)
        attempt = self.writer.begin(each.run.as_json(), "search").attempt
        assert attempt is not None, "given out twice"
        for at in range(step + 1, until + 1):
            record = {"step": at, "epoch": 0, "rows": [], "score": value, "tokens": 1}
            self.writer.evaluation(run_id, attempt, record)
        status = "completed" if until == length(each.run) else "stopped"
        end = {
            "status": status,
            "step": until,
            "kept_step": None,
            "score": value,
            "metrics": {},
            "error": None,
        }
        self.writer.end(run_id, attempt, end, {}, b"")
        return until - step


def score(each: Any) -> float:
    return float(
        each.point.get("low_rank.rank", 0) / 100 + each.point["training.warmup"] + each.run.seed / 50
    )


def test_a_search_tries_its_budget_and_then_the_best_over_more_seeds(tmp_path: Path) -> None:
    play = Play(tmp_path, search())
    done = play.play()
    assert [each.run.seed for each in done] == [0] * 6 + [1, 1, 2, 2]
    finalists = play.quest.finalists(play.state)
    compared = [
        SPACE.keys() - {"low_rank.rank"} and play.search.space.compared(each.point) for each in finalists
    ]
    assert compared[0] != compared[1]  # ranks are searched along, and are no finalists of their own
    winner = play.quest.winner(play.state)
    assert winner is not None
    assert sorted(winner.values) == [0, 1, 2]
    assert winner.mean == max(each.mean for each in finalists)


def test_no_run_is_given_out_while_the_finalists_are_not_known(tmp_path: Path) -> None:
    play = Play(tmp_path, search(budget=Budget(1)))
    (one,) = play.quest.more(play.state, 5)
    play.writer.declare({"sweep": "search"}, [{"run": one.run.as_json(), "point": dict(one.point)}])
    play.writer.begin(one.run.as_json(), "search")
    assert play.quest.more(play.state, 5) == []


def test_a_second_call_goes_on_where_the_ledger_stands(tmp_path: Path) -> None:
    first = Play(tmp_path / "one", search())
    whole = [each.run.run_id for each in first.play()]
    cut = Play(tmp_path / "two", search())
    part = [each.run.run_id for each in cut.play(rounds=3)]
    cut.quest = Quest(search(), "d", "m", length)
    rest = [each.run.run_id for each in cut.play()]
    assert part + rest == whole


def test_a_larger_budget_goes_on_from_a_smaller_one(tmp_path: Path) -> None:
    play = Play(tmp_path, search(budget=Budget(3), seeds_at_end=1))
    assert len(play.play()) == 3
    play.quest = Quest(search(budget=Budget(5), seeds_at_end=1), "d", "m", length)
    assert len(play.play()) == 2


def test_what_another_sweep_has_tried_is_learnt_from_and_not_tried_again(tmp_path: Path) -> None:
    space = parse_space({"training.warmup": {"choices": [0.1, 0.2, 0.3]}})
    play = Play(tmp_path, search(space=space, budget=Budget(5), top_k=1))
    other = play.search.run({"training.warmup": 0.3}, 0, "d", "m")
    play.run(other, 0.99, sweep="another")
    done = play.play()
    assert sorted(each.point["training.warmup"] for each in done if not each.run.seed) == [0.1, 0.2, 0.3]
    assert play.quest.exhausted
    assert [each.point["training.warmup"] for each in done if each.run.seed] == [0.3, 0.3]
    assert play.state.sweep("search").points[other.run.run_id] == {"training.warmup": 0.3}


def test_what_a_quest_remembers_changes_nothing_of_what_it_wants(tmp_path: Path) -> None:
    sought = search(
        base={"training": {"steps": 4}, "evaluation": {"every": 1}},
        budget=Budget(4),
        rungs=Rungs(grace=1, reduction=2),
        seeds_at_end=2,
    )
    play = Play(tmp_path, sought)
    while play.go_on():
        fresh = Quest(sought, "d", "m", length)
        assert play.quest.listed(play.state) == fresh.listed(play.state)
        assert play.quest.aims(play.state) == fresh.aims(play.state)
    assert sum(run.final for run in play.state.runs.values()) >= 4


@pytest.mark.parametrize("rule", ["halving", "median"])
def test_rungs_spare_steps_and_the_best_point_is_a_finalist_at_its_end(tmp_path: Path, rule: Any) -> None:
    sought = stopping(12, rungs=Rungs(grace=1, reduction=3, rule=rule), seeds_at_end=2)
    play = Play(tmp_path, sought)
    steps = 0
    while made := play.go_on():
        steps += made
        play.quest = Quest(sought, "d", "m", length)  # as if the command were started anew each time
    runs = play.state.runs
    assert sum(run.seed == 0 for run in runs.values()) == 12
    assert steps < 12 * 9
    finalists = play.quest.finalists(play.state)
    assert [sorted(each.values) for each in finalists] == [[0, 1], [0, 1]]
    best = max(play.quest.listed(play.state), key=lambda each: each.point["training.warmup"])
    assert finalists[0].config_id == best.run.config_id


def test_further_seeds_change_nothing_of_what_is_expected(tmp_path: Path) -> None:
    play = Play(tmp_path, stopping(12), lambda each: score(each) if each.run.seed == 0 else -1.0)
    while not any(run.seed for run in play.state.runs.values()):
        before = play.quest.ranked(play.state), play.quest.aims(play.state)
        assert play.go_on()
    while play.go_on():
        pass
    after = play.quest.ranked(play.state), play.quest.aims(play.state)
    assert sum(run.seed > 0 for run in play.state.runs.values()) == 4
    assert [each.config_id for each in after[0]] == [each.config_id for each in before[0]]
    assert before[1].targets.items() <= after[1].targets.items()


def test_a_search_that_is_cut_short_has_a_winner_as_soon_as_a_point_is_at_its_end(tmp_path: Path) -> None:
    play, more_expected = Play(tmp_path, stopping(20, top_k=1)), 0
    while play.go_on():
        state = play.state
        ended = [run for run in state.runs.values() if run.final]
        (finalist,) = play.quest.finalists(state)
        winner = play.quest.winner(state)
        assert (winner is None) == (not ended)
        more_expected += bool(ended and not finalist.values)
    assert more_expected


def test_of_points_that_differ_in_nuisances_alone_only_the_best_is_a_finalist(tmp_path: Path) -> None:
    points = [
        {"low_rank.kind": "lora", "low_rank.rank": rank, "training.warmup": 0.1} for rank in (60, 50, 40)
    ]
    points.append({"low_rank.kind": "none", "training.warmup": 0.1})
    play = Play(tmp_path, search(start=points, budget=Budget(4)))
    play.play()
    found = [each.point for each in play.quest.finalists(play.state)]
    assert found == [points[0], points[3]]


def test_start_points_are_tried_first_and_once(tmp_path: Path) -> None:
    start = {"low_rank.kind": "none", "training.warmup": 0.2}
    play = Play(tmp_path, search(start=(start, start), budget=Budget(3), seeds_at_end=1))
    done = play.play()
    assert done[0].point == start
    assert len({each.run.run_id for each in done}) == len(done) == 3


def test_points_of_another_base_under_the_same_name_are_left_aside(tmp_path: Path) -> None:
    Play(tmp_path, search()).play(rounds=2)
    longer = Search("search", {"training": {"steps": 5}}, parse_space(SPACE), Budget(6))
    assert Quest(longer, "d", "m", length).listed(Writer(tmp_path, "other").refresh()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 0}, "top_k: expected a count of at least 1, got 0"),
        ({"seeds_at_end": 0}, "seeds: expected a count of at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(**changes)


def growth(desk: Desk, targets: dict[str, int], run_id: str) -> Growth:
    targets[run_id] = 4
    run = desk.runs[run_id]
    return Growth({run_id: run}, [{"run": run.as_json(), "point": {"seed": run.seed}}])


def test_the_searcher_asks_for_more_when_all_is_given_out(desk: Desk) -> None:
    targets = {desk.ids[0]: 4}
    waiting = desk.ids[1:3]

    def more(*_: Any) -> Growth:
        return growth(desk, targets, waiting.pop(0)) if waiting else Growth({}, [])

    assignments = desk.assignments(targets=targets, runs={desk.ids[0]: desk.runs[desk.ids[0]]}, more=more)
    for number, run_id in enumerate(desk.ids[:3]):
        assert assignments.suggest(f"t{number}") == lone(run_id, 1)
        result = desk.pack([[run_id, 1]], ended(run_id)).step()
        assignments.complete(f"t{number}", result, error=False)
    assert assignments.suggest("t3") == "FINISHED"
    assert desk.state().sweep("grid").points[desk.ids[2]] == {"seed": 2}


def test_a_point_that_cannot_be_ends_the_search_and_is_named(desk: Desk) -> None:
    def more(*_: Any) -> Growth:
        raise ConfigError("the space's point (rank 0) cannot be")

    assignments = desk.assignments(targets={}, more=more)
    assignments.suggest("t1")
    assert assignments.failure == "the space's point (rank 0) cannot be"
