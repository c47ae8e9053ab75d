"""What is wrong with a cluster's file, and what an hour of it costs, before anything is started.

python -m sweeps.cluster check cluster.yaml
python -m sweeps.cluster check cluster.yaml --price head=0.10 --price gpu-spot=0.40 --price gpu-on-demand=1.01
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sweeps.cluster.check import problems, read_cluster, read_constraints
from sweeps.cluster.cost import hourly, parse_prices
from sweeps.exits import BAD_INPUT, ENDED, complain
from sweeps.flags import Parser
from sweeps.session import ROOT
from sweeps.start import command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return command("-m sweeps.cluster", argv, _run)


def _run(given: Sequence[str], _again: str, console: Console) -> int:
    args = _parser().parse_args(given)
    return check(args, console)


def check(args: argparse.Namespace, console: Console) -> int:
    """Says each thing that is wrong with a file that `ray up` takes; exit code 2 where anything is."""
    config = read_cluster(args.file)
    types = list(config["available_node_types"]) if config["provider"]["type"] == "aws" else []
    prices = parse_prices(args.price, types)
    found = problems(config, read_constraints(ROOT / "constraints.txt"))
    for each in found:
        complain(f"{args.file}: {each}")
    if found:
        return BAD_INPUT
    said = [f"{args.file}: nothing wrong found."]
    if prices:
        cost = hourly(config, prices)
        said.append(
            f"An hour costs {cost.least:.2f} with the workers always kept, and at most {cost.most:.2f}."
        )
    if not (Path.home() / ".ray" / "auth_token").is_file():
        said.append("There is no token on this machine yet: ray get-auth-token --generate")
    console.print(Text("\n".join(said)), soft_wrap=True)
    return ENDED


def _parser() -> Parser:
    parser = Parser("python -m sweeps.cluster", __doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    added = commands.add_parser("check", help=check.__doc__, description=check.__doc__)
    added.add_argument("file", metavar="FILE", help="as `ray up` takes it; of provider aws or local")
    added.add_argument(
        "--price", action="append", default=[], metavar="TYPE=PRICE", help="of a node type, per hour"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
