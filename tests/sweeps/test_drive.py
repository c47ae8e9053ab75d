"""What Tune is told by the driver's loop, without Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.tune.experiment import Trial

from sweeps.drive import KILLED, InOrder, end_of


def test_trials_begin_in_their_order() -> None:
    states = {"t3": Trial.PENDING, "t2": Trial.PENDING, "t1": Trial.RUNNING}
    live = [SimpleNamespace(trial_id=name, status=status) for name, status in states.items()]
    order = InOrder()  # type: ignore[no-untyped-call]  # Tune's
    assert order.choose_trial_to_run(SimpleNamespace(get_live_trials=lambda: live)) is live[1]
    assert order.choose_trial_to_run(SimpleNamespace(get_live_trials=lambda: live[2:])) is None


OF_MEMORY = ray.exceptions.OutOfMemoryError("2 worker(s) were killed due to the node running low on memory.")
DIED = ray.exceptions.ActorDiedError()  # type: ignore[no-untyped-call]  # Ray's
NEVER_UP = ray.exceptions.RayActorError(error_msg="an error raised in its creation task, no torch")  # type: ignore[no-untyped-call]
UNKNOWN = ray.exceptions.NodeDiedError("the node is gone")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("error", "said", "reason"),
    [
        (DIED, "The actor died unexpectedly before finishing this task.", "lost"),
        (NEVER_UP, "no torch", "released"),
        (OF_MEMORY, KILLED, "memory"),
        (UNKNOWN, "the node is gone", "released"),
    ],
)
def test_why_a_trial_ended_is_known_whatever_tune_keeps_of_it(
    error: Any, said: str, reason: str, tmp_path: Path
) -> None:
    trial = Trial("Pack", stub=True, storage=SimpleNamespace(trial_driver_staging_path=str(tmp_path)))  # type: ignore[arg-type]
    trial.handle_error(error)
    text, why = end_of(trial)
    assert said in text
    assert why == reason
