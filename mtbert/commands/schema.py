"""What can stand in a file of a training."""

from __future__ import annotations

import argparse
import dataclasses
import json

from mtbert.commands.common import say
from mtbert.configuration import Configuration
from mtbert.describe import described, table
from mtbert.inputs import Inputs


def schema(arguments: argparse.Namespace) -> int:
    """Every field of a training's file: inputs and configuration, with default and constraint."""
    parts = {"inputs": list(described(Inputs)), "configuration": list(described(Configuration))}
    if arguments.format == "json":
        found = {name: [dataclasses.asdict(field) for field in fields] for name, fields in parts.items()}
        say(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        say("\n\n".join(table(fields) for fields in parts.values()))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument("--format", choices=("table", "json"), default="table")
