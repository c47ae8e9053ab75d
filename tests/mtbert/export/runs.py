"""Runs whose weights are drawn rather than trained, over the embedded model, and what their exports say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.standing import Measure, Standing
from mtbert.adapters.low_rank import trained_backbone
from mtbert.checkpoint import pack_tensors
from mtbert.configuration import parse
from mtbert.data.examples import Dataset, Example
from mtbert.export.folder import export
from mtbert.export.forms import Form
from mtbert.export.trained import Trained
from mtbert.inference import TrainedModel
from mtbert.inputs import Inputs
from mtbert.member import initial_state, trained_tasks
from mtbert.run import Run
from mtbert.tensor_draws import torch_generator
from mtbert.weights import load_base
from tests.mtbert.toys import TASKS

FIRST = ["A fine film .", "the worst of all its kind", "no", "it is a very good story " * 40]
SECOND = ["A film that is fine .", "one of the best", "yes it is", "the story of a man " * 30]
SPREAD = 0.05
STANDING = Standing(
    (Measure("dev", "score", 0.5, 0.45, 0.1, (0, 1)), Measure("dev", "sst.accuracy", 0.4, 0.4, None, (0,))),
    ("some-sweep",),
    "0123abc",
    True,
    {"torch": "2"},
)
base = cache(load_base)


def dataset() -> Dataset:
    """Three tasks with an example each."""
    examples = {
        (name, split): [Example("a", "good", "fine" if task.sentences == 2 else None, 1.0)]
        for name, task in TASKS.items()
        for split in ("train", "dev")
    }
    return Dataset(TASKS, examples, (), "some data", "demo")


def trained(changes: Mapping[str, Any], model: str = "demo") -> Trained:
    """A run of this configuration whose tensors have all moved away from their start."""
    of = base(model)
    run = Run(parse(changes), 0, "some data", of.fingerprint)
    tasks = trained_tasks(run.configuration, TASKS)
    state = initial_state(run, of.config, tasks)
    for name in trained_backbone(run.configuration, of.config, tasks):
        state[f"backbone.{name}"] = torch.from_numpy(of.arrays[name].copy())
    moved = {name: value + SPREAD * drawn(name, value) for name, value in state.items()}
    return Trained(run, pack_tensors(moved, {"run": run.as_json()}), of, dataset(), Inputs(model=model))


def drawn(name: str, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch_generator(0, name))


def own_outputs(of: Trained, task: str) -> Tensor:
    """What this project computes for the texts. [texts, outputs]"""
    model = TrainedModel(of.base, of.run, of.weights, of.dataset.tasks)
    return model.outputs(task, FIRST, SECOND if TASKS[task].sentences == 2 else None)


def exported(of: Trained, form: Form, folder: Path) -> str:
    """Exports; the code of the model card."""
    export(of, form, folder, STANDING)
    return code_of(folder)


def code_of(folder: Path) -> str:
    """The code in a folder's model card."""
    (code,) = re.findall(r"```python\n(.*?)\n```", (folder / "README.md").read_text(encoding="utf-8"), re.S)
    return str(code)


def executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the code of the model card defines, when it is run where it lies."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(code_of(folder), str(folder / "README.md"), "exec"), names)
    return names


def shown_outputs(names: Mapping[str, Any], task: str) -> Tensor:
    """What the card's code computes for the texts. [texts, outputs]"""
    found = names["outputs"](task, FIRST, *([SECOND] if TASKS[task].sentences == 2 else []))
    assert isinstance(found, Tensor)
    return found.detach()
