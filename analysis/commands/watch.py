"""The ranking of a sweep as it comes about."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.live import Live

from analysis.commands.common import Commands, add_command, add_metric, add_sweep, count, say
from analysis.query import checked_folder
from analysis.show import as_text
from analysis.watch import MOST_FLIGHTS, Watched, Watcher, picture

SECONDS = 1.0
"""Between two looks."""


def add(commands: Commands) -> None:
    summary = "the ranking as it comes about, and the runs in flight, until nobody is at work any more"
    parser = add_command(commands, "watch", watch, summary)
    add_sweep(parser)
    add_metric(parser)
    parser.add_argument("--limit", type=count, metavar="N", help="the first N; as many as fit for none")


def watch(arguments: argparse.Namespace) -> int:
    """Only reads: a sweep on this machine or another does not notice. Ctrl-C ends it."""
    checked_folder(arguments.results)
    watcher = Watcher(arguments.results, arguments.sweep, arguments.by)
    try:
        if sys.stdout.isatty():
            _live(watcher, arguments.limit)
        else:
            _plain(watcher, arguments.limit)
    except KeyboardInterrupt:
        pass
    return 0


def _live(watcher: Watcher, limit: int | None) -> None:
    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            seen = watcher.look()
            rows = _fitting(seen, console.height) if limit is None else limit
            live.update(picture(seen, time.time(), rows), refresh=True)
            if seen.ended:
                return
            time.sleep(SECONDS)


def _plain(watcher: Watcher, limit: int | None) -> None:
    """A picture for each change, for a log or a pipe."""
    shown: Watched | None = None
    while shown is None or not shown.ended:
        seen = watcher.look()
        if seen is not shown:
            say(f"{time.strftime('%H:%M:%S')}  {as_text(picture(seen, time.time(), limit, bars=False))}")
            shown = seen
        else:
            time.sleep(SECONDS)


def _fitting(seen: Watched, height: int) -> int:
    """Rows of the ranking that there is room for, beside what stands above and below them."""
    return max(1, height - min(len(seen.flights), MOST_FLIGHTS) - 12)
