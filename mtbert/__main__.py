"""The commands over one training: what it would train, training it, and using what was trained.

python -m mtbert schema
python -m mtbert params --model bert-base-uncased --set low_rank.rank=8
python -m mtbert train CONFIG.yaml --results results
python -m mtbert evaluate RUN --results results
python -m mtbert predict RUN --results results --text "A fine film ."
python -m mtbert merge average sst=RUN para=RUN sts=RUN --results results
python -m mtbert export CONFIG.yaml --results results --to peft FOLDER
python -m mtbert pretrain --model bert-base-uncased --data hub --out FOLDER
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mtbert.commands import export, merge, pretrain, schema
from mtbert.commands.common import BAD_INPUT, INTERRUPTED, given_inputs, say_ending, say_metrics
from mtbert.configuration import Configuration, parse, with_values
from mtbert.inputs import Inputs, parse_assignments, parse_inputs, read_file
from mtbert.run import Run
from mtbert.schema import ConfigError

if TYPE_CHECKING:
    from mtbert.bert import BertConfig
    from mtbert.data.examples import Dataset
    from mtbert.inference import TrainedModel


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code: 0, 2 bad input, 3 a failed or diverged run, 130 Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        if getattr(arguments, "device", "cpu") != "cpu":
            from mtbert.devices import check_device

            check_device(arguments.device)
        result: int = arguments.command(arguments)
    except ValueError as error:  # all that is said to a user is one: configuration, data, model, store
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    return result


def params(arguments: argparse.Namespace) -> int:
    """Trainable and total parameters by part, from shapes alone."""
    from mtbert.counts import count
    from mtbert.member import trained_tasks
    from mtbert.weights import published_sizes, read_config, resolve

    inputs, configuration = _experiment(arguments)
    dataset = inputs.dataset()
    config = published_sizes().get(inputs.model) or read_config(resolve(inputs.model))
    _check(configuration, config, dataset)
    counts = count(configuration, config, trained_tasks(configuration, dataset.tasks))
    print(f"{'':<10}{'trainable':>14}{'total':>14}")
    for part, (trainable, total) in counts.parts.items():
        print(f"{part:<10}{trainable:>14,}{total:>14,}")
    print(f"{'all':<10}{counts.trainable:>14,}{counts.total:>14,}")
    heads_trainable, heads_total = counts.parts["heads"]
    without = (counts.trainable - heads_trainable) / (counts.total - heads_total)
    print(f"\ntrainable: {counts.trainable / counts.total:.2%} of all, {without:.2%} with the heads left out")
    return 0


def train(arguments: argparse.Namespace) -> int:
    """One run without Ray, into the same ledger as any sweep's."""
    from analysis.store import Writer
    from mtbert.data.examples import columns_of
    from mtbert.data.tokenise import tokenise
    from mtbert.weights import load_base

    inputs, configuration = _experiment(arguments)
    base, dataset = load_base(inputs.model), inputs.dataset()
    for notice in dataset.notices:
        print(notice)
    _check(configuration, base.config, dataset)
    run = Run(configuration, arguments.seed, dataset.fingerprint, base.fingerprint)
    data = tokenise(dataset, base.tokenizer(), splits=("train", "dev"))
    with Writer(arguments.results) as writer:
        writer.examples(dataset.fingerprint, columns_of(dataset))
        claim = writer.begin(run.as_json() | {"inputs": vars(inputs)}, None, arguments.retry_failed)
        if claim.refused == "held":
            raise ConfigError(
                f"run {run.run_id} is being trained by another process over {arguments.results}"
            )
        if claim.attempt is not None:
            _advance(writer, run, claim.attempt, base, data, arguments.device)
        writer.compact()
        ended = writer.refresh().runs[run.run_id].ended
    assert ended is not None
    return say_ending(run, ended, arguments.results)


