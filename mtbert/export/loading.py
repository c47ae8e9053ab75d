"""The code that loads an export, as its model card shows it: ready to run, in the export's own folder.

All of it ends in a function `outputs(task, sentences[, second sentences])`, and a line for each task.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtbert.export.folding import is_one_backbone
from mtbert.export.trained import Trained
from mtbert.tasks import Task

FOLDER = 'folder = "."  # where this file lies'
SAMPLE = ('["A fine film ."]', '["A film that is fine ."]')


def told(lines: Sequence[str], trained: Trained, two_logits: bool = False) -> str:
    """The lines, and then what each task says of a sentence or of two.

    Args:
        two_logits: a binary task has a logit for each class.
    """
    calls = [
        f'print(outputs("{name}", {", ".join(SAMPLE[: task.sentences])}))  # {meaning(task, two_logits)}'
        for name, task in trained.tasks.items()
    ]
    return "\n".join([*lines, "", *calls])


def meaning(task: Task, two_logits: bool) -> str:
    """What a row of a task's outputs is, in words."""
    if task.kind == "regression":
        return f"the value, on a scale of {task.low:g} to {task.high:g}"
    if task.kind == "classification" or two_logits:
        return f"a logit for each of {task.classes or 2} classes"
    return "one logit: above 0 is class 1"


def encoder(trained: Trained, imports: Sequence[str], load: Sequence[str], model: str) -> str:
    """Code over an encoder with the heads beside it.

    Args:
        load: the lines that bring the encoder.
        model: an expression for it, in which `task` stands for the task's name.
    """
    separate = trained.configuration.pairs.encoding == "separate" and any(
        task.sentences == 2 for task in trained.tasks.values()
    )
    joined = "torch.cat([encode(task, each) for each in sentences], dim=1)"
    lines = [
        "import torch",
        *imports,
        "",
        FOLDER,
        *load,
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        'heads = load_file(f"{folder}/heads.safetensors")',
        "",
        "",
        "def encode(task, *sentences):",
        '    inputs = tokenizer(*sentences, padding=True, truncation=True, return_tensors="pt")',
        f"    found = {model}(**inputs)",
        *_read(trained.configuration.features),
        "",
        "",
        "@torch.no_grad()",
        "def outputs(task, *sentences):",
        *(["    model.set_adapter(task)"] if model == "model" and not is_one_backbone(trained) else []),
        f"    x = {joined if separate else 'encode(task, *sentences)'}",
        '    return torch.nn.functional.linear(x, heads[f"{task}.weight"], heads[f"{task}.bias"])',
        "",
    ]
    return told(lines, trained)


def classifiers(trained: Trained) -> str:
    """Code over a model with its head for each task."""
    names = ", ".join(f'"{name}"' for name in trained.tasks)
    first = next(iter(trained.tasks))
    loaded = "AutoModelForSequenceClassification.from_pretrained(folder, subfolder=task).eval()"
    lines = [
        "import torch",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        FOLDER,
        f"tasks = [{names}]",
        f"models = {{task: {loaded} for task in tasks}}",
        f'tokenizer = AutoTokenizer.from_pretrained(folder, subfolder="{first}")',
        "",
        "",
        "@torch.no_grad()",
        "def outputs(task, *sentences):",
        '    inputs = tokenizer(*sentences, padding=True, truncation=True, return_tensors="pt")',
        "    return models[task](**inputs).logits",
        "",
    ]
    return told(lines, trained, two_logits=True)


def _read(features: str) -> list[str]:
    """What the heads read of an encoder's answer."""
    if features == "pooler":
        return ["    return found.pooler_output"]
    if features == "cls":
        return ["    return found.last_hidden_state[:, 0]"]
    return [
        '    mask = inputs["attention_mask"].unsqueeze(-1)',
        "    return (found.last_hidden_state * mask).sum(1) / mask.sum(1)",
    ]
