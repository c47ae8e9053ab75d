"""The replay over recorded curves: what it charges is what it trains, for every search."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.learning_curves import STEPS, Curve, load
from benchmarks.replay import GRACES, Ledger, Table, Workers, random_search, stock, this_project

FEW = ("training.learning_rate.heads", "features")


def few() -> Table:
    """The curves that differ on two axes."""
    first = load()[0].point
    fixed = {axis: value for axis, value in first.items() if axis not in FEW}
    return Table([curve for curve in load() if fixed.items() <= curve.point.items()])


@pytest.mark.parametrize("workers", [1, 3])
def test_the_steps_charged_are_the_steps_made(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, int] = {}
    reach = Ledger.reach

    def watched(ledger: Ledger, run_id: str, step: int) -> None:
        assert step > made.get(run_id, 0)  # no step is made again
        made[run_id] = step
        reach(ledger, run_id, step)

    monkeypatch.setattr(Ledger, "reach", watched)
    table = few()
    offers = list(this_project(table, workers, 0))
    spent = [offer.spent for offer in offers]
    assert spent == sorted(spent)
    assert spent[-1] == sum(made.values())
    assert len(made) == len(table.curves)
    assert sum(made.values()) < len(table.curves) * STEPS
    assert (offers[-1].finish, table.regret(offers[-1].point)) < (1, 0.05)


def test_what_stock_hands_over_is_charged_to_its_end() -> None:
    offers: Iterator[tuple[object, ...]] = stock(few(), GRACES[0], 1, 0)
    first = next(offers)
    assert [(offer.spent, offer.finish) for offer in first] == [(9, STEPS - 9)] * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 3])
def test_chance_hands_over_the_best_of_what_it_trained(workers: int) -> None:
    table = few()
    offers = list(random_search(table, workers, 0))
    assert all(offer.finish > 0 for offer in offers if offer.spent < workers * STEPS)
    regrets = [table.regret(offer.point) for offer in offers if offer.spent >= workers * STEPS]
    assert regrets == sorted(regrets, reverse=True)
    assert regrets[-1] == 0
    assert offers[-1].spent == len(table.curves) * STEPS


def test_workers_that_are_still_at_work_are_charged_for_what_they_did() -> None:
    floor = Workers(2)
    floor.start("long", 10)
    floor.start("short", 4)
    assert (floor.free, floor.wait(), floor.spent) == (False, "short", 8)
    floor.start("next", 9)
    assert (floor.wait(), floor.spent) == ("long", 20)


def test_a_curve_that_diverged_comes_to_nothing() -> None:
    sound, broken = load()[:2]
    table = Table([sound, Curve(broken.point, {9: 0.9}, "diverged")])
    assert (table.worst, table.best) == (0.0, sound.scores[STEPS])
