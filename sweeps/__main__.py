"""A sweep from a file, of any kind.

python -m sweeps run examples/grid.yaml
python -m sweeps run examples/search.yaml --results results --dry-run
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from sweeps.file import read_sweep
from sweeps.flags import Parser, add_carrying_out, settings
from sweeps.start import command, start


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return command("-m sweeps", argv, _run)


def _run(given: Sequence[str], again: str, console: Console) -> int:
    args = _parser().parse_args(given)
    code: int = args.carry_out(args, again, console)
    return code


def run(args: argparse.Namespace, again: str, console: Console) -> int:
    """Trains what the sweep of a file wants and the ledger lacks, and shows what it came to."""
    return start(read_sweep(args.file), settings(args, again), console)


def _parser() -> Parser:
    parser = Parser("python -m sweeps", __doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    added = commands.add_parser("run", help=run.__doc__, description=run.__doc__)
    added.add_argument("file", metavar="FILE", help="YAML of inputs and declaration; examples/ has some")
    add_carrying_out(added)
    added.set_defaults(carry_out=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
