"""`python -m analysis COMMAND RESULTS`: what the runs have come to, and the keeping of their results."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from analysis.commands import (
    best,
    compare,
    importance,
    merge,
    mirror,
    prune,
    report,
    runs,
    sql,
    study,
    tag,
    watch,
)
from analysis.store.errors import StoreError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code, or 2 after an error, which standard error tells in a line."""
    arguments = _parser().parse_args(argv)
    try:
        result: int = arguments.command(arguments)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (best, runs, compare, importance, report, sql, study, watch, mirror, tag, merge, prune):
        module.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
