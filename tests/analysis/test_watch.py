"""Looking on: what a running sweep is doing, for a terminal and for a log, without a trace in its folder."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from analysis.show import as_text
from analysis.store import Writer, read
from analysis.store.locks import Sighting
from analysis.watch import SILENCE, Watched, drivers_at_work, picture, watched
from tests.analysis.ledgers import ending, evaluation, run_json, train

ROOT = Path(__file__).parents[2]


def lora(rank: int, seed: int = 0, **training: Any) -> dict[str, Any]:
    length = training or {"steps": 100}
    return run_json(f"c{rank}", seed, low_rank={"kind": "lora", "rank": rank}, training=length)


def begun(writer: Writer, run: dict[str, Any], *steps: int) -> int:
    attempt = writer.begin(run, "ranks").attempt
    assert attempt is not None
    for step in steps:
        writer.evaluation(run["run_id"], attempt, evaluation(step, 0.5 + step / 1000))
    return attempt


@pytest.fixture
def sweep(results: Path) -> Iterator[Writer]:
    """A grid of four at work: one run completed, one in flight, one diverged, one waits."""
    with Writer(results, "busy", "ranks") as writer:
        points = [{"run": lora(rank), "point": {}} for rank in (1, 2, 4, 8)]
        writer.declare({"sweep": "ranks", "kind": "grid", "objective": "score"}, points)
        train(writer, lora(1), ending(score=0.7), "ranks")
        train(writer, lora(2), ending("diverged", score=None), "ranks")
        begun(writer, lora(4), 25, 50)
        yield writer


def seen(writer: Writer, now: float, sweep: str | None = "ranks") -> Watched:
    return watched(writer.refresh(), sweep, None, ["busy"], ["busy"], now)


def test_it_shows_what_is_in_flight_what_ended_and_the_ranking(sweep: Writer) -> None:
    found = seen(sweep, 0.0)
    assert found.counts == {"completed": 1, "diverged": 1, "running": 1, "waiting": 1}
    (flight,) = found.flights
    assert (flight.label, flight.step, flight.whole, flight.score) == ("rank 4, seed 0", 50, 100, 0.55)
    assert found.ranking is not None
    assert [row.config_id for row in found.ranking] == ["c1", "c2"]
    lines = as_text(picture(found, 0.0, bars=False), 100).splitlines()
    assert lines[0].startswith(
        "sweep ranks (grid): 1 completed, 1 diverged, 1 running, 1 waiting, time left: "
    )
    assert lines[1] == "rank 4, seed 0  50/100  score 0.5500"
    assert lines[2].startswith("score: mean ± ")
    assert [line.split()[:2] for line in lines if line.startswith("1 ")] == [["1", "0.7000"]]
    assert "and 1 more (--limit)" in as_text(picture(found, 0.0, rows=1, bars=False), 100)


def test_the_time_left_is_the_rest_of_the_runs_at_the_pace_so_far(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run and a half in 30 s: two and a half are left of four, and they take 50 s."""
    monkeypatch.setattr("time.time", lambda: 1000.0)
    with Writer(results, "busy", "ranks") as writer:
        points = [{"run": lora(rank), "point": {}} for rank in (1, 2, 4, 8)]
        writer.declare({"sweep": "ranks", "kind": "grid"}, points)
        assert seen(writer, 1010.0).left is None
        train(writer, lora(1), ending(), "ranks")
        begun(writer, lora(2), 50)
        assert seen(writer, 1030.0).left == pytest.approx(50.0)
        monkeypatch.setattr("time.time", lambda: 1001.0)
        writer.declare({"sweep": "ranks", "kind": "search"}, points)
        assert seen(writer, 1030.0).left is None


def test_a_run_counted_in_epochs_is_as_long_as_one_that_has_ended(sweep: Writer) -> None:
    begun(sweep, lora(16, epochs=3), 30)
    assert [flight.whole for flight in seen(sweep, 0.0).flights] == [100, None]
    train(sweep, lora(16, seed=1, epochs=3), ending(step=120), "ranks")
    assert [flight.whole for flight in seen(sweep, 0.0).flights] == [100, 120]


def test_before_anything_has_ended_it_says_so(results: Path) -> None:
    with Writer(results, "busy", "ranks") as writer:
        begun(writer, lora(1), 10)
        found = watched(writer.refresh(), None, None, ["busy"], ["busy"], 0.0)
        assert found.ranking is None
        assert "no run has ended yet" in as_text(picture(found, 0.0), 200)


