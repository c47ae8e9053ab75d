"""Deleting weights and checkpoints for their room. No row is lost: the ledger says what was given up."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analysis.store.errors import StoreError, told
from analysis.store.files import Layout
from analysis.store.ledger import Writer
from analysis.store.locks import living_drivers, locked
from analysis.store.state import State
from analysis.store.weights import checkpoint_files, weights_path


@dataclass(frozen=True)
class Prunable:
    """A file that could go, of a run that nobody trains."""

    run_id: str
    status: str
    what: Literal["weights", "checkpoint"]
    size: int  # bytes
    path: Path


def prunable(results: str | Path, state: State, kept: Collection[str], sweep: str | None) -> list[Prunable]:
    """The weights of ended runs and the checkpoints of stopped ones, but those of the runs to be kept.

    Runs that wait or are being trained, their driver dead or alive, are left alone: their checkpoints are
    what they go on from. What a prune that was interrupted has left behind is found again.
    """
    layout, found = Layout.of(results), []
    if layout.uri is not None:
        raise StoreError(f"{results}: expected a folder of this machine: of a URI the weights are not here")
    for run in state.runs_of(sweep):
        if run.ending is None or run.run_id in kept:
            continue
        files: list[tuple[Literal["weights", "checkpoint"], Path]] = [
            ("weights", weights_path(results, run.run_id)),
            *(("checkpoint", path) for path in checkpoint_files(layout, run.run_id)),
        ]
        for what, path in files:
            with told(path, "read"):
                if path.is_file():
                    found.append(Prunable(run.run_id, run.ending.status, what, path.stat().st_size, path))
    return found


def prune(writer: Writer, chosen: Iterable[Prunable]) -> None:
    """Deletes the files, each after the ledger says so, while nobody can begin a run.

    Raises:
        StoreError: a driver is at work here, which may want them.
    """
    with locked(writer.layout.lock):
        check_idle(writer.layout, writer.driver)
        for each in chosen:
            writer.prune(each.run_id, each.what)
            with told(each.path, "delete"):
                each.path.unlink(missing_ok=True)


def check_idle(layout: Layout, but: str | None = None) -> None:
    """Raises StoreError where a driver, but this one, is at work over the folder."""
    living = {name: sweep for name, sweep in living_drivers(layout.results).items() if name != but}
    if living:
        names = ", ".join(f"{name} ({sweep or 'a run by itself'})" for name, sweep in living.items())
        raise StoreError(
            f"{layout.results}: at work there is {names}; wait for its end, or end it "
            "(python -m sweeps stop SWEEP)"
        )
