"""python -m mtbert merge KIND TASK=RUN TASK=RUN … --results R"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtbert.commands.common import given_inputs, say, say_ending
from mtbert.inputs import Inputs, parse_inputs
from mtbert.run import Run
from mtbert.schema import ConfigError

if TYPE_CHECKING:
    from analysis.store import State


def merge(arguments: argparse.Namespace) -> int:
    """One model from runs that were trained apart, a task from each, without training."""
    from analysis.store import Writer, read
    from mtbert.data.tokenise import tokenise
    from mtbert.merging import evaluate_merged, merged
    from mtbert.weights import load_base

    chosen, weights = _assigned("TASK=RUN", arguments.parents), _weights(arguments.weight)
    state = read(arguments.results)
    parents = {task: _parent(state, arguments.results, task, run) for task, run in chosen.items()}
    first = next(iter(parents.values()))[0]
    inputs = _inputs(state, first, arguments)
    base, dataset = load_base(inputs.model), inputs.dataset()
    if (base.fingerprint, dataset.fingerprint) != (first.model, first.data):
        raise ConfigError(
            f"--model {inputs.model} --data {inputs.data}: are {base.fingerprint} and {dataset.fingerprint}; "
            f"expected what run {first.run_id} was trained with, {first.model} and {first.data}"
        )
    found = merged(arguments.kind, parents, dataset.tasks, base.config, weights)
    run = found.run
    with Writer(arguments.results) as writer:
        claim = writer.begin(run.as_json() | {"inputs": vars(inputs)})
        if claim.refused == "held":
            raise ConfigError(f"run {run.run_id} is being merged by another process over {arguments.results}")
        if claim.attempt is None:
            say(f"run {run.run_id} is in {arguments.results} already; nothing was done")
        else:
            data = tokenise(dataset, base.tokenizer(), splits=("dev",))
            ended = evaluate_merged(found, base, data, arguments.device)
            writer.end(run.run_id, claim.attempt, ended.record, ended.predictions, ended.weights)
        writer.compact()
        ending = writer.refresh().runs[run.run_id].ended
    assert ending is not None
    return say_ending(run, ending, arguments.results)


def add_arguments(added: argparse.ArgumentParser) -> None:
    """The command's own flags."""
    kinds = ("ensemble", "average", "orthogonal")
    added.add_argument("kind", choices=kinds, metavar="KIND", help=", ".join(kinds))
    added.add_argument("parents", nargs="+", metavar="TASK=RUN", help="the run that a task comes from")
    added.add_argument("--results", default="results")
    added.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="TASK=NUMBER",
        help="λ of each task in the sum; one over their number, or 1 of an orthogonal merge",
    )
    added.add_argument("--device", default="cpu")


def _assigned(form: str, texts: Sequence[str]) -> dict[str, str]:
    """`sst=…` as a mapping."""
    found: dict[str, str] = {}
    for text in texts:
        task, equals, value = text.partition("=")
        if not (task and equals and value):
            raise ConfigError(f"merge: expected {form}, got {text!r}")
        if task in found:
            raise ConfigError(f"merge: {task} is given twice, {found[task]} and {value}")
        found[task] = value
    return found


def _weights(texts: Sequence[str]) -> dict[str, float]:
    try:
        return {task: float(text) for task, text in _assigned("--weight TASK=NUMBER", texts).items()}
    except ValueError as error:
        raise ConfigError(f"--weight: expected TASK=NUMBER ({error})") from None


def _parent(state: State, results: str, task: str, name: str) -> tuple[Run, bytes]:
    """A completed run with its best weights."""
    from analysis.store import StoreError, read_weights

    known = state.find(name)
    if known.status != "completed":
        raise ConfigError(
            f"{task}={name}: run {known.run_id} is {known.status or 'waiting'}; expected a completed run"
        )
    try:
        return Run.from_json(known.run), read_weights(results, known)
    except StoreError as error:
        raise ConfigError(f"{task}={name}: {error}") from None


def _inputs(state: State, run: Run, arguments: argparse.Namespace) -> Inputs:
    """Where a run's base model and data came from, unless the flags say otherwise."""
    stored: dict[str, Any] = state.runs[run.run_id].run.get("inputs", {})
    return parse_inputs({**stored, **given_inputs(arguments)})