@contextmanager
def watching(
    *arguments: object, output: int | IO[bytes] = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "analysis", "watch", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(
        command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, env=environment
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def heads(output: IO[bytes]) -> Iterator[str]:
    """The first line of each snapshot, without the time of day."""
    for line in output:
        text = line.decode()
        if "sweep ranks" in text or "all runs" in text:
            yield text.split("  ", 1)[1].split(", time left")[0].strip()


def test_a_log_gets_a_snapshot_for_each_change_until_the_sweep_has_ended(results: Path) -> None:
    with Writer(results, "busy", "ranks") as writer:
        points = [{"run": lora(rank), "point": {}} for rank in (1, 2)]
        writer.declare({"sweep": "ranks", "kind": "grid"}, points)
        train(writer, lora(1), ending(score=0.7), "ranks")
        with watching(results, "--sweep", "ranks") as running:
            assert running.stdout is not None
            lines = heads(running.stdout)
            assert next(lines) == "sweep ranks (grid): 1 completed, 1 waiting"
            attempt = begun(writer, lora(2))
            assert next(lines) == "sweep ranks (grid): 1 completed, 1 running"
            writer.end("c2-0", attempt, ending(score=0.8), {}, b"")
            assert next(lines) == "sweep ranks (grid): 2 completed"
            writer.close()
            assert next(lines) == "sweep ranks (grid): 2 completed, nobody is at work on it"
            assert running.wait(timeout=60) == 0


def test_a_finished_sweep_is_shown_once_and_its_folder_is_left_as_it_was(
    sweep: Writer, results: Path
) -> None:
    sweep.close()

    def listing() -> list[tuple[str, int, int]]:
        paths = sorted(results.rglob("*"))
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths]

    before = listing()
    with watching(results) as running:
        output, error = running.communicate(timeout=60)
    assert (running.returncode, error) == (0, b"")
    assert output.decode().count("all runs: 1 completed, 1 diverged, 1 interrupted, 1 waiting") == 1
    assert "its command, called again, goes on" in " ".join(output.decode().split())
    assert listing() == before


def test_a_terminal_gets_a_picture_that_moves_and_ctrl_c_ends_it(sweep: Writer, results: Path) -> None:
    primary, secondary = pty.openpty()
    with watching(results, output=secondary) as running:
        os.close(secondary)
        shown = b""
        while b"0.5500" not in shown:
            shown += os.read(primary, 4096)
        sweep.evaluation("c4-0", 1, evaluation(75, 0.625))
        while b"score 0.6250" not in shown:
            shown += os.read(primary, 4096)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 0
        assert running.stderr is not None
        assert running.stderr.read() == b""
        os.set_blocking(primary, False)
        shown += os.read(primary, 65536)
    os.close(primary)
    assert "━" in shown.decode(errors="replace")
    assert shown.rstrip().endswith(b"\x1b[?25h")  # the cursor is there again
    assert read(results).runs["c4-0"].status == "running"


def test_a_driver_of_another_machine_is_at_work_while_its_lock_file_lies_there(
    sweep: Writer, results: Path
) -> None:
    sweep.close()
    lock = results / "ledger/drivers/far.lock"
    who = {"driver": "far", "sweep": "ranks", "host": "elsewhere", "pid": 1, "time": time.time()}
    lock.write_text(json.dumps(who))
    with watching(results, "--sweep", "ranks") as running:
        assert running.stdout is not None
        lines = heads(running.stdout)
        assert next(lines) == "sweep ranks (grid): 1 completed, 1 diverged, 1 interrupted, 1 waiting"
        lock.unlink()
        assert "nobody is at work on it" in next(lines)
        assert running.wait(timeout=60) == 0


def test_a_driver_of_another_machine_that_is_silent_is_dead(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Writer(results, "far", "ranks") as writer, monkeypatch.context() as then:
        then.setattr("time.time", lambda: 500.0)
        begun(writer, lora(1), 10)
        state = writer.refresh()
    far, near = Sighting("ranks", here=False, since=100.0), Sighting(None, here=True, since=100.0)
    sighted = {"far": far, "near": near}
    assert drivers_at_work(sighted, state, 500.0 + SILENCE - 1) == {"far": "ranks", "near": None}
    assert drivers_at_work(sighted, state, 500.0 + SILENCE) == {"near": None}


@pytest.mark.usefixtures("sweep")
def test_wrong_words_are_told(results: Path) -> None:
    for arguments, message in (
        ((results, "--sweep", "x"), b"no sweep 'x' in these results; known are ranks"),
        (("nowhere",), b"nowhere: no such folder"),
    ):
        with watching(*arguments) as running:
            output, error = running.communicate(timeout=60)
        assert (running.returncode, output) == (2, b"")
        assert message in error
