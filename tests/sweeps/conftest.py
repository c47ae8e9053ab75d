"""Sweeps as their users start them: a process with a home and a Ray folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from analysis.store import State, read
from tests.sweeps.direct import Desk

ROOT = Path(__file__).resolve().parents[2]
# a shell's background job ignores Ctrl-C, and so would every process that the tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
PATIENCE = 600.0
"""Seconds after which something that must happen has not happened."""


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """The condition's value, once it is true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"did not happen in {PATIENCE:.0f} s: {what}")


@dataclass
class Started:
    """A sweep's command that is running, or has ended."""

    process: subprocess.Popen[str]
    log: Path

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")


@dataclass
class Workplace:
    """A results folder, and the way to start sweeps over it."""

    folder: Path
    environment: dict[str, str]
    started: list[Started]
    wrapper: Sequence[str] = ()
    """What each command is started by way of."""

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @contextmanager
    def held(self) -> Iterator[str]:
        """A file to start sweeps with as their `hold`: they make no step until the end."""
        hold = self.folder / "hold"
        hold.touch()
        yield str(hold)
        hold.unlink(missing_ok=True)

    def start(self, *command: str, **changes: Any) -> Started:
        """A fake sweep with these changes, or any command of Python's."""
        witness = str(self.folder / "witness")
        given = json.dumps({"address": "local", "witness": witness, **changes})
        what = command or ("-m", "tests.sweeps.fake", str(self.results), given)
        log = self.folder / f"log{len(self.started)}"
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [*self.wrapper, sys.executable, *what],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
                text=True,
            )
        self.started.append(Started(process, log))
        return self.started[-1]

    def run(self, *command: str, **changes: Any) -> Started:
        """As `start`, to its end."""
        started = self.start(*command, **changes)
        started.wait()
        return started

    def state(self) -> State:
        return read(self.results)

    def ended(self) -> set[str]:
        return {run_id for run_id, run in self.state().runs.items() if run.final}

    def drivers(self) -> set[str]:
        """Who has begun runs."""
        return {begin.driver for run in self.state().runs.values() for begin in run.begins.values()}

    def witnessed(self) -> list[tuple[str, str, int, int]]:
        """What workers did, in order: admit or step, run, step, process."""
        file = self.folder / "witness"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        parts = [line.split() for line in lines]
        return [(part[0], part[1], int(part[2]), int(part[3])) for part in parts if len(part) == 5]

    def repeated(self) -> Counter[str]:
        """Steps that a run made more than once, by run."""
        steps = Counter((run_id, step) for kind, run_id, step, _ in self.witnessed() if kind == "step")
        extra: Counter[str] = Counter()
        for (run_id, _), count in steps.items():
            extra[run_id] += count - 1
        return +extra

    def endings(self) -> Counter[str]:
        """How many endings of each run were written, by whomever."""
        found: Counter[str] = Counter()
        for segment in (self.results / "ledger" / "segments").iterdir():
            for line in segment.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                found[record.get("run_id", "")] += 1 if record["kind"] == "end" else 0
        return +found


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its sockets: their names may only be 107 characters long."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _workplace(folder: Path, ray_folder: Path) -> Iterator[Workplace]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {
        "HOME": str(folder),
        "RAY_TMPDIR": str(ray_folder),
        "PYTHONPATH": str(ROOT),
    }
    place = Workplace(folder, environment, [])
    yield place
    for started in place.started:
        if started.process.poll() is None:
            started.kill()


@pytest.fixture
def workplace(tmp_path: Path, ray_folder: Path) -> Iterator[Workplace]:
    yield from _workplace(tmp_path, ray_folder)


@pytest.fixture(scope="module")
def shared_workplace(tmp_path_factory: pytest.TempPathFactory, ray_folder: Path) -> Iterator[Workplace]:
    yield from _workplace(tmp_path_factory.mktemp("shared"), ray_folder)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A keeper without Ray."""
    monkeypatch.setattr(ray, "get", lambda value, **_: value)
    made = Desk(tmp_path)
    yield made
    made.keeper.close()
