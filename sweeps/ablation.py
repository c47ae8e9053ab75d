#!/usr/bin/env python
"""What each part of a configuration brings: the configuration, and it with one thing changed at a time.

python sweeps/ablation.py --around auto-search                  # the winner of a search
python sweeps/ablation.py --around examples/bert_base.yaml --data hub --model bert-base-uncased
python sweeps/ablation.py --around RUN --without low_rank --change low_rank.rank=1
python sweeps/ablation.py --around RUN --changes changes.yaml
    where changes.yaml names changes: {one LoRA for all: {low_rank.sharing: shared}}
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the packages are found from any folder, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console
from rich.text import Text

from analysis.store import State, read
from mtbert.configuration import parse
from mtbert.inputs import parse_assignments, read_yaml
from mtbert.schema import ConfigError, plain
from sweeps.around import Center, center
from sweeps.changes import Change, put_back
from sweeps.declare import Ablation
from sweeps.file import Declared
from sweeps.flags import Parser, add_carrying_out, add_trainings, fed, settings, with_flags
from sweeps.start import command, start

SEEDS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return command("sweeps/ablation.py", argv, _run)


def _run(given: Sequence[str], again: str, console: Console) -> int:
    args = _parser().parse_args(given)
    state = read(args.results)
    around = center(args.around, args.results, state)
    base = with_flags(around.configuration, args, args.around)
    console.print(Text(f"Around {around.said}"), soft_wrap=True)
    changes = changes_of(args, around, base, console)
    name = args.name or f"ablation-of-{around.name}"
    sweep = Ablation(name, plain(parse(base)), args.seeds, args.without, changes)
    _check_name(sweep, state)
    return start(Declared(sweep, fed(around.inputs, args)), settings(args, again), console)


def changes_of(
    args: argparse.Namespace, around: Center, base: Mapping[str, Any], console: Console
) -> dict[str, Change]:
    """The changes that the flags name, or all that tell the configuration from the plain one.

    Raises:
        ConfigError: a file without changes, or a configuration that is the plain one.
    """
    given = [parse_assignments([text], "--change") for text in args.change]
    named: dict[str, Change] = {f"{field} {value}": each for each in given for field, value in each.items()}
    if args.changes is not None:
        named |= _read(args.changes)
    if named or args.without:
        return named
    possible, impossible = put_back(parse(base), around.base)
    for name, why in impossible.items():
        console.print(Text(f"left out: {name}, which cannot be by itself: {why}"), soft_wrap=True)
    if not possible:
        raise ConfigError(
            f"--around {args.around}: it differs in nothing from the plain configuration; name changes with "
            "--without, --change or --changes"
        )
    return possible


def _read(path: str) -> dict[str, Change]:
    found = read_yaml(path)
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise ConfigError(
            f"{path}: expected changes by name, each a mapping of values by dotted field, got {found!r}"
        )
    return {str(name): values for name, values in found.items()}


def _check_name(sweep: Ablation, state: State) -> None:
    known = state.sweeps.get(sweep.name)
    if known is not None and known.declaration.get("base") != sweep.as_json()["base"]:
        raise ConfigError(
            f"--name: {sweep.name!r} is around another configuration in these results; give another name"
        )


def _parser() -> Parser:
    parser = Parser("ablation.py", __doc__)
    add = parser.add_argument
    add(
        "--around",
        required=True,
        metavar="FILE|RUN|SWEEP",
        help="a configuration's file, a run of the results, or a sweep there, for its winner",
    )
    add("--name", help="of the sweep (ablation-of- and what it is around)")
    add(
        "--without",
        action="append",
        default=[],
        metavar="FIELD",
        help="put this back to its default; repeatable",
    )
    add(
        "--change",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change this, by itself; repeatable; where nothing is named, all that is not plain goes back",
    )
    add("--changes", metavar="YAML", help="changes by name, of one field or of several together")
    add_trainings(parser, "as in what it is around")
    add("--seeds", type=int, default=SEEDS, help="of each configuration (%(default)s)")
    add_carrying_out(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
