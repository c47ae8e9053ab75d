"""Any SQL over the tables."""

from __future__ import annotations

import argparse

from analysis.commands.common import Answer, Commands, add_answer
from analysis.query import query
from analysis.show import plain_table


def add(commands: Commands) -> None:
    summary = "SQL (DuckDB) over runs, sweeps, evaluations, predictions and examples"
    parser = add_answer(commands, "sql", sql, summary)
    parser.add_argument("statement", metavar="SQL", help="e.g. 'select run_id, \"low_rank.rank\" from runs'")


def sql(arguments: argparse.Namespace) -> Answer:
    table = query(arguments.results, arguments.statement, arguments.sweep)
    return table, lambda: plain_table(table)
