"""What a search may use up, and what the ledger says it has used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.store import Occupied, State, Writer
from analysis.store import ledger as ledger_module
from mtbert.schema import ConfigError, build
from sweeps.plan import failed_record
from sweeps.search.budget import Budget, Spent, amount, spent

HOUR = 3600.0
CORE = {"cores": 1.0, "gpus": 0.0}
END = failed_record("", "", "", 4) | {"error": None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": 0}, "budget.points: expected a number at least 1, got 0"),
        ({"hours": 0.0}, "budget.hours: expected a number above 0, got 0.0"),
        ({"core_hours": -1}, "budget.core_hours: expected a number above 0, got -1.0"),
        ({"gpu_hours": "many"}, "budget.gpu_hours: expected a number, got 'many'"),
        ({"cost": 3}, "budget.price: expected a number beside a cost, got none"),
        ({"price": 3}, "budget.cost: expected a number beside a price, got none"),
        ({"runs": 3}, "budget.runs: no such field"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Budget, given, "budget")


class Clock:
    """The ledger's time, in hours, as the test sets it."""

    def __init__(self) -> None:
        self.hours = 0.0

    def time(self) -> float:
        return self.hours * HOUR


class Book:
    """A ledger whose hours the test counts; `at` is the hour at which something happens."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.writer, self.clock = Writer(folder, "driver"), clock

    def begin(self, run_id: str, at: float, trial: str = "", sweep: str = "search", **occupied: float) -> int:
        self.clock.hours = at
        record = {"run_id": run_id, "config_id": run_id, "seed": 0, "configuration": {}}
        where = Occupied(trial or f"{run_id} at {at}", **{**CORE, **occupied})
        attempt = self.writer.begin(record, sweep, retry_failed=True, occupied=where).attempt
        assert attempt is not None
        return attempt

    def end(self, run_id: str, attempt: int, at: float, status: str = "completed") -> None:
        self.clock.hours = at
        self.writer.end(run_id, attempt, END | {"status": status}, {}, b"")

    def give_back(self, run_id: str, attempt: int, at: float, reason: Any = "lost") -> None:
        self.clock.hours = at
        self.writer.release(run_id, attempt, reason)

    def evaluate(self, run_id: str, attempt: int, at: float) -> None:
        self.clock.hours = at
        self.writer.evaluation(run_id, attempt, {"step": int(at * 100), "epoch": 0, "rows": [], "score": 0.5})

    @property
    def state(self) -> State:
        return self.writer.refresh()

    def spent(self, now: float = 100.0, alive: bool = True) -> Spent:
        return spent(self.state, "search", now * HOUR, lambda _: alive)


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Book]:
    clock = Clock()
    monkeypatch.setattr(ledger_module, "time", clock)
    made = Book(tmp_path, clock)
    yield made
    made.writer.close()


def test_every_attempt_counts_however_it_ended(book: Book) -> None:
    for at, (run_id, status) in enumerate({"a": "completed", "b": "diverged", "c": "failed"}.items()):
        book.end(run_id, book.begin(run_id, at), at + 0.5, status)
    book.give_back("d", book.begin("d", 4), 4.25)
    book.give_back("d", book.begin("d", 5), 5.25, "memory")
    book.end("d", book.begin("d", 6), 6.5, "stopped")
    book.end("d", book.begin("d", 7), 8.0)
    assert book.spent().cores == pytest.approx(1.5 + 0.25 + 0.25 + 0.5 + 1.0)


def test_what_is_in_flight_counts_until_now_while_its_driver_lives(book: Book) -> None:
    attempt = book.begin("a", 1)
    book.evaluate("a", attempt, 2)
    assert book.spent(now=4).cores == pytest.approx(3)
    assert book.spent(now=4, alive=False).cores == pytest.approx(1)


def test_an_attempt_that_a_later_one_took_over_counts_up_to_its_last_sign(book: Book, tmp_path: Path) -> None:
    attempt = book.begin("a", 1)
    book.clock.hours = 1.5
    book.writer.checkpoint("a", attempt, 3, b"here")
    book.writer.close()  # as when the driver was killed: nobody books its run
    book.writer = Writer(tmp_path, "another")
    book.end("a", book.begin("a", 50), 51)
    assert book.spent().cores == pytest.approx(0.5 + 1)


def test_runs_that_another_sweep_trained_are_free(book: Book) -> None:
    book.end("a", book.begin("a", 0, sweep="before"), 5)
    book.writer.declare({"sweep": "search"}, [{"run": book.state.runs["a"].run, "point": {"rank": 1}}])
    attempt = book.begin("b", 6, sweep="before")
    book.end("b", attempt, 7, "stopped")
    book.end("b", book.begin("b", 8), 9)  # what the search itself adds to it is not
    assert book.spent().cores == pytest.approx(1)


def test_the_runs_of_a_trial_occupy_it_once_until_the_last_has_ended(book: Book) -> None:
    attempts = {run_id: book.begin(run_id, 0, trial="t", cores=2.0) for run_id in ("a", "b", "c")}
    for at, (run_id, attempt) in enumerate(attempts.items(), 1):
        book.end(run_id, attempt, at)
    assert book.spent().cores == pytest.approx(2 * 3)


def test_a_price_is_of_gpus_where_a_run_has_any_and_of_cores_where_it_has_none(book: Book) -> None:
    book.end("a", book.begin("a", 0, cores=4.0, gpus=0.5), 2)
    book.end("b", book.begin("b", 2, cores=3.0), 3)
    used = book.spent()
    assert (used.cores, used.gpus, used.paid) == pytest.approx((8 + 3, 1.0, 1.0 + 3.0))


def test_what_was_spent_is_the_same_after_a_restart(book: Book, tmp_path: Path) -> None:
    book.end("a", book.begin("a", 0), 1)
    book.evaluate("b", book.begin("b", 1), 2)
    before = book.spent(alive=False)
    book.writer.compact()
    book.writer.close()
    book.writer = Writer(tmp_path, "another")
    assert book.spent(alive=False) == before


LIMITS: dict[str, tuple[dict[str, float], Spent]] = {
    "2 hours": ({"hours": 2}, Spent(hours=2)),
    "2 core-hours": ({"core_hours": 2}, Spent(cores=2)),
    "2 GPU-hours": ({"gpu_hours": 2}, Spent(gpus=2)),
    "3 at 1.5 an hour": ({"cost": 3, "price": 1.5}, Spent(paid=2)),
}


@pytest.mark.parametrize("spoken", LIMITS)
def test_a_budget_is_over_when_a_limit_is_reached_and_says_which(spoken: str) -> None:
    given, used = LIMITS[spoken]
    budget = build(Budget, given, "budget")
    reached = budget.over(used)
    assert reached is not None
    assert reached.spoken == spoken
    assert budget.over(Spent(*(0.999 * each for each in used))) is None
    assert Budget(points=1).over(used) is None


def test_what_is_left_is_enough_for_so_many_runs_by_the_limit_that_comes_first() -> None:
    budget = build(Budget, {"hours": 10, "core_hours": 12, "gpu_hours": 1}, "budget")
    used, each = Spent(hours=0, cores=2), Spent(hours=1, cores=2)
    assert budget.enough_for(used, each) == 5
    assert Budget().enough_for(used, each) is None


def test_amounts_are_said_with_the_digits_that_a_person_wants() -> None:
    assert [amount(each) for each in (0.000277778, 0.25, 12.0, 123456.7)] == [
        "0.000278",
        "0.25",
        "12",
        "123,457",
    ]
