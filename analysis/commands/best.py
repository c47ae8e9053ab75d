"""The best configurations of a sweep."""

from __future__ import annotations

import argparse

from analysis.commands.common import Answer, Commands, add_answer, add_metric, count, opened
from analysis.ranking import ranked
from analysis.show import ranking_rows, ranking_table


def add(commands: Commands) -> None:
    parser = add_answer(commands, "best", best, "configurations by their mean over seeds, best first")
    add_metric(parser)
    parser.add_argument("--lowest-first", action="store_true", help="the smallest value is the best")
    parser.add_argument("--limit", type=count, metavar="N", help="the first N")


def best(arguments: argparse.Namespace) -> Answer:
    state = opened(arguments).state
    rows = ranked(state, arguments.sweep, arguments.by, arguments.lowest_first)[: arguments.limit]
    title = f"{rows[0].by}: mean ± standard deviation over seeds" if rows else None
    return ranking_rows(rows), lambda: ranking_table(rows, title=title)
