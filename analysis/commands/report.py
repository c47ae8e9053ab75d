"""A sweep as one page for a browser, a phone and paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.common import Commands, add_command, add_sweep, say
from analysis.formats import save


def add(commands: Commands) -> None:
    summary = "writes one self-contained page about a sweep, its verdict first"
    parser = add_command(commands, "report", report, summary)
    add_sweep(parser)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="(%(default)s)"
    )


def report(arguments: argparse.Namespace) -> int:
    from analysis.page.page import page  # matplotlib takes half a second, which the other commands need not

    text = page(arguments.results, arguments.sweep)
    save(text.encode(), arguments.output)
    say(f"{arguments.output} ({len(text.encode()) / 1000:.0f} kB)")
    return 0
