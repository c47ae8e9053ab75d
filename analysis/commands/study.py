"""A sweep as a study of Optuna."""

from __future__ import annotations

import argparse

import pyarrow as pa

from analysis.commands.common import Answer, Commands, add_answer, opened
from analysis.show import plain_table
from analysis.store.errors import StoreError
from analysis.study import store_study


def add(commands: Commands) -> None:
    parser = add_answer(commands, "study", study, "writes a sweep as a study that optuna-dashboard opens")
    parser.add_argument("--storage", required=True, metavar="URL", help="e.g. sqlite:///study.db")


def study(arguments: argparse.Namespace) -> Answer:
    state = opened(arguments).state
    if arguments.sweep is None:
        raise StoreError(f"--sweep: expected one of {', '.join(sorted(state.sweeps))}, got none")
    counts = store_study(arguments.results, state, arguments.sweep, arguments.storage)
    table = pa.table({"state": list(counts), "trials": list(counts.values())})
    return table, lambda: plain_table(table)
