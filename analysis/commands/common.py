"""What several commands take and say."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
from rich.console import RenderableType

from analysis.formats import save, written
from analysis.query import Sources
from analysis.show import as_text, terminal_width
from analysis.store.errors import StoreError

Answer = tuple[pa.Table, Callable[[], RenderableType]]
"""What a command found, for machines, and how a terminal shows it."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where each command's module adds its own."""


def add_command(
    commands: Commands, name: str, command: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """A command over a results folder, which gives its exit code."""
    parser = commands.add_parser(name, help=summary, description=summary)
    about = "the results folder of sweeps, or its URI"
    parser.add_argument("results", metavar="RESULTS", help=about)
    parser.set_defaults(command=command)
    return parser


def add_answer(
    commands: Commands, name: str, find: Callable[[argparse.Namespace], Answer], summary: str
) -> argparse.ArgumentParser:
    """A command that answers with a table, of all runs or a sweep's, in any format."""
    parser = add_command(commands, name, partial(_answer, find), summary)
    add_sweep(parser)
    parser.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to the terminal")
    return parser


def add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sweep", metavar="NAME", help="only the runs of this sweep")


def add_metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by", metavar="METRIC", help="e.g. sst.accuracy; the sweep's objective, or score, for none"
    )


def count(text: str) -> int:
    """A flag's whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def opened(arguments: argparse.Namespace) -> Sources:
    """The results, which must hold runs; what was passed over in reading is told on standard error."""
    sources = Sources(arguments.results, arguments.sweep)
    if arguments.sweep is not None:
        sources.state.sweep(arguments.sweep)
    if not sources.state.runs:
        raise StoreError(f"{arguments.results}: no runs in these results yet")
    for notice in sources.state.notices:
        say(f"notice: {notice}", error=True)
    return sources


def say(text: str, error: bool = False) -> None:
    """A line of a command's answer, or beside it, at once."""
    stream = sys.stderr if error else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def _answer(find: Callable[[argparse.Namespace], Answer], arguments: argparse.Namespace) -> int:
    """Finds, and writes what was found as it is wanted."""
    if arguments.format == "parquet" and arguments.output is None:
        raise StoreError("--format parquet needs --output FILE")
    table, shown = find(arguments)
    if arguments.format == "table":
        data = as_text(shown(), terminal_width()).encode()
    else:
        data = written(table, arguments.format)
    if arguments.output is not None:
        save(data, arguments.output)
    else:
        sys.stdout.write(data.decode())
        sys.stdout.flush()
    return 0
