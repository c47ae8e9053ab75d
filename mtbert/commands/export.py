"""python -m mtbert export CONFIG|RUN --results R --to FORM DIR"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mtbert.commands.common import given_inputs, say
from mtbert.configuration import parse
from mtbert.export.forms import FORMS, Form
from mtbert.inputs import parse_inputs, read_file
from mtbert.run import Run
from mtbert.schema import ConfigError

if TYPE_CHECKING:
    from analysis.store import RunState, State
    from mtbert.data.examples import Dataset
    from mtbert.export.trained import Trained
    from mtbert.inputs import Inputs
    from mtbert.weights import BaseModel


def export(arguments: argparse.Namespace) -> int:
    """A trained run as a folder that PEFT, transformers, or this project loads, with a model card."""
    from analysis.standing import standing
    from analysis.store import read
    from mtbert.export.folder import export

    form, folder = arguments.to
    if form not in FORMS:
        raise ConfigError(f"--to: expected one of {', '.join(FORMS)} and a folder, got {form!r}")
    state = read(arguments.results)
    is_file = Path(arguments.what).suffix in (".yaml", ".yml") or Path(arguments.what).is_file()
    trained = (_of_file if is_file else _of_run)(state, arguments)
    place = Path(folder).expanduser()
    written = export(trained, cast(Form, form), place, standing(state, trained.run.run_id))
    say(f"run {trained.run.run_id} is in {place}, as {form} has it:")
    for note in written.notes:
        say(f"  {note}")
    say(f"{place / 'README.md'} says how good it is, and has the code that loads it")
    return 0


def add_arguments(added: argparse.ArgumentParser) -> None:
    """The command's own flags."""
    added.add_argument("what", metavar="CONFIG|RUN", help="a file, whose best run it is, or a run's id")
    added.add_argument("--results", default="results")
    added.add_argument(
        "--to",
        nargs=2,
        required=True,
        metavar=("FORM", "DIR"),
        help="peft, transformers, or safetensors (this project's own), and a new folder",
    )


def _of_run(state: State, arguments: argparse.Namespace) -> Trained:
    """A run by its id or the beginning of one, over what its record or the flags name."""
    from mtbert.weights import load_base

    known = state.find(arguments.what)
    if known.status != "completed":
        raise ConfigError(f"run {known.run_id} is {known.status or 'waiting'}; expected a completed run")
    inputs = parse_inputs({**known.run.get("inputs", {}), **given_inputs(arguments)})
    return _trained(known, arguments.results, load_base(inputs.model), inputs.dataset(), inputs)


def _of_file(state: State, arguments: argparse.Namespace) -> Trained:
    """The best run of the configuration in a file, over what the file or the flags name."""
    from analysis.standing import best_replicate
    from mtbert.weights import load_base

    from_file, fields = read_file(arguments.what)
    configuration, inputs = parse(fields), parse_inputs({**from_file, **given_inputs(arguments)})
    base, dataset = load_base(inputs.model), inputs.dataset()
    wanted = Run(configuration, 0, dataset.fingerprint, base.fingerprint)
    say(f"{arguments.what} is configuration {wanted.config_id} over this model and data")
    best = best_replicate(state, wanted.config_id, "score")
    return _trained(best, arguments.results, base, dataset, inputs)


def _trained(known: RunState, results: str, base: BaseModel, dataset: Dataset, inputs: Inputs) -> Trained:
    """A completed run with its weights."""
    from analysis.store import read_weights
    from mtbert.export.trained import Trained

    return Trained(Run.from_json(known.run), read_weights(results, known), base, dataset, inputs)