def _check(configuration: Configuration, config: BertConfig, dataset: Dataset) -> None:
    """Refuses what cannot be trained on this data over this model before anything is begun."""
    from mtbert.member import check
    from mtbert.schedules import total_steps

    total_steps(configuration, {task: len(dataset.examples[task, "train"]) for task in dataset.tasks}, 0)
    check(configuration, config, dataset.tasks)


def _advance(writer: Any, run: Run, attempt: int, base: Any, data: Any, device: str) -> None:
    """Train to the end, telling the ledger of every evaluation."""
    from functools import partial

    from mtbert.bert import Backbone
    from mtbert.records import Ended, Evaluated
    from mtbert.schedules import total_steps
    from mtbert.trainer import Trainer

    trainer = Trainer(partial(Backbone.from_arrays, base.config, base.arrays, device=device), data, device)
    stored = writer.load_checkpoint(run.run_id)
    trainer.admit(run, None if stored is None else stored[1])
    sizes = {task: len(data.splits[task, "train"].ids) for task in data.tasks}
    steps, began = total_steps(run.configuration, sizes, run.seed), time.monotonic()
    first = trainer.step_of(run.run_id)
    print(f"run {run.run_id}: {steps} steps" + (f", going on from step {first}" if first else ""))
    while trainer.members:
        for event in trainer.advance():
            if isinstance(event, Evaluated):
                writer.evaluation(run.run_id, attempt, event.record)
                step, score = event.record["step"], event.record["score"]
                said = "undefined" if score is None else f"{score:.4f}"
                left = (time.monotonic() - began) / max(1, step - first) * (steps - step)
                print(f"step {step}/{steps}  score {said}  about {left:.0f} s left")
            elif isinstance(event, Ended):
                writer.end(run.run_id, attempt, event.record, event.predictions, event.weights)
        if trainer.members:
            step, blob = trainer.step_of(run.run_id), trainer.checkpoint(run.run_id)
            writer.checkpoint(run.run_id, attempt, step, blob)


def evaluate(arguments: argparse.Namespace) -> int:
    """The metrics of a trained run on a split."""
    from mtbert.data.tokenise import tokenise

    run, inputs, model, base = _trained(arguments)
    dataset = inputs.dataset()
    if dataset.fingerprint != run.data:
        print(
            f"note: run {run.run_id} was trained on other data ({run.data}) than this ({dataset.fingerprint})"
        )
    found = model.evaluate(tokenise(dataset, base.tokenizer()), arguments.split)
    if not found:
        raise ConfigError(
            f"--split {arguments.split}: no task of run {run.run_id} has labelled examples there"
        )
    print(f"run {run.run_id} on {arguments.split}")
    for task, values in found.items():
        say_metrics({f"{task}.{metric}": value for metric, value in values.items()})
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Predictions of a trained run: for a text, or the files of the test sets."""
    from mtbert.data.tokenise import tokenise
    from mtbert.inference import write_test_predictions

    run, inputs, model, base = _trained(arguments)
    if arguments.text is not None:
        return _answer(model, arguments)
    if arguments.second is not None:
        raise ConfigError("--second: expected --text beside it, got none")
    dataset = inputs.dataset()
    data = tokenise(dataset, base.tokenizer())
    try:
        written = write_test_predictions(Path(arguments.out), model, data)
    except OSError as error:
        raise ConfigError(f"--out {arguments.out}: cannot be written: {error.strerror}") from None
    for name, path in written.items():
        print(f"{path}: {len(data.splits[name, 'test'].ids):,} predictions of run {run.run_id}")
    if not written:
        raise ConfigError(f"--data {inputs.data}: has no test set of the tasks {', '.join(model.tasks)}")
    return 0


def _answer(model: TrainedModel, arguments: argparse.Namespace) -> int:
    """What each task that fits says of one sentence, or of two."""
    from mtbert.losses import predicted

    sentences = 1 if arguments.second is None else 2
    fitting = {name: task for name, task in model.tasks.items() if task.sentences == sentences}
    if not fitting:
        want = "--text and --second" if sentences == 1 else "--text alone"
        raise ConfigError(f"no task of this run takes {sentences} sentence(s); give {want}")
    second = None if arguments.second is None else [arguments.second]
    for name, task in fitting.items():
        (value,) = predicted(task, model.outputs(name, [arguments.text], second)).tolist()
        if task.kind == "regression":
            print(f"{name}: {value:.2f} on a scale of {task.low:g} to {task.high:g}")
        else:
            print(f"{name}: class {int(value)} of 0 to {(task.classes or 2) - 1}")
    return 0


def _trained(arguments: argparse.Namespace) -> tuple[Run, Inputs, TrainedModel, Any]:
    """A run by its id or the beginning of one, with its weights over its base model."""
    from analysis.store import read, read_weights
    from mtbert.inference import TrainedModel
    from mtbert.weights import load_base

    found = read(arguments.results).find(arguments.run)
    run = Run.from_json(found.run)
    inputs = parse_inputs({**found.run.get("inputs", {}), **given_inputs(arguments)})
    weights = read_weights(arguments.results, found)
    base = load_base(inputs.model)
    model = TrainedModel(base, run, weights, inputs.dataset().tasks, arguments.device)
    return run, inputs, model, base


def _experiment(arguments: argparse.Namespace) -> tuple[Inputs, Configuration]:
    """The file's inputs and configuration with what the flags change."""
    inputs, configuration = ({}, {}) if arguments.config is None else read_file(arguments.config)
    changed = parse(with_values(configuration, parse_assignments(arguments.set)))
    return parse_inputs({**inputs, **given_inputs(arguments)}), changed


