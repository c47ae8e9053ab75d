#!/usr/bin/env python
"""A search over what the techniques offer, from any base configuration, by any sampler.

python sweeps/auto_search.py
python sweeps/auto_search.py --runs 100 --hours 8 --config examples/bert_base.yaml --data hub
python sweeps/auto_search.py --space space.yaml
    where space.yaml fixes, narrows, widens or leaves out: {low_rank.kind: lora, smart: null,
    low_rank.rank: {low: 1, high: 64, log: true}}
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the packages are found from any folder, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import yaml
from rich.console import Console

from mtbert.configuration import parse
from mtbert.inputs import read_yaml
from mtbert.schema import ConfigError, build
from sweeps.declare import Search
from sweeps.file import Declared, usual_space
from sweeps.flags import Parser, add_carrying_out, add_experiment, experiment, positive, settings
from sweeps.search.budget import Budget
from sweeps.search.rungs import Rungs
from sweeps.search.study import SAMPLERS, Sampler
from sweeps.search.terms import COSTS
from sweeps.start import command, start

TOP_K, SEEDS_AT_END = 3, 3
OCCUPIED = (
    "that the search's runs occupy over all calls: each from when it is given out until it ends or is given "
    "back, stopped, failed and lost ones too; what another sweep trained is free"
)
STEPS, EVALUATIONS = 160, 4
"""Of a run without --config, so that a search by the defaults takes a laptop less than ten minutes. The first
evaluation is the first rung."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return command("sweeps/auto_search.py", argv, _run)


def _run(given: Sequence[str], again: str, console: Console) -> int:
    args = _parser().parse_args(given)
    inputs, base = experiment(args, STEPS, EVALUATIONS)
    search = Search(
        name=args.name,
        base=base,
        space=usual_space(None if args.space is None else read_yaml(args.space)),
        budget=budget_of(args),
        sampler=build(Sampler, {"name": args.sampler, "seed": args.sampler_seed}, "sampler"),
        rungs=rungs_of(args, base),
        top_k=args.top_k,
        seeds_at_end=args.seeds_at_end,
        constraints=args.constraint,
        against=args.against,
        axes=axes_of(args.axis),
        start=start_of(args.start),
    )
    return start(Declared(search, inputs), settings(args, again), console)


def axes_of(texts: Sequence[str]) -> dict[str, list[Any]]:
    """The axes that flags give: `low_rank.kind=lora,dora`.

    Raises:
        ConfigError: a text that is none, or a field that is given twice.
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        field, equals, values = text.partition("=")
        try:
            found = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            found = []
        if not (field and equals and found) or field in axes:
            raise ConfigError(f"--axis: expected FIELD=VALUES, each field once, got {text!r}")
        axes[field] = found
    return axes


def start_of(path: str | None) -> list[Any]:
    """The points of a file.

    Raises:
        ConfigError: the file is missing, or no list of points by dotted field.
    """
    points = [] if path is None else read_yaml(path)
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise ConfigError(
            f"{path}: expected a list of points, each a mapping by dotted field, got {points!r}"
        )
    return points


def rungs_of(args: argparse.Namespace, base: Mapping[str, Any]) -> Rungs | None:
    """Where runs are stopped; the first of the rungs is the first evaluation unless --grace says more.

    Raises:
        ConfigError: a count that cannot be, or evaluations that are not counted in steps.
    """
    if args.rule == "none":
        return None
    evaluation = parse(base).evaluation
    grace = args.grace or evaluation.every
    if grace is None:
        raise ConfigError("--rule: rungs need evaluations: give evaluation.every steps, or --rule none")
    return build(Rungs, {"grace": grace, "reduction": args.reduction, "rule": args.rule}, "rungs")


def budget_of(args: argparse.Namespace) -> Budget:
    """What the search may use up.

    Raises:
        ConfigError: a number that cannot be, or a cost without a price.
    """
    names = ("hours", "core_hours", "gpu_hours", "cost", "price")
    given = {name: getattr(args, name) for name in names}
    return build(Budget, {"points": args.runs, **given}, "budget")


def _parser() -> Parser:
    parser = Parser("auto_search.py", __doc__)
    add = parser.add_argument
    add("--name", default="auto-search", help="of the search (%(default)s)")
    add_experiment(parser, STEPS)
    add(
        "--space",
        metavar="YAML",
        help="by field: a parameter, a fixed value, or null to leave it out",
    )
    add("--runs", type=int, default=Budget().points, help="how many points are tried (%(default)s)")
    add("--hours", type=float, help="wall-clock of this call, at most; the same command goes on")
    add("--core-hours", type=float, help=f"at most, {OCCUPIED}")
    add("--gpu-hours", type=float, help="the same of GPUs")
    add("--cost", type=float, help="at most: those hours times --price, over all calls")
    add("--price", type=float, help="of an hour of a GPU where runs occupy any, else of a core")
    add("--sampler", choices=SAMPLERS, default=Sampler().name, help="what proposes the points (%(default)s)")
    add("--sampler-seed", type=int, default=0, help="(%(default)s)")
    add("--rule", choices=("halving", "median", "none"), default="halving", help="of stopping (%(default)s)")
    add("--grace", type=positive, help="steps of each point at least (as many as before an evaluation)")
    add("--reduction", type=int, default=3, help="one of so many goes on from a rung (%(default)s)")
    add("--top-k", type=int, default=TOP_K, help="how many of the best get more seeds (%(default)s)")
    add("--seeds-at-end", type=int, default=SEEDS_AT_END, help="and how many (%(default)s)")
    add(
        "--constraint",
        action="append",
        default=[],
        metavar="TEXT",
        help="that binds points and winner, as 'trainable<=1%%' or 'para.accuracy>=0.8'; repeatable",
    )
    add("--against", choices=COSTS, help="seek the front of the score against this; needs --rule none")
    add(
        "--axis",
        action="append",
        default=[],
        metavar="FIELD=VALUES",
        help="search each of the values, separated by commas, by itself; repeatable",
    )
    add("--start", metavar="YAML", help="a list of points that are tried first")
    add_carrying_out(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
