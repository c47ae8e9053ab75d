#!/usr/bin/env python
"""A grid of LoRA: ranks, alphas and seeds over any base configuration.

python sweeps/lora_grid.py
python sweeps/lora_grid.py --config examples/bert_base.yaml --model bert-base-uncased --data hub
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the packages are found from any folder, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from mtbert.schema import ConfigError
from sweeps.declare import Grid
from sweeps.file import Declared
from sweeps.flags import Parser, add_carrying_out, add_experiment, experiment, settings
from sweeps.start import command, start

RANKS, ALPHAS, SEEDS = "1,4,16", "1", 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return command("sweeps/lora_grid.py", argv, _run)


def _run(given: Sequence[str], again: str, console: Console) -> int:
    args = _parser().parse_args(given)
    axes = {
        "low_rank.rank": numbers(args.ranks, "--ranks", int, at_least=1),
        "low_rank.alpha": numbers(args.alphas, "--alphas", float, at_least=0),
    }
    inputs, base = experiment(args)
    sweep = Grid(name=args.name, base=base, axes=axes, seeds=args.seeds)
    return start(Declared(sweep, inputs), settings(args, again), console)


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
