"""Which axes of a sweep matter."""

from __future__ import annotations

import argparse

from analysis.commands.common import Answer, Commands, add_answer, add_metric, opened
from analysis.importance import importances
from analysis.importance_show import importance_rows, importance_table
from analysis.store.errors import StoreError


def add(commands: Commands) -> None:
    parser = add_answer(
        commands, "importance", importance, "how much hangs on each axis of a search or a grid"
    )
    add_metric(parser)
    parser.add_argument("--lowest-first", action="store_true", help="the smallest value is the best")


def importance(arguments: argparse.Namespace) -> Answer:
    state = opened(arguments).state
    if arguments.sweep is None:
        raise StoreError(f"--sweep: expected one of {', '.join(sorted(state.sweeps))}, got none")
    found = importances(state, arguments.sweep, arguments.by, arguments.lowest_first)
    return importance_rows(found), lambda: importance_table(found)
