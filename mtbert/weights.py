"""A base model's config, weights and tokenizer, from the embedded demo, a folder or a hub name."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from mtbert.bert import BertConfig

DEMO_FOLDER = Path(__file__).parent / "demo" / "weights"
_HUB_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json", "vocab.txt")
_LINEARS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "output_norm": "output.LayerNorm",
}
_EMBEDDINGS = {
    "word": "word_embeddings",
    "position": "position_embeddings",
    "segment": "token_type_embeddings",
    "norm": "LayerNorm",
}


def published_sizes() -> dict[str, BertConfig]:
    """Sizes that are known without asking the hub, for counting."""
    from mtbert.bert import BertConfig

    return {
        "bert-base-uncased": BertConfig(30522, 768, 12, 12, 3072),
        "bert-large-uncased": BertConfig(30522, 1024, 24, 16, 4096),
    }


class ModelError(ValueError):
    """A base model that cannot be used: names the model, what is wrong with it, and the way out."""


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A pretrained model as plain arrays, to be shared by all processes of a machine.

    Attributes:
        name: as it was asked for.
        arrays: float32, by the names of `BertConfig.shapes`.
        fingerprint: of the sizes, the weights and the tokenizer.
    """

    name: str
    config: BertConfig
    arrays: dict[str, np.ndarray]
    folder: Path
    fingerprint: str

    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer, its vocabulary checked against the embedding."""
        return load_tokenizer(self.folder, self.config.vocab_size)


def load_base(model: str) -> BaseModel:
    """The base model: `demo`, a folder, or a name on the hub.

    Raises:
        ModelError: not found, not BERT, without safetensors, or lacking a tensor.
    """
    folder = resolve(model)
    config = read_config(folder)
    arrays = read_arrays(folder, config)
    return BaseModel(model, config, arrays, folder, _fingerprint(folder, config, arrays))


def resolve(model: str) -> Path:
    """The folder that holds the model; a hub name is fetched, or found in the hub's cache."""
    if model == "demo":
        return DEMO_FOLDER
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
        raise ModelError(f"model {model!r}: no such folder, and not a name on the hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES)))
    except Exception as error:
        raise ModelError(
            f"model {model!r}: no such folder, and the hub did not give it ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). Name a folder with config.json, *.safetensors and a tokenizer, "
            "or use --model demo"
        ) from error


def read_config(folder: Path) -> BertConfig:
    """The sizes in a folder's `config.json`, refused where they are not BERT's."""
    from mtbert.bert import BertConfig

    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{path}: missing; a model folder holds config.json, *.safetensors and a tokenizer")
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(data).__name__}")
    kind = data.get("model_type", "bert")
    if kind != "bert":
        raise ModelError(
            f"{path}: model_type is {kind!r}; this trainer adapts BERT (model_type 'bert') alone"
        )
    expected = {"hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        if data.get(key, value) != value:
            raise ModelError(f"{path}: {key} is {data[key]!r}; only {value!r} is supported")
    missing = [name for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                                 "intermediate_size") if name not in data]  # fmt: skip
    if missing:
        raise ModelError(f"{path}: lacks {', '.join(missing)}")
    config = BertConfig(
        **{field.name: data[field.name] for field in fields(BertConfig) if field.name in data}
    )
    if config.hidden_size % config.num_attention_heads:
        raise ModelError(
            f"{path}: hidden_size {config.hidden_size} is not a multiple of num_attention_heads "
            f"{config.num_attention_heads}"
        )
    return config


def read_arrays(folder: Path, config: BertConfig) -> dict[str, np.ndarray]:
    """The folder's tensors as float32 arrays by this project's names, every shape checked."""
    found = read_tensors(folder)
    arrays = {}
    for name, shape in config.shapes().items():
        published = published_name(name)
        if published not in found:
            raise ModelError(f"{folder}: lacks the tensor {published!r} (of {len(found)} found)")
        given = tuple(found[published].shape)
        if given != shape:
            raise ModelError(f"{folder}: {published!r} has shape {given}, expected {shape}")
        arrays[name] = found[published].float().contiguous().numpy()
    return arrays


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All of the folder's tensors by `canonical_name`."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(folder.glob("pytorch_model*.bin")) + sorted(folder.glob("*.pt"))
        if pickled:
            raise ModelError(
                f"{pickled[0]}: pickled weights are not loaded, because unpickling runs code. Convert them: "
                f"python -c \"import transformers; transformers.BertModel.from_pretrained('{folder}')"
                f".save_pretrained('{folder}-safetensors')\" and copy the tokenizer files"
            )
        raise ModelError(f"{folder}: holds no *.safetensors")
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    found[canonical_name(name)] = tensors.get_tensor(name)
        except (SafetensorError, ValueError, OSError) as error:
            raise ModelError(f"{file}: not a whole safetensors file: {error}") from None
    return found


def published_name(name: str) -> str:
    """The name that transformers' BertModel gives a tensor of `BertConfig.shapes`."""
    part, *rest = name.split(".")
    if part == "pooler":
        return f"pooler.dense.{rest[0]}"
    if part == "embeddings":
        return f"embeddings.{_EMBEDDINGS[rest[0]]}.{rest[1]}"
    return f"encoder.layer.{rest[0]}.{_LINEARS[rest[1]]}.{rest[2]}"


def canonical_name(name: str) -> str:
    """A published tensor's name without what older checkpoints add or call otherwise."""
    name = name.removeprefix("bert.")
    return re.sub(
        r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    )


def load_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """The folder's WordPiece tokenizer: `tokenizer.json`, or `vocab.txt` with `tokenizer_config.json`."""
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    whole, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if whole.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(whole))
        except Exception as error:  # the library raises no narrower one
            raise ModelError(f"{whole}: not a tokenizer: {error}") from None
    elif vocabulary.is_file():
        settings_path = folder / "tokenizer_config.json"
        settings = json.loads(settings_path.read_text(encoding="utf-8")) if settings_path.is_file() else {}
        lowercase = settings.get("do_lower_case", True)
        tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=lowercase)._tokenizer
    else:
        raise ModelError(f"{folder}: holds neither tokenizer.json nor vocab.txt")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    size = tokenizer.get_vocab_size()
    if not vocab_size - 64 <= size <= vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {size} words, the model's embedding {vocab_size}; "
            "they do not belong together"
        )
    return tokenizer


def _fingerprint(folder: Path, config: BertConfig, arrays: dict[str, np.ndarray]) -> str:
    content = hashlib.sha256(repr(config).encode())
    for name in sorted(arrays):
        content.update(name.encode())
        content.update(arrays[name].data)
    content.update(load_tokenizer(folder, config.vocab_size).to_str().encode())
    return content.hexdigest()[:12]
