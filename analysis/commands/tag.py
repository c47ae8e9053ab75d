"""Labels on runs and sweeps."""

from __future__ import annotations

import argparse

from analysis.commands.common import Commands, add_command, say
from analysis.query import checked_folder
from analysis.store import State, StoreError, Tag, Writer, read
from analysis.store.files import checked_name


def add(commands: Commands) -> None:
    parser = add_command(commands, "tag", tag, "puts a label on runs and sweeps, or takes it away")
    parser.add_argument(
        "names", nargs="+", metavar="RUN|SWEEP", help="a sweep's name, a run's id or enough of it"
    )
    parser.add_argument("label", metavar="TAG", help="letters, digits, dots, dashes and underscores")
    parser.add_argument("--remove", action="store_true", help="take it away")


def tag(arguments: argparse.Namespace) -> int:
    checked_folder(arguments.results)
    label, state = checked_name(arguments.label, "TAG"), read(arguments.results)
    tags = [_tag(state, name, label) for name in arguments.names]
    for each in tags:
        if arguments.remove and each not in state.tags:
            raise StoreError(f"{each.what} {each.name} has no tag {label!r}; known are {_known(state, each)}")
    with Writer(arguments.results) as writer:
        for each in tags:
            writer.tag(each, present=not arguments.remove)
        writer.compact()
    for each in tags:
        say(f"{each.what} {each.name}: {'no longer ' if arguments.remove else ''}tagged {label}")
    return 0


def _tag(state: State, name: str, label: str) -> Tag:
    if name in state.sweeps:
        return Tag("sweep", name, label)
    try:
        return Tag("run", state.find(name).run_id, label)
    except StoreError as error:
        known = ", ".join(sorted(state.sweeps)) or "none"
        raise StoreError(f"{name!r}: expected a sweep or a run; sweeps are {known}; {error}") from None


def _known(state: State, tag: Tag) -> str:
    return ", ".join(sorted(each.label for each in state.tags if each[:2] == tag[:2])) or "none"
