"""Results folders in one."""

from __future__ import annotations

import argparse

from analysis.commands.common import Commands, add_command, say
from analysis.query import checked_folder
from analysis.store import Writer
from analysis.store.union import unite


def add(commands: Commands) -> None:
    parser = add_command(commands, "merge", merge, "takes other results folders into this one")
    parser.add_argument("others", nargs="+", metavar="OTHER", help="stays as it is")


def merge(arguments: argparse.Namespace) -> int:
    checked_folder(arguments.results)
    for other in arguments.others:
        checked_folder(other)
    with Writer(arguments.results) as writer:
        for other in arguments.others:
            made = unite(writer, other)
            say(
                f"{other}: {made.runs} new run(s), {made.segments} segment(s) and {made.files} other file(s) "
                f"copied, {made.size:,} bytes"
            )
        writer.compact()
    return 0
