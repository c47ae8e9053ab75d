"""What a sweep says of itself while it runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.store import State, Writer
from sweeps import progress as module
from sweeps.plan import failed_record, outlook
from sweeps.progress import Progress, spoken_seconds

RUNS = ("a-0", "b-0", "c-0")
TARGETS = dict.fromkeys(RUNS, 100)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path, "driver")


class Shown:
    """A progress, and what it has printed."""

    def __init__(self, live: bool = False) -> None:
        self.file = io.StringIO()
        console = Console(file=self.file, width=150, force_terminal=live)
        labels = {run_id: f"run {run_id}" for run_id in RUNS}
        self.progress = Progress(console, labels, TARGETS, slots=2, seconds_per_step=0.5, live=live)

    def look(self, state: State, *in_flight: str) -> None:
        self.progress.look(state, outlook(TARGETS, state, in_flight, lambda _: False))

    @property
    def text(self) -> str:
        return self.file.getvalue()


def end(writer: Writer, run_id: str, **changes: Any) -> None:
    record = {
        "run_id": run_id,
        "config_id": run_id[0],
        "seed": 0,
        "data": "d",
        "model": "m",
        "configuration": {},
    }
    attempt = writer.begin(record).attempt
    assert attempt is not None
    ending = failed_record("", "", "", 100) | {"status": "completed", "error": None} | changes
    writer.end(run_id, attempt, ending, {}, b"")


def test_endings_are_said_with_their_score_and_the_best_so_far(clock: Clock, writer: Writer) -> None:
    shown = Shown()
    end(writer, "a-0", score=0.5)
    shown.look(writer.refresh())
    assert shown.text == "", "what had ended before is not said"
    clock.now += 61
    end(writer, "b-0", score=0.75)
    error = {"kind": "error", "message": "RuntimeError: a bug\nand more", "traceback": ""}
    end(writer, "c-0", status="failed", error=error)
    shown.look(writer.refresh())
    assert shown.text.splitlines() == [
        "0:01:01  run b-0: completed, score 0.7500  [2/3]",
        "0:01:01  run c-0: failed (RuntimeError: a bug)  [3/3]",
    ]
    assert "3 of 3 runs ended, best so far: 0.7500 (run b-0)" in shown.progress.line()


def test_running_runs_are_said_with_how_far_they_are_and_the_time_left(clock: Clock, writer: Writer) -> None:
    shown = Shown()
    shown.look(writer.refresh())
    assert "about 75 s left" in shown.progress.line()  # 300 steps of 0.5 s by two, from the first guess
    for run_id in RUNS[:2]:
        shown.progress.heard(run_id, 0, None, "begun")
        shown.progress.heard(run_id, 0, None, "running")
    clock.now += 10
    for run_id in RUNS[:2]:
        shown.progress.heard(run_id, 10, 0.4, "running")
    shown.look(writer.refresh(), *RUNS[:2])
    line = shown.progress.line()
    assert "running: run a-0 10/100; run b-0 10/100" in line
    assert "about 2 min left" in line  # 280 steps left, 1 s each, by two
    assert shown.progress.seconds_left() == pytest.approx(140)


def test_a_plain_log_has_a_line_now_and_then(clock: Clock, writer: Writer) -> None:
    shown = Shown()
    shown.look(writer.refresh())
    for _ in range(600):
        clock.now += 0.1
        shown.progress.tick()
    assert 3 <= len(shown.text.splitlines()) <= 4


def test_a_terminal_has_a_live_picture(clock: Clock, writer: Writer) -> None:
    shown = Shown(live=True)
    shown.look(writer.refresh())
    shown.progress.heard("a-0", 0, None, "begun")
    shown.progress.heard("a-0", 30, 0.4321, "running")
    with shown.progress:
        clock.now += 1
        shown.progress.tick()
    assert "run a-0" in shown.text
    assert "30/100" in shown.text
    assert "score 0.4321" in shown.text


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("lost", "goes on from its last checkpoint"),
        ("memory", "alone at the end"),
        ("superseded", "another driver"),
    ],
)
def test_what_happened_to_a_run_is_said(status: str, said: str, clock: Clock) -> None:
    shown = Shown()
    clock.now += 5
    shown.progress.heard("a-0", 0, None, "begun")
    shown.progress.heard("a-0", 0, None, status)
    assert said in shown.text
    assert "none yet" in shown.progress.line()


def test_a_large_sweep_does_not_say_each_ending(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(module, "LINES", 2)
    shown = Shown()
    shown.look(writer.refresh())
    clock.now += 1
    end(writer, "a-0")
    shown.look(writer.refresh())
    assert shown.text == ""


@pytest.mark.parametrize(("seconds", "said"), [(5, "5 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_in_words(seconds: float, said: str) -> None:
    assert spoken_seconds(seconds) == said
