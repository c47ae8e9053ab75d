"""A sweep from a file, of any kind, what such a file may hold, and ending one from another terminal.

python -m sweeps run examples/grid.yaml
python -m sweeps run examples/search.yaml --results results --dry-run
python -m sweeps schema
python -m sweeps stop which-adapter --results results
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from mtbert.describe import table
from sweeps.exits import ENDED
from sweeps.file import KINDS, described_file, read_sweep
from sweeps.flags import Parser, add_carrying_out, add_results, settings
from sweeps.start import command, start
from sweeps.stop import stop as asked_to_stop


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


def stop(args: argparse.Namespace, _again: str, console: Console) -> int:
    """Ends a sweep from another terminal, or leaves one of its runs as it stands."""
    console.print(Text(asked_to_stop(args.results, args.name)), soft_wrap=True)
    return ENDED


def schema(args: argparse.Namespace, _again: str, console: Console) -> int:
    """Every field of a sweep's file by its kind; `python -m mtbert schema` has its inputs' and its base's."""
    parts = {kind: described_file(cls) for kind, cls in KINDS.items()}
    if args.format == "json":
        found = {kind: [dataclasses.asdict(field) for field in fields] for kind, fields in parts.items()}
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return ENDED
    said = [f"kind: {kind}\n{table(fields)}" for kind, fields in parts.items()]
    console.print(Text("\n\n".join(said)), soft_wrap=True)
    return ENDED


def _parser() -> Parser:
    parser = Parser("python -m sweeps", __doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    added = commands.add_parser("run", help=run.__doc__, description=run.__doc__)
    added.add_argument("file", metavar="FILE", help="YAML of inputs and declaration; examples/ has some")
    add_carrying_out(added)
    added.set_defaults(carry_out=run)
    added = commands.add_parser("stop", help=stop.__doc__, description=stop.__doc__)
    added.add_argument("name", metavar="SWEEP|RUN", help="a sweep's name, or a run's id or enough of it")
    add_results(added)
    added.set_defaults(carry_out=stop)
    added = commands.add_parser("schema", help=schema.__doc__, description=schema.__doc__)
    added.add_argument("--format", choices=("table", "json"), default="table")
    added.set_defaults(carry_out=schema)
    return parser


if __name__ == "__main__":
    sys.exit(main())
