"""What the fields of the configurations did."""

from __future__ import annotations

import argparse

from analysis.commands.common import Answer, Commands, add_answer, add_metric, opened
from analysis.effects import effects_of
from analysis.effects_show import effects_rows, effects_table


def add(commands: Commands) -> None:
    parser = add_answer(
        commands, "compare", compare, "what differs, and what it did, with intervals, paired by seeds"
    )
    parser.add_argument("configurations", nargs="*", metavar="ID", help="configurations; all for none")
    add_metric(parser)


def compare(arguments: argparse.Namespace) -> Answer:
    state = opened(arguments).state
    found = effects_of(state, arguments.sweep, arguments.by, arguments.configurations)
    return effects_rows(found), lambda: effects_table(found)
