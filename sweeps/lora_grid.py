#!/usr/bin/env python
"""A grid of LoRA: ranks, alphas and seeds over any base configuration.

python sweeps/lora_grid.py
python sweeps/lora_grid.py --config examples/bert_base.yaml --model bert-base-uncased --data hub
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the packages are found from any folder, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from mtbert.schema import ConfigError
from sweeps.declare import Grid
from sweeps.flags import Parser, add_carrying_out, add_experiment, experiment, settings
from sweeps.launch import Launch, reported
from sweeps.publish import LoadedMaterial

RANKS, ALPHAS, SEEDS = "1,4,16", "1", 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 2 bad input, 3 failed runs, 130 Ctrl-C."""
    given = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["python", sys.argv[0] if argv is None else "sweeps/lora_grid.py", *given])
    console = Console(highlight=False)
    return reported(lambda: _run(_parser().parse_args(given), command, console), command, console)


def _run(args: argparse.Namespace, command: str, console: Console) -> int:
    axes = {
        "low_rank.rank": numbers(args.ranks, "--ranks", int, at_least=1),
        "low_rank.alpha": numbers(args.alphas, "--alphas", float, at_least=0),
    }
    inputs, base = experiment(args)
    sweep = Grid(name=args.name, base=base, axes=axes, seeds=args.seeds)
    chosen = settings(args, command)
    sweep.runs("", "")  # what cannot be is told before the data is read
    return Launch(sweep, LoadedMaterial(inputs), chosen, console).run()


def numbers(text: str, flag: str, kind: Callable[[str], Any], at_least: float) -> tuple[Any, ...]:
    """The numbers of a list separated by commas, each once."""
    found = []
    for part in text.split(","):
        try:
            value = kind(part)
        except ValueError:
            raise ConfigError(f"{flag}: expected numbers separated by commas, got {text!r}") from None
        if not at_least <= value < float("inf"):
            raise ConfigError(f"{flag}: expected numbers of at least {at_least:g}, got {part!r}")
        found.append(value)
    return tuple(dict.fromkeys(found))


def _parser() -> Parser:
    parser = Parser("lora_grid.py", __doc__)
    add = parser.add_argument
    add("--name", default="lora-grid", help="of the sweep (%(default)s)")
    add_experiment(parser)
    add("--ranks", default=RANKS, help="LoRA ranks, separated by commas (%(default)s)")
    add("--alphas", default=ALPHAS, help="LoRA alphas, separated by commas (%(default)s)")
    add(
        "--seeds",
        default=SEEDS,
        type=int,
        help="how many seeds each configuration is trained with (%(default)s)",
    )
    add_carrying_out(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
