"""What several commands say and take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from mtbert.inputs import parse_limit
from mtbert.run import Run

BAD_INPUT, FAILED, INTERRUPTED = 2, 3, 130


def say(text: str, error: bool = False) -> None:
    """A line of a command's answer, or of what went wrong, at once."""
    stream = sys.stderr if error else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def given_inputs(arguments: argparse.Namespace) -> dict[str, Any]:
    """The inputs that the flags name."""
    given = {name: getattr(arguments, name, None) for name in ("model", "data", "holdout", "cfimdb")}
    limit = getattr(arguments, "limit", None)
    if limit is not None:
        given["limit"] = parse_limit(limit)
    return {name: value for name, value in given.items() if value is not None}


def say_metrics(values: Mapping[str, Any]) -> None:
    """A line for each metric."""
    for name, value in values.items():
        say(f"  {name:<16} {'undefined' if value is None else f'{value:.4f}'}")


def say_ending(run: Run, ended: Mapping[str, Any], results: str) -> int:
    """How a run ended, and what can be done with it; the command's exit code."""
    say(f"\nrun {run.run_id} {ended['status']} at step {ended['step']}, kept step {ended['kept_step']}")
    say_metrics({"score": ended["score"], **ended["metrics"]})
    if ended["status"] != "completed":
        return FAILED
    say(f"\nresults in {results}; next:")
    say(f"  python -m mtbert predict {run.run_id} --results {results} --text 'A fine film .'")
    say(f"  python -m mtbert export {run.run_id} --results {results} --to transformers FOLDER")
    say(f"  python -m analysis runs {results}")
    return 0
