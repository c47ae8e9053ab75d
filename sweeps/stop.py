"""Ending a sweep, or leaving one of its runs as it stands, from another terminal.

A request is a record of the ledger. It names the drivers that live when it is made, and they alone heed it:
the same command, called again, goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from analysis.query import checked_folder
from analysis.store import RunState, State, StoreError, Writer, living_drivers, read


def stop(results: str | Path, text: str) -> str:
    """Asks the living drivers to end a sweep, by its name, or a run, by its id or the beginning of one.

    Returns:
        What was asked of whom.

    Raises:
        StoreError: there is no such sweep or run, or nobody is at work on it.
    """
    checked_folder(results)
    state, living = read(results), living_drivers(results)
    if text in state.sweeps:
        drivers = [driver for driver, sweep in living.items() if sweep == text]
        if not drivers:
            raise StoreError(f"sweep {text!r}: nobody is at work on it in {results}; {_at_work(living)}")
        with Writer(results) as writer:
            writer.stop("sweep", text, drivers)
        return f"sweep {text} is asked to end ({_spoken(drivers)}); its command, called again, goes on"
    run = _found(state, text)
    drivers = _concerned(state, run, living)
    with Writer(results) as writer:
        writer.stop("run", run.run_id, drivers)
    return (
        f"run {run.run_id} is asked to stop where it stands ({_spoken(drivers)}); "
        "its sweep's command, called again, goes on with it"
    )


def _found(state: State, text: str) -> RunState:
    try:
        return state.find(text)
    except StoreError as error:
        known = ", ".join(sorted(state.sweeps)) or "none"
        raise StoreError(f"{text!r}: expected a sweep or a run; sweeps are {known}; {error}") from None


def _concerned(state: State, run: RunState, living: Mapping[str, str | None]) -> list[str]:
    """The drivers that train the run, or would."""
    if run.final:
        raise StoreError(f"run {run.run_id} has ended ({run.status}): there is nothing to stop")
    if run.status == "running" and run.driver in living and living[str(run.driver)] is None:
        raise StoreError(
            f"run {run.run_id} is trained by a command of its own ({run.driver}): end that with Ctrl-C"
        )
    sweeps = {name for name, sweep in state.sweeps.items() if run.run_id in sweep.points}
    drivers = [driver for driver, sweep in living.items() if sweep in sweeps]
    if not drivers:
        raise StoreError(
            f"run {run.run_id} ({run.status or 'waiting'}): nobody is at work on it; {_at_work(living)}"
        )
    return drivers


def _at_work(living: Mapping[str, str | None]) -> str:
    sweeps = sorted({sweep for sweep in living.values() if sweep is not None})
    return f"at work are {', '.join(sweeps)}" if sweeps else "no sweep is at work"


def _spoken(drivers: list[str]) -> str:
    return ("driver " if len(drivers) == 1 else "drivers ") + ", ".join(drivers)
