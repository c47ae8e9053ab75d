"""Flags that the sweeps' commands share: what the runs are fed, and how a sweep is carried out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from mtbert.configuration import parse, with_values
from mtbert.inputs import Inputs, parse_inputs, parse_limit, read_file
from mtbert.schema import ConfigError
from sweeps.settings import Settings

PRECISIONS = ("float32", "bfloat16", "float64")
STEPS = 400
EVALUATIONS = 2
DEFAULTS: Mapping[str, Any] = {
    "low_rank": {"kind": "lora", "targets": ["query", "value"], "scaling": "alpha"},
    "training": {"batch_size": 32, "learning_rate": {"adapters": 2e-3, "heads": 2e-3}},
    "evaluation": {"train_limit": 128},
}
"""The base configuration where no --config is given: what suits the embedded model."""


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


def add_experiment(parser: argparse.ArgumentParser, steps: int = STEPS) -> None:
    """What the runs are fed, and the base configuration that they have in common.

    Args:
        steps: of each run where neither --steps nor --config says it.
    """
    add_trainings(parser, "{}, or as in --config", steps)
    parser.add_argument(
        "--config", metavar="YAML", help="a file of inputs and base configuration, as mtbert train takes it"
    )


def add_trainings(parser: argparse.ArgumentParser, otherwise: str, steps: int = STEPS) -> None:
    """What the runs are fed, and what is said of all of them.

    Args:
        otherwise: what holds where no flag says it, `{}` being the usual.
        steps: the usual number of them.
    """
    add = parser.add_argument
    add_inputs(parser)
    add(
        "--cfimdb",
        choices=("leave", "task", "join"),
        help=f"what to do with CFIMDB, if there ({otherwise.format('leave')})",
    )
    add("--steps", type=positive, help=f"of each run ({otherwise.format(steps)})")
    add("--precision", choices=PRECISIONS, help=f"({otherwise.format('float32')})")


def add_results(parser: argparse.ArgumentParser) -> None:
    """Where the results are."""
    about = "folder of the results, or a URI such as s3://BUCKET/results (%(default)s)"
    parser.add_argument("--results", default="results", help=about)


def add_carrying_out(parser: argparse.ArgumentParser) -> None:
    """How a sweep is carried out, which changes no result."""
    add = parser.add_argument
    add_results(parser)
    add("--max-concurrent", type=int, help="runs at once, at most")
    add("--gpus-per-run", type=float, help="part of a GPU, or 0 for the CPU (1; with --pack, as measured)")
    add("--pack", type=int, help="runs per process (as many as a GPU has room for; 1 on a CPU)")
    add("--address", help="host:port of a running Ray, or local to start one")
    add("--retry-failed", action="store_true", help="try failed runs again")
    add("--fail-fast", action="store_true", help="end the sweep when the first run fails")
    add("--dry-run", action="store_true", help="list the runs and estimate the time, start nothing")


def experiment(
    args: argparse.Namespace, steps: int = STEPS, evaluations: int = EVALUATIONS
) -> tuple[Inputs, dict[str, Any]]:
    """Where model and data come from, and what the axes are laid over: --config, and then the flags.

    Args:
        steps, evaluations: of each run where neither says them.
    """
    from_file, base = ({}, dict(DEFAULTS)) if args.config is None else read_file(args.config)
    parse(base)
    if base.get("low_rank") in (None, "none"):
        base["low_rank"] = {"kind": "lora"}  # for the axes
    if args.config is None:
        args.steps = args.steps or steps
        base = with_values(base, {"evaluation.every": max(1, args.steps // evaluations)})
    return fed(from_file, args), with_flags(base, args, args.config)


def fed(inputs: Mapping[str, Any], args: argparse.Namespace) -> Inputs:
    """Where model and data come from, as given, but where the flags say otherwise."""
    return parse_inputs({**inputs, **given_inputs(args, ("model", "data", "holdout", "cfimdb"))})


def with_flags(base: dict[str, Any], args: argparse.Namespace, source: str) -> dict[str, Any]:
    """The base configuration with what the flags say of all runs.

    Args:
        source: of the base, as it was asked for.
    """
    values: dict[str, Any] = {}
    if args.steps is not None:
        if base.get("stages"):
            raise ConfigError(f"--steps: {source} has stages; give each of them its steps there")
        kept = {key: each for key, each in base.get("training", {}).items() if key != "epochs"}
        base = {**base, "training": kept}
        values["training.steps"] = args.steps
    if args.precision is not None:
        values["precision"] = args.precision
    return with_values(base, values)


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
        fail_fast=args.fail_fast,
        dry_run=args.dry_run,
    )


def positive(text: str) -> int:
    """A count, as an argument's type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value
