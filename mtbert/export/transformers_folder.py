"""A run as models of transformers, its adapters merged into BERT's weights.

A classifier for each task where stock BertForSequenceClassification computes what the run does: a linear
head over the pooler of one sequence. Else BertModel, with the heads beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mtbert.export import loading
from mtbert.export.folding import Affine, backbone_of, head_of, is_one_backbone
from mtbert.export.tokenizer import write_tokenizer
from mtbert.export.trained import Trained
from mtbert.export.written import Written
from mtbert.model_folder import save_tensors, write_weights
from mtbert.slots import State
from mtbert.tasks import Task
from mtbert.weights import published_name

_PROBLEMS = {
    "classification": "single_label_classification",
    "binary": "single_label_classification",
    "regression": "regression",
}


def write(folder: Path, trained: Trained) -> Written:
    """Fills the folder with a model for each task, or with one for all and the heads."""
    why = _obstacle(trained)
    return _write_classifiers(folder, trained) if why is None else _write_encoder(folder, trained, why)


def _obstacle(trained: Trained) -> str | None:
    """Why there is no stock classifier for these tasks; None where there is one for each."""
    configuration = trained.configuration
    if configuration.features != "pooler":
        return f"the heads read `features: {configuration.features}`, the stock classifier reads the pooler"
    if configuration.pairs.encoding == "separate" and any(
        task.sentences == 2 for task in trained.tasks.values()
    ):
        return "the sentences of a pair are encoded apart (`pairs.encoding: separate`)"
    return None


def _write_classifiers(folder: Path, trained: Trained) -> Written:
    for name, task in trained.tasks.items():
        place = folder / name
        place.mkdir()
        head = _two_logits(head_of(trained, name)) if task.kind == "binary" else head_of(trained, name)
        named = {f"bert.{published_name(key)}": of for key, of in backbone_of(trained, name).items()}
        named |= {f"classifier.{key}": of for key, of in head._asdict().items()}
        write_weights(place, trained.base, named, _settings(task))
        write_tokenizer(place, trained)
    notes = [
        "A model for each task, in the folder of its name, for `AutoModelForSequenceClassification`: the "
        "adapters are merged into BERT's weights, and what adapts a head into the classifier.",
        *_of_binary(trained),
    ]
    return Written("transformers", loading.classifiers(trained), tuple(notes), "text-classification")


def _of_binary(trained: Trained) -> list[str]:
    names = [name for name, task in trained.tasks.items() if task.kind == "binary"]
    if not names:
        return []
    return [
        f"The one logit z of {', '.join(names)} stands as the two logits (0, z), so that softmax and argmax "
        "say what the sigmoid of z and z > 0 say."
    ]


def _write_encoder(folder: Path, trained: Trained, why: str) -> Written:
    alone = is_one_backbone(trained)
    for name in list(trained.tasks)[: 1 if alone else None]:
        place = folder if alone else folder / name
        place.mkdir(exist_ok=True)
        write_weights(place, trained.base, _published(backbone_of(trained, name)), _ENCODER)
    heads = {name: head_of(trained, name) for name in trained.tasks}
    named = {f"{name}.{key}": of for name, head in heads.items() for key, of in head._asdict().items()}
    save_tensors(folder / "heads.safetensors", named)
    write_tokenizer(folder, trained)
    where = "in this folder" if alone else f"in a folder by task: {', '.join(trained.tasks)}"
    notes = (
        f"BERT with the adapters merged into its weights, {where}, for `AutoModel`; the tasks' heads are in "
        "`heads.safetensors`, a linear layer each. There is no `AutoModelForSequenceClassification` of this "
        f"run: {why}.",
    )
    return Written("transformers", _code(trained, alone), notes)


_ENCODER = {"architectures": ["BertModel"]}


def _code(trained: Trained, alone: bool) -> str:
    imports = [
        "from safetensors.torch import load_file",
        "from transformers import AutoModel, AutoTokenizer",
    ]
    if alone:
        load, model = ["model = AutoModel.from_pretrained(folder)"], "model"
    else:
        names = ", ".join(f'"{name}"' for name in trained.tasks)
        load = [f'models = {{task: AutoModel.from_pretrained(f"{{folder}}/{{task}}") for task in [{names}]}}']
        model = "models[task]"
    return loading.encoder(trained, imports, load, model)


def _published(tensors: State) -> State:
    return {published_name(name): value for name, value in tensors.items()}


def _two_logits(head: Affine) -> Affine:
    """The head of one logit z as one of two, (0, z)."""
    return Affine(*(torch.cat([torch.zeros_like(each), each]) for each in head))


def _settings(task: Task) -> dict[str, Any]:
    """What the config of a task's model says beside BERT's sizes."""
    count = 1 if task.kind == "regression" else task.classes or 2
    by_number = {int(number): text for text, number in task.labels.items()}
    telling = len(by_number) == len(task.labels) == count
    names = {at: by_number[at] if telling else str(at) for at in range(count)}
    return {
        "architectures": ["BertForSequenceClassification"],
        "problem_type": _PROBLEMS[task.kind],
        "id2label": {str(at): name for at, name in names.items()},
        "label2id": {name: at for at, name in names.items()},
    }
