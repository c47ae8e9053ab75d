"""What the fields of the configurations did."""

from __future__ import annotations

import argparse

from analysis.commands.common import Answer, Commands, add_answer, add_metric, opened
from analysis.compare import compared
from analysis.show import effects_rows, effects_table


def add(commands: Commands) -> None:
    parser = add_answer(commands, "compare", compare, "what differs, and what it did, paired by seeds")
    parser.add_argument("configurations", nargs="*", metavar="ID", help="configurations; all for none")
    add_metric(parser)


def compare(arguments: argparse.Namespace) -> Answer:
    state = opened(arguments).state
    effects = compared(state, arguments.sweep, arguments.by, arguments.configurations)
    title = "mean ± standard deviation; difference: paired by seed, all other fields equal"
    title = title if effects else "nothing differs between the completed runs"
    return effects_rows(effects), lambda: effects_table(effects, title=title)
