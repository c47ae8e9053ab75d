"""The benchmarks' trainers can do what a trial asks of one."""

from __future__ import annotations

import pytest

from benchmarks.fake import IdleTrainer, WatchedTrainer
from sweeps.trainable import Trainer


@pytest.mark.parametrize("kind", [IdleTrainer, WatchedTrainer])
def test_nothing_of_the_protocol_is_missing(kind: type) -> None:
    asked = [name for name in vars(Trainer) if not name.startswith("_")]
    assert "advance" in asked
    assert not [name for name in asked if not hasattr(kind, name)]
