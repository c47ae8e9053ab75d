"""What a sweep came to: the configuration that it calls the best, by its own selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.ranking import objective, ranked
from analysis.store import State, StoreError
from analysis.store.files import Layout
from mtbert.configuration import Configuration, parse
from mtbert.inputs import Inputs, parse_inputs, read_file
from mtbert.schema import plain


@dataclass(frozen=True)
class Winner:
    """The best configuration of a sweep, and what its runs were fed.

    Attributes:
        objective: what the sweep is judged by.
        open: runs of the sweep that are still to end, so that another may win.
    """

    configuration: Configuration
    inputs: Inputs
    objective: str
    open: int

    def over(self, given: Mapping[str, Any]) -> Inputs:
        """Its inputs with others laid over."""
        return parse_inputs({**vars(self.inputs), **given})


def winner_file(results: str | Path, sweep: str) -> Path:
    """Where a search writes its winner."""
    return Layout.of(results).results / "searches" / f"{sweep}.yaml"


def winner(results: str | Path, state: State, sweep: str) -> Winner:
    """The winner: the one that a search has written, or the best by the mean over seeds.

    Raises:
        StoreError: no such sweep, or one that has come to nothing yet.
    """
    declared = state.sweep(sweep)
    runs = state.runs_of(sweep)
    waiting = sum(not run.final and run.status != "stopped" for run in runs)
    by = objective(state, sweep)
    if declared.kind == "search":
        configuration, inputs = _of_search(winner_file(results, sweep), state, sweep)
        return Winner(configuration, inputs, by, waiting)
    best = ranked(state, sweep)[0]
    if not best.run_ids:
        raise StoreError(f"sweep {sweep!r}: none of its runs has a {by}; there is no winner")
    record = state.runs[best.run_ids[0]].run
    return Winner(parse(record["configuration"]), parse_inputs(record.get("inputs", {})), by, waiting)


def _of_search(path: Path, state: State, sweep: str) -> tuple[Configuration, Inputs]:
    """A search chooses among its finalists and by its constraints; what it chose it has written."""
    again = "the search's own command, called again, chooses one and writes it"
    if not path.is_file():
        raise StoreError(f"search {sweep!r}: no winner at {path}; {again}")
    inputs, fields = read_file(path)
    configuration = parse(fields)
    tried = (run.run["configuration"] for run in state.runs.values() if run.status == "completed")
    if plain(configuration) not in tried:  # whoever trained it: a search may choose what it found
        raise StoreError(f"search {sweep!r}: no completed run has the configuration in {path}; {again}")
    return configuration, parse_inputs(inputs)
