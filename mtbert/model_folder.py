"""Writing a model's folder, whole or not at all: what `--model` and transformers read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbert.weights import ModelError, published_name

if TYPE_CHECKING:
    from torch import Tensor

    from mtbert.weights import BaseModel

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_OF_PRECISION = ("dtype", "torch_dtype")  # what is written is float32


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which appears under its name at the end of the block, and not at all if that raises.

    Raises:
        ModelError: the folder has something in it, or cannot be made.
    """
    if folder.resolve() == Path.cwd():
        raise ModelError(f"{folder}: is the folder that you are in; name a new one")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        refuse_full(folder)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be made: {error.strerror}") from None
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError as error:
            raise ModelError(f"{folder}: cannot be made: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_full(folder: Path) -> None:
    """
    Raises:
        ModelError: the folder has something in it, or is none.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: exists and is not empty; name a new folder")


def write_model(
    folder: Path, base: BaseModel, tensors: Mapping[str, Tensor], more: Mapping[str, Tensor]
) -> None:
    """A masked LM like `base` with other weights: its config and tokenizer, and one safetensors file.

    Args:
        folder: an existing one.
        tensors: float32, by the names of `BertConfig.shapes`.
        more: further ones, by transformers' names.
    """
    named = {f"bert.{published_name(name)}": value for name, value in tensors.items()} | dict(more)
    write_weights(folder, base, named, {"architectures": ["BertForMaskedLM"]})
    for name in _TOKENIZER_FILES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)


def write_weights(
    folder: Path, base: BaseModel, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """`base`'s config with other settings laid over, and one safetensors file beside it.

    Args:
        folder: an existing one.
        tensors: float32, by transformers' names.
    """
    config: dict[str, Any] = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in _OF_PRECISION}
    config |= {"model_type": "bert", **settings}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_tensors(folder / "model.safetensors", tensors)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file as the libraries of the hub write it."""
    from safetensors.torch import save

    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path.write_bytes(save(ready, metadata={"format": "pt"}))
