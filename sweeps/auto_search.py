#!/usr/bin/env python
"""A search over what the techniques offer, from any base configuration, by any of Optuna's samplers.

python sweeps/auto_search.py
python sweeps/auto_search.py --runs 100 --hours 8 --config examples/bert_base.yaml --data hub
python sweeps/auto_search.py --space space.yaml
    where space.yaml fixes, narrows, widens or leaves out: {low_rank.kind: lora, smart: null,
    low_rank.rank: {low: 1, high: 64, log: true}}
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the packages are found from any folder, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import yaml
from rich.console import Console

from mtbert.configuration import parse
from mtbert.schema import ConfigError, build
from sweeps.budget import Budget
from sweeps.declare import Search
from sweeps.flags import Parser, add_carrying_out, add_experiment, experiment, positive, settings
from sweeps.launch import reported
from sweeps.publish import LoadedMaterial
from sweeps.rungs import Rungs
from sweeps.search import SearchLaunch
from sweeps.space import Space, parse_space
from sweeps.study import SAMPLERS, Sampler

TOP_K, SEEDS_AT_END = 3, 3
EVALUATIONS = 4
"""Of a run without --config, the first of them being the first rung."""
RATE: Mapping[str, Any] = {"low": 3e-4, "high": 1e-2, "log": True, "role": "nuisance"}
SPACE: Mapping[str, Any] = {
    "low_rank.kind": {"choices": ["lora", "dora", "orthogonal", "none"]},
    "low_rank.rank": {"low": 1, "high": 16, "log": True, "role": "nuisance"},
    "low_rank.scaling": {"choices": ["alpha"], "role": "nuisance"},
    "low_rank.alpha": {"low": 0.25, "high": 8, "log": True, "role": "nuisance"},
    "low_rank.dropout": {"choices": [0.0, 0.1, 0.2], "role": "nuisance"},
    "low_rank.targets": {
        "choices": [["query", "value"], ["query", "key", "value", "attention_out"], ["all_linear"]],
        "role": "nuisance",
    },
    "low_rank.sharing": {
        "choices": ["shared", "per_task"],
        "when": {"low_rank.kind": ["lora", "dora"]},
        "role": "nuisance",
    },
    "parallel.form": {"choices": ["none", "low_rank", "attention"]},
    "parallel.hidden": {"choices": [12, 24, 48], "role": "nuisance"},
    "weighting.kind": {"choices": ["static", "uncertainty", "huq_pervin"]},
    "smart": {"choices": ["none", {"ascent_steps": 0}, {"ascent_steps": 1}]},
    "smart.weight": {"low": 0.01, "high": 10, "log": True, "role": "nuisance"},
    "smart.noise": {"low": 1e-6, "high": 1e-3, "log": True, "role": "nuisance"},
    "training.schedule.kind": {"choices": ["annealed", "proportional", "random", "round_robin"]},
    "training.schedule.constant": {
        "low": 0.0,
        "high": 1.0,
        "step": 0.1,
        "when": {"training.schedule.kind": ["annealed"]},
        "role": "nuisance",
    },
    "training.learning_rate.adapters": RATE,
    "training.learning_rate.heads": RATE,
    "training.warmup": {"choices": [0.0, 0.1, 0.2], "role": "nuisance"},
}
"""What is searched where --space says nothing else; PAL's twelve heads ask for multiples of twelve."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 2 bad input, 3 failed runs, 4 out of time, 130 Ctrl-C."""
    given = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["python", sys.argv[0] if argv is None else "sweeps/auto_search.py", *given])
    console = Console(highlight=False)
    return reported(lambda: _run(_parser().parse_args(given), command, console), command, console)


def _run(args: argparse.Namespace, command: str, console: Console) -> int:
    inputs, base = experiment(args)
    if args.config is None:
        base["evaluation"]["every"] = max(1, base["training"]["steps"] // EVALUATIONS)
    search = Search(
        name=args.name,
        base=base,
        space=space_of(args.space),
        budget=build(Budget, {"points": args.runs, "hours": args.hours}, "budget"),
        sampler=Sampler(args.sampler, args.sampler_seed),
        rungs=rungs_of(args, base),
        top_k=args.top_k,
        seeds_at_end=args.seeds_at_end,
    )
    chosen = settings(args, command)
    return SearchLaunch(search, LoadedMaterial(inputs), chosen, console).run()


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


def space_of(path: str | None) -> Space:
    """The default space, with what a file says of it laid over.

    Raises:
        ConfigError: the file is missing or not YAML, or a parameter cannot be.
    """
    if path is None:
        return parse_space(SPACE)
    try:
        changes = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return parse_space(changes or {}, SPACE)


def _parser() -> Parser:
    parser = Parser("auto_search.py", __doc__)
    add = parser.add_argument
    add("--name", default="auto-search", help="of the search (%(default)s)")
    add_experiment(parser)
    add(
        "--space",
        metavar="YAML",
        help="by field: a parameter, a fixed value, or null to leave it out",
    )
    add("--runs", type=int, default=Budget().points, help="how many points are tried (%(default)s)")
    add("--hours", type=float, help="after which the search ends; the same command goes on")
    add("--sampler", choices=SAMPLERS, default="tpe", help="of Optuna's (%(default)s)")
    add("--sampler-seed", type=int, default=0, help="(%(default)s)")
    add("--rule", choices=("halving", "median", "none"), default="halving", help="of stopping (%(default)s)")
    add("--grace", type=positive, help="steps of each point at least (as many as before an evaluation)")
    add("--reduction", type=int, default=3, help="one of so many goes on from a rung (%(default)s)")
    add("--top-k", type=int, default=TOP_K, help="how many of the best get more seeds (%(default)s)")
    add("--seeds-at-end", type=int, default=SEEDS_AT_END, help="and how many (%(default)s)")
    add_carrying_out(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