class _Parser(argparse.ArgumentParser):
    """Tells a wrong flag as every other wrong input is told."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message} (--help lists the flags)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mtbert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    about_config = "YAML of inputs and configuration; the defaults where it is left out"

    for name, command in (("params", params), ("train", train)):
        added = _command(commands, name, command)
        added.add_argument("config", nargs="?", metavar="CONFIG", help=about_config)
        added.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="low_rank.rank=4"
        )
        if command is train:
            added.add_argument("--results", default="results")
            added.add_argument("--seed", type=int, default=0)
            added.add_argument("--device", default="cpu")
            added.add_argument("--retry-failed", action="store_true")
    for name, command in (("evaluate", evaluate), ("predict", predict)):
        added = _command(commands, name, command)
        added.add_argument("run", metavar="RUN", help="a run's id, or enough of it")
        added.add_argument("--results", default="results")
        added.add_argument("--device", default="cpu")
        if command is evaluate:
            added.add_argument("--split", default="dev", choices=("train", "dev", "test", "holdout"))
        else:
            added.add_argument("--out", default=".", help="folder of the prediction files")
            added.add_argument("--text", help="a sentence to answer about instead")
            added.add_argument("--second", help="a second sentence, for the tasks of pairs")
    added = commands.add_parser("schema", help=schema.schema.__doc__)
    added.set_defaults(command=schema.schema)
    schema.add_arguments(added)
    merge.add_arguments(_command(commands, "merge", merge.merge))
    export.add_arguments(_command(commands, "export", export.export))
    pretrain.add_arguments(_command(commands, "pretrain", pretrain.pretrain))
    return parser


def _command(commands: Any, name: str, command: Any) -> argparse.ArgumentParser:
    """A command with the flags of its inputs, which all have."""
    added: argparse.ArgumentParser = commands.add_parser(name, help=command.__doc__)
    added.set_defaults(command=command)
    added.add_argument("--model", help="demo, a folder, or a name on the hub")
    added.add_argument("--data", help="demo, hub, a folder of CS 224N files, or a YAML of tasks")
    added.add_argument("--limit", help="training examples by task: 1000, or sst=500,para=2000")
    added.add_argument("--holdout", type=float, help="share of train that nothing trains or selects on")
    added.add_argument(
        "--cfimdb", choices=("leave", "task", "join"), help="CFIMDB: alone, or as SST's 0 and 4"
    )
    return added


if __name__ == "__main__":
    sys.exit(main())
