"""How many runs fit."""

from __future__ import annotations

import pytest

from sweeps.placement import GIB, Machine, Needs, PlacementError, place, this_machine

LAPTOP = Machine(cores=8, gpus=0, memory=16 * GIB)
SERVER = Machine(cores=16, gpus=2, memory=64 * GIB)


@pytest.mark.parametrize(
    ("machines", "needs", "at_most", "slots"),
    [
        ([LAPTOP], Needs(), None, 8),
        ([LAPTOP], Needs(), 3, 3),
        ([LAPTOP], Needs(memory=4 * GIB), None, 3),
        ([LAPTOP], Needs(cores=3), None, 2),
        ([SERVER], Needs(gpus=1), None, 2),
        ([SERVER], Needs(gpus=2), None, 1),
        ([SERVER], Needs(gpus=0.25), None, 8),
        ([SERVER], Needs(gpus=0.1), None, 16),  # cores are what is short
        ([SERVER], Needs(gpus=0.4), None, 4),  # no run is spread over two GPUs
        ([SERVER], Needs(gpus=1, memory=100 * GIB), None, 2),  # its memory is the GPU's
        ([LAPTOP, SERVER], Needs(gpus=0.5), None, 4),
        ([LAPTOP, LAPTOP], Needs(), None, 16),
        ([LAPTOP, SERVER], Needs(), None, 8),  # the GPUs are left to others
        ([LAPTOP, SERVER], Needs(cores=12), None, 1),  # unless the others do not hold a run
    ],
)
def test_slots(machines: list[Machine], needs: Needs, at_most: int | None, slots: int) -> None:
    assert place(machines, needs, at_most).slots == slots


def test_what_fits_nowhere_is_refused_with_a_way_out() -> None:
    with pytest.raises(PlacementError, match=r"1 GPU.*--gpus-per-run"):
        place([LAPTOP], Needs(gpus=1))
    with pytest.raises(PlacementError, match=r"30\.0 GiB.*16\.0 GiB.*batch_size"):
        place([LAPTOP], Needs(memory=30 * GIB))


def test_the_reason_is_said() -> None:
    reason = place([LAPTOP], Needs(memory=4 * GIB), at_most=2).reason
    assert reason == "8 cores, 16.0 GiB; a trial takes 1 core, 4.0 GiB; at most 2 asked for"


def test_this_machine_has_a_core_and_memory() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory > 0
