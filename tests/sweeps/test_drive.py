"""What Tune is told by the driver's loop, without Ray."""

from __future__ import annotations

from types import SimpleNamespace

from ray.tune.experiment import Trial

from sweeps.drive import InOrder


def test_trials_begin_in_their_order() -> None:
    states = {"t3": Trial.PENDING, "t2": Trial.PENDING, "t1": Trial.RUNNING}
    live = [SimpleNamespace(trial_id=name, status=status) for name, status in states.items()]
    order = InOrder()  # type: ignore[no-untyped-call]  # Tune's
    assert order.choose_trial_to_run(SimpleNamespace(get_live_trials=lambda: live)) is live[1]
    assert order.choose_trial_to_run(SimpleNamespace(get_live_trials=lambda: live[2:])) is None
