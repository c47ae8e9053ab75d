"""The best configurations of a sweep."""

from __future__ import annotations

import argparse

from analysis.commands.common import Answer, Commands, add_answer, add_metric, count, opened
from analysis.leader import leader_of
from analysis.ranking import ranked
from analysis.ranking_show import ranking_rows, ranking_table


def add(commands: Commands) -> None:
    parser = add_answer(commands, "best", best, "configurations by their mean over seeds, best first")
    add_metric(parser)
    parser.add_argument("--lowest-first", action="store_true", help="the smallest value is the best")
    parser.add_argument("--limit", type=count, metavar="N", help="the first N")


def best(arguments: argparse.Namespace) -> Answer:
    state = opened(arguments).state
    rows = ranked(state, arguments.sweep, arguments.by, arguments.lowest_first)
    found = leader_of(rows, arguments.lowest_first)
    shown = rows[: arguments.limit]
    return ranking_rows(shown, found), lambda: ranking_table(shown, leader=found)
