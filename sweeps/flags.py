"""Flags that the sweeps' commands share: what the runs are fed, and how a sweep is carried out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from mtbert.inputs import parse_limit
from sweeps.launch import Settings

PRECISIONS = ("float32", "bfloat16", "float64")


class Parser(argparse.ArgumentParser):
    """Tells a wrong flag as every other wrong input is told."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # or --rank would be taken for --ranks
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help lists the flags)\n")


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """What the runs are fed."""
    add = parser.add_argument
    add("--model", help="demo, a folder, or a name on the hub (demo)")
    add("--data", help="demo, hub, a folder of CS 224N files, or a YAML of tasks (demo)")
    add("--limit", help="training examples of each task: a count, or sst=500,para=2000")
    add("--holdout", type=float, help="share of train that nothing trains or selects on")


def add_carrying_out(parser: argparse.ArgumentParser) -> None:
    """How a sweep is carried out, which changes no result."""
    add = parser.add_argument
    add("--results", default="results", help="the folder of the results (%(default)s)")
    add("--max-concurrent", type=int, help="runs at once, at most")
    add("--gpus-per-run", type=float, help="a fraction of a GPU, or 0 for the CPU (1 where there are GPUs)")
    add("--pack", type=int, default=1, help="runs per process (%(default)s)")
    add("--address", help="host:port of a running Ray, or local to start one")
    add("--retry-failed", action="store_true", help="try failed runs again")
    add("--dry-run", action="store_true", help="list the runs and estimate the time, start nothing")


def given_inputs(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The fields of the inputs that the flags give.

    Raises:
        ConfigError: a limit that is none.
    """
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.limit is not None:
        given["limit"] = parse_limit(args.limit)
    return given


def settings(args: argparse.Namespace, command: str) -> Settings:
    """How the sweep is carried out.

    Raises:
        ConfigError: a number that cannot be.
    """
    return Settings(
        results=args.results,
        command=command,
        max_concurrent=args.max_concurrent,
        gpus_per_run=args.gpus_per_run,
        address=args.address,
        pack=args.pack,
        retry_failed=args.retry_failed,
        dry_run=args.dry_run,
    )


def positive(text: str) -> int:
    """A count, as an argument's type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value
