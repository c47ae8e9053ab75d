"""python -m mtbert pretrain --model M --data D --out FOLDER"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbert.commands.common import FAILED, INTERRUPTED, given_inputs, say
from mtbert.inputs import parse_inputs

if TYPE_CHECKING:
    from mtbert.data.examples import Dataset
    from mtbert.pretrain import Pretrained, Pretraining, Progress, Understanding
    from mtbert.weights import BaseModel


def pretrain(arguments: argparse.Namespace) -> int:
    """Further masked-LM pretraining on the tasks' training text, into a folder for --model."""
    from mtbert.pretrain import Diverged

    try:
        return _pretrain(arguments)
    except Diverged as error:
        say(f"error: {error}", error=True)
        return FAILED
    except KeyboardInterrupt:
        say("interrupted; nothing is written, the same command starts again", error=True)
        return INTERRUPTED


def add_arguments(added: argparse.ArgumentParser) -> None:
    """The command's own flags."""
    added.add_argument("--out", required=True, metavar="FOLDER", help="a new folder for the model")
    added.add_argument("--steps", type=int)
    added.add_argument("--epochs", type=int, help="passes over all tasks; 3 where steps are not given either")
    added.add_argument("--batch-size", type=int, help="sequences in a step (32)")
    added.add_argument("--learning-rate", type=float, help="at its highest (5e-5)")
    added.add_argument("--warmup", type=float, help="part of the steps (0.1)")
    added.add_argument("--max-length", type=int, help="tokens of a sequence (the model's own)")
    added.add_argument("--seed", type=int)
    added.add_argument("--device", default="cpu")


def _pretrain(arguments: argparse.Namespace) -> int:
    from mtbert.data.tokenise import tokenise
    from mtbert.model_folder import new_folder, write_model
    from mtbert.pretrain import Pretraining, pretrain
    from mtbert.schema import build
    from mtbert.weights import load_base

    given = {field.name: getattr(arguments, field.name) for field in fields(Pretraining)}
    given = {name: value for name, value in given.items() if value is not None}
    settings = build(Pretraining, given, "pretraining")
    inputs = parse_inputs(given_inputs(arguments))
    folder = Path(arguments.out).expanduser()
    with new_folder(folder) as writing:
        base, dataset = load_base(inputs.model), inputs.dataset()
        data = tokenise(dataset, base.tokenizer(), splits=("train",))
        sizes = ", ".join(f"{len(data.splits[task, 'train'].ids):,} of {task}" for task in data.tasks)
        say(f"pretraining {inputs.model} on training text: {sizes}")
        found = pretrain(base, data, settings, _tell, arguments.device)
        write_model(writing, base, found.backbone, found.head)
        text = json.dumps(_account(base, dataset, settings, found), indent=2) + "\n"
        (writing / "pretraining.json").write_text(text, encoding="utf-8")
    say(f"\nmodel in {folder}; next:")
    say(f"  python -m mtbert train --model {folder} --data {inputs.data}")
    return 0


def _tell(said: Progress | Understanding) -> None:
    from mtbert.pretrain import Understanding

    if isinstance(said, Understanding):
        say(f"held-out text: loss {said.loss:.4f}, {said.accuracy:.2%} of the hidden words")
    else:
        say(
            f"step {said.step:,}/{said.steps:,}  loss {said.loss:.4f}  "
            f"{said.tokens_per_second:,.0f} tokens/s  about {said.seconds_left:.0f} s left"
        )


def _account(
    base: BaseModel, dataset: Dataset, settings: Pretraining, found: Pretrained
) -> Mapping[str, Any]:
    """What the model came from, as JSON."""
    import torch

    return {
        "base": {"model": base.name, "fingerprint": base.fingerprint},
        "data": {"source": dataset.source, "fingerprint": dataset.fingerprint},
        "settings": asdict(settings),
        "steps": found.steps,
        "tokens": found.tokens,
        "held_out": {"before": asdict(found.before), "after": asdict(found.after)},
        "torch": torch.__version__,
    }
