"""How large a pack gets on devices that are made up."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from mtbert.run import Run
from sweeps.packing import FIRST, Seen, Sharing, growth, kin, size
from tests.mtbert import toys

GIB = 2**30
JOINT = {"schedule": {"kind": "joint"}}


def grown(peak: Callable[[int], float], speed: Callable[[int], float], limit: float = 80 * GIB) -> list[int]:
    """The sizes that a pack has one after the other, each seen three times, until it stays as it is."""
    seen: list[Seen] = []
    sizes = [size(after(seen))]
    while len(sizes) < 20 and (len(sizes) < 2 or sizes[-1] != sizes[-2]):
        seen += [Seen(sizes[-1], peak(sizes[-1]), 0.0, limit, speed(sizes[-1]))] * 3
        sizes.append(size(after(seen)))
    return sizes[:-1]


def after(turns: list[Seen]) -> list[Seen]:
    """What is kept of such turns."""
    return functools.reduce(growth, turns, [])


def test_a_pack_doubles_while_more_members_bring_more() -> None:
    sizes = grown(lambda count: GIB * (0.5 + 0.1 * count), lambda count: min(500.0, 30.0 * count))
    assert sizes == [FIRST, 8, 16, 32]  # 480 steps a second with 16, 500 with 32: 4% is not worth doubling


def test_it_never_asks_for_more_than_there_is() -> None:
    def peak(count: int) -> float:
        return GIB * (6.0 + 0.9 * count)

    sizes = grown(peak, lambda count: 10.0 * count, limit=40 * GIB)
    assert sizes[-1] == 31
    assert peak(31) <= 0.85 * 40 * GIB < peak(32)


def test_where_not_even_the_first_fit_it_shrinks() -> None:
    assert size([Seen(4, 9.0 * GIB, 0.0, 10.0 * GIB, 1.0)]) < 4
    assert size([Seen(1, 12.0 * GIB, 0.0, 10.0 * GIB, 1.0)]) == 1


def test_what_a_pack_shows_as_it_gets_smaller_again_changes_nothing() -> None:
    seen = [Seen(4, 1.0 * GIB, 0.0, 8.0 * GIB, 40.0), Seen(8, 2.0 * GIB, 0.0, 8.0 * GIB, 80.0)]
    assert after([*seen, Seen(5, 2.0 * GIB, 0.0, 8.0 * GIB, 1.0)]) == seen
    assert size(seen) == 16


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"low_rank": toys.lora(rank=1), "training": {"steps": 50}}, True),
        ({"low_rank": toys.lora(targets=["key"])}, False),
        ({"low_rank": {"kind": "dora"}}, False),
        ({"low_rank": toys.lora(), "precision": "float32"}, False),
        ({"low_rank": toys.lora(), "weighting": {"kind": "gradient_surgery"}, "training": JOINT}, False),
        ({}, False),
    ],
)
def test_kin_share_a_pass_and_a_bank(other: dict[str, object], same: bool) -> None:
    def of(changes: dict[str, object]) -> Run:
        return toys.run(0, **changes)

    assert (kin(of({"low_rank": toys.lora()})) == kin(of(other))) is same


def turn(peak: float, used: float, limit: float = 16.0) -> Seen:
    return Seen(1, peak * GIB, used * GIB, limit * GIB, 1.0)


def test_a_gpu_is_shared_by_as_many_trials_as_the_first_shows_that_fit() -> None:
    sharing = Sharing()
    assert (sharing.trials, sharing.part) == (1, 1.0)
    sharing.see(turn(peak=1.5, used=2.1), by_itself=True)
    assert sharing.trials == 6  # 6 times 2.1 GiB is 12.6, 7 times 14.7; 85% of 16 is 13.6
    assert sharing.spoken == "6 trials share a GPU from now on: by itself, one took 2.1 of its 16.0 GiB"
    assert sharing.part == 0.1666
    sharing.see(turn(peak=1.5, used=12.0), by_itself=False)
    assert sharing.trials == 6, "what others take is not a trial's own"


def test_a_larger_trial_lets_fewer_share_from_then_on() -> None:
    sharing = Sharing()
    sharing.see(turn(peak=1.5, used=2.0), by_itself=True)
    sharing.see(turn(peak=3.0, used=9.0), by_itself=False)
    assert sharing.trials == 3  # of 4 GiB
    sharing.see(turn(peak=1.0, used=2.0), by_itself=False)
    assert sharing.trials == 3


def test_of_different_gpus_the_smallest_counts_and_of_trials_the_one_that_takes_most() -> None:
    sharing = Sharing()
    sharing.see(turn(peak=1.5, used=2.0, limit=80.0), by_itself=True)
    assert sharing.trials == 34
    sharing.see(turn(peak=1.5, used=2.0), by_itself=False)
    assert sharing.trials == 6
    sharing.see(turn(peak=1.5, used=2.5, limit=80.0), by_itself=True)
    assert sharing.trials == 5


def test_where_memory_runs_out_one_fewer_shares() -> None:
    sharing = Sharing()
    sharing.short()  # of a trial that had a GPU by itself
    sharing.see(turn(peak=1.5, used=5.0), by_itself=True)
    assert sharing.trials == 2
    sharing.short()
    assert sharing.trials == 1
    sharing.short()
    assert (sharing.trials, sharing.part) == (1, 1.0)
