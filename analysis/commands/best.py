"""The best configurations of a sweep."""

from __future__ import annotations

import argparse

from rich.console import Group, RenderableType
from rich.text import Text

from analysis.commands.common import Answer, Commands, add_answer, add_metric, count, opened
from analysis.constraints import ranked_within
from analysis.leader import leader_of
from analysis.outcomes import in_words
from analysis.ranking_show import ranking_rows, ranking_table


def add(commands: Commands) -> None:
    parser = add_answer(commands, "best", best, "configurations by their mean over seeds, best first")
    add_metric(parser)
    parser.add_argument("--lowest-first", action="store_true", help="the smallest value is the best")
    parser.add_argument("--limit", type=count, metavar="N", help="the first N")


def best(arguments: argparse.Namespace) -> Answer:
    sources = opened(arguments)
    state = sources.state
    rows = ranked_within(state, arguments.sweep, arguments.by, arguments.lowest_first)
    found = leader_of(rows, arguments.lowest_first)
    shown = rows[: arguments.limit]

    def answer() -> RenderableType:
        judged = found is not None and not arguments.lowest_first  # no metric of predictions is better if low
        said = in_words(sources, found) if found is not None and judged else []
        return Group(ranking_table(shown, leader=found), *map(Text, said))

    return ranking_rows(shown, found), answer
