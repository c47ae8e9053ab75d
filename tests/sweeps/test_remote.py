"""A sweep whose results are at a URI: followed from elsewhere, killed, gone on with, on a real local Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.store import read, remote
from tests.conftest import S3_KEYS
from tests.sweeps.conftest import Workplace, eventually

GRID = {"ranks": [1, 2, 3], "seeds": 2, "steps": 30, "every": 5, "address": "local"}


@pytest.mark.slow
def test_a_sweep_is_seen_from_elsewhere_and_loses_nothing_to_a_kill(
    s3: Callable[[], str], workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = s3()
    for name, value in S3_KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "laptop"))
    monkeypatch.setattr(remote, "PULL_SECONDS", 0.5)
    workplace.environment |= {**S3_KEYS, "XDG_CACHE_HOME": str(tmp_path / "head")}

    def command(seconds_per_step: float) -> tuple[str, ...]:
        given = {**GRID, "witness": str(tmp_path / "witness"), "seconds_per_step": seconds_per_step}
        return "-m", "tests.sweeps.fake", uri, json.dumps(given)

    first = workplace.start(*command(0.5))
    eventually(
        lambda: any(run.checkpoint_step for run in read(uri).runs.values()),
        "a checkpoint is seen from elsewhere",
    )
    first.kill()
    second = workplace.run(*command(0.01))
    assert second.process.returncode == 0, second.output
    assert f"Results: {uri}" in second.output
    runs = read(uri).runs.values()
    assert {run.status for run in runs} == {"completed"}
    assert len(runs) == 6
    assert any(run.attempt == 2 for run in runs), "nothing went on"
