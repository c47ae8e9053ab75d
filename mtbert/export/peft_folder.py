"""A run as PEFT adapters: what stock `PeftModel.from_pretrained` loads onto transformers' BertModel.

One folder for a shared adapter, one in it by each task's name where each has its own, as PEFT itself saves
several. Written in PEFT's format without PEFT, which need not be installed:
https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtbert.adapters.factors import SHARED, scale
from mtbert.configuration import Configuration
from mtbert.export import loading
from mtbert.export.folding import head_of, magnitude
from mtbert.export.tokenizer import write_tokenizer
from mtbert.export.trained import Trained
from mtbert.export.written import Written
from mtbert.model_folder import save_tensors
from mtbert.products import products, variant_of
from mtbert.techniques import DoRA, LowRank
from mtbert.weights import published_name

_PREFIX = "base_model.model."


def write(folder: Path, trained: Trained) -> Written:
    """Fills the folder with the adapters, the heads beside them, and the tokenizer."""
    by_variant = {variant_of(trained.configuration, task)[0]: task for task in trained.tasks}
    for variant, task in by_variant.items():
        place = folder if variant == SHARED else folder / variant
        place.mkdir(exist_ok=True)
        _write_adapter(place, trained, task)
    heads = {task: head_of(trained, task) for task in trained.tasks}
    named = {
        f"{task}.{name}": value for task, head in heads.items() for name, value in head._asdict().items()
    }
    save_tensors(folder / "heads.safetensors", named)
    write_tokenizer(folder, trained)
    return Written("peft", _code(trained, list(by_variant)), _notes(trained, list(by_variant)))


def module(site: str) -> str:
    """The name of a site's module in transformers' BertModel."""
    return published_name(f"{site}.weight").removesuffix(".weight")


def adapter_config(
    configuration: Configuration, low_rank: LowRank, sites: list[str], base: str
) -> dict[str, Any]:
    """`adapter_config.json`. PEFT's s is lora_alpha/r, or lora_alpha/√r with use_rslora."""
    rooted = low_rank.scaling == "alpha_over_sqrt_rank"
    alpha = low_rank.alpha if rooted else scale(low_rank) * low_rank.rank
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": low_rank.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": low_rank.dropout,
        "target_modules": [module(site) for site in sites],
        "use_dora": isinstance(low_rank, DoRA),
        "use_rslora": rooted,
        "bias": "all" if configuration.biases == "trained" else "none",
    }


def _write_adapter(folder: Path, trained: Trained, task: str) -> None:
    configuration, config = trained.configuration, trained.base.config
    _, low_rank = variant_of(configuration, task)
    found = products(configuration, trained.state, task, config, trained.dataset.tasks)
    inner = {site: product for site, product in found if not site.startswith("heads.")}
    tensors: dict[str, Tensor] = {}
    for site, product in inner.items():
        name = f"{_PREFIX}{module(site)}"
        tensors[f"{name}.lora_A.weight"] = product.a.float()
        tensors[f"{name}.lora_B.weight"] = product.b.float()
        if isinstance(low_rank, DoRA):
            weight = torch.tensor(trained.base.arrays[f"{site}.weight"])
            tensors[f"{name}.lora_magnitude_vector"] = magnitude(trained, task, site, weight).float()
    tensors |= _biases(trained, set(inner))
    save_tensors(folder / "adapter_model.safetensors", tensors)
    settings = adapter_config(configuration, low_rank, list(inner), trained.base_name)
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _biases(trained: Trained, adapted: set[str]) -> dict[str, Tensor]:
    """The trained biases; PEFT keeps that of a layer with an adapter on the layer beneath."""
    found = {}
    for name, difference in trained.state.items():
        if name.startswith("biases."):
            site = name.removeprefix("biases.")
            beneath = ".base_layer" if site in adapted else ""
            frozen = torch.tensor(trained.base.arrays[f"{site}.bias"])
            found[f"{_PREFIX}{module(site)}{beneath}.bias"] = (frozen.double() + difference.double()).float()
    return found


def _code(trained: Trained, variants: list[str]) -> str:
    imports = [
        "from peft import PeftModel",
        "from safetensors.torch import load_file",
        "from transformers import AutoModel, AutoTokenizer",
    ]
    load = [f'base = AutoModel.from_pretrained("{trained.base_name}")']
    if variants == [SHARED]:
        load += ["model = PeftModel.from_pretrained(base, folder).eval()"]
    else:
        first, *others = variants
        load += [f'model = PeftModel.from_pretrained(base, f"{{folder}}/{first}", adapter_name="{first}")']
        load += [f'model.load_adapter(f"{{folder}}/{name}", adapter_name="{name}")' for name in others]
        load += ["model.eval()"]
    return loading.encoder(trained, imports, load, "model")


def _notes(trained: Trained, variants: list[str]) -> tuple[str, ...]:
    shared = variants == [SHARED]
    notes = [
        "One adapter for all tasks, in this folder."
        if shared
        else f"An adapter for each task, in the folder of its name: {', '.join(variants)}.",
        "The tasks' heads are in `heads.safetensors`, a linear layer each: `TASK.weight` and `TASK.bias`. "
        "PEFT keeps one head beside an adapter (`modules_to_save`), and several tasks share this encoder.",
        "Trained adapters at the heads, and heads of two layers, are folded into these layers.",
    ]
    if trained.configuration.biases == "trained":
        notes.append(
            "BERT's trained biases come with the adapter (`bias: all`) and replace the base model's."
        )
    return tuple(notes)
