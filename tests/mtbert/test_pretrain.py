"""Further pretraining: loss, gradients and steps against transformers, and the head that it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from mtbert import pretrain as pretraining
from mtbert.data.tokenise import TokenisedData
from mtbert.hooks import UNALTERED, Hooks
from mtbert.masked_language import MaskedLanguageHead
from mtbert.masking import MaskedBatch, MaskedText
from mtbert.pretrain import (
    CLIP,
    WEIGHT_DECAY,
    DropoutHooks,
    MaskedLanguageModel,
    Pretraining,
    masked_loss,
    train,
)
from mtbert.schema import ConfigError, build
from mtbert.weights import DEMO_FOLDER, ModelError, load_base, published_name, read_tensors
from tests.mtbert import toys

SIZES = {name: value for name, value in vars(toys.SMALL).items() if name != "layer_norm_eps"}
ORDINARY = np.arange(toys.FIRST_WORD, toys.VOCABULARY)
HEAD = {
    "cls.predictions.bias",
    "cls.predictions.transform.dense.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.LayerNorm.bias",
}


def reference() -> BertForMaskedLM:
    """transformers' masked-LM BERT over the toy backbone's weights, with a random head, in float64."""
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    for name in HEAD:
        parameter = model.get_parameter(name)
        parameter.data += 0.2 * torch.randn(parameter.shape)
    given = {f"bert.{published_name(name)}": torch.from_numpy(of) for name, of in toys.arrays().items()}
    left = model.load_state_dict(given, strict=False)
    assert not [name for name in left.missing_keys if name.startswith("bert.")]
    return model.double()


def ours(theirs: BertForMaskedLM) -> MaskedLanguageModel:
    """The same model as this project has it, in float64."""
    published = {name: theirs.get_parameter(name).detach() for name in HEAD}
    head = MaskedLanguageHead.started(toys.SMALL, published, 0)
    return MaskedLanguageModel(toys.backbone().trainable_copy(), head.double())


def named(model: MaskedLanguageModel) -> dict[str, str]:
    """transformers' name of each of our parameters."""
    head = {id(value): name for name, value in zip(sorted(HEAD), _in_order(model.head), strict=True)}
    return {
        name: head[id(value)] if name.startswith("head.") else f"bert.{published_name(name[9:])}"
        for name, value in model.named_parameters()
    }


def _in_order(head: MaskedLanguageHead) -> list[Tensor]:
    """The head's parameters in the order of their published names."""
    return [head.bias, head.norm.bias, head.norm.weight, head.dense.bias, head.dense.weight]


def their_loss(model: BertForMaskedLM, masked: MaskedBatch) -> Tensor:
    """The mean loss of the hidden words, of padded sequences."""
    batch = masked.batch
    width = int(batch.lengths.max())
    ids, segments, attended = (torch.zeros(batch.sequences, width, dtype=torch.int64) for _ in range(3))
    labels = torch.full((batch.sequences, width), -100)
    of_row = torch.full((batch.rows,), -100)
    of_row[masked.chosen] = masked.words
    for at, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
        rows = slice(int(start), int(start + length))
        ids[at, :length], segments[at, :length] = batch.ids[rows], batch.segment_ids[rows]
        attended[at, :length], labels[at, :length] = 1, of_row[rows]
    found = model(input_ids=ids, token_type_ids=segments, attention_mask=attended, labels=labels)
    loss: Tensor = found.loss
    return loss


@pytest.fixture(scope="module")
def text(data: TokenisedData) -> MaskedText:
    return MaskedText.of(data, ORDINARY, 64, 0)


def test_loss_and_gradients_are_those_of_transformers(text: MaskedText) -> None:
    theirs, masked = reference(), text.step(0, 24, "cpu")
    mine = ours(theirs)
    loss = masked_loss(mine(masked.batch, masked.chosen, UNALTERED), masked.words)
    wanted = their_loss(theirs, masked)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    loss.backward()
    wanted.backward()
    trained = {name: value for name, value in mine.named_parameters() if value.requires_grad}
    assert len(trained) == len(list(mine.parameters())) - 2  # the pooler has no part in it
    for name, parameter in trained.items():
        gradient = theirs.get_parameter(named(mine)[name]).grad
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12), name


def test_steps_are_those_of_adamw_with_bert_s_own_decay_clipping_and_warm_up(
    text: MaskedText, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "DROPOUT", 0.0)
    settings = Pretraining(batch_size=8, learning_rate=1e-2, warmup=0.4)
    theirs = reference()
    mine = ours(theirs)
    train(mine, text, settings, 5, [].append)
    plain = [name for name, _ in theirs.named_parameters() if "LayerNorm" in name or name.endswith("bias")]
    groups = [
        {
            "params": [value for name, value in theirs.named_parameters() if (name in plain) == without],
            "weight_decay": 0.0 if without else WEIGHT_DECAY,
        }
        for without in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups)
    for step, factor in enumerate([1 / 3, 2 / 3, 3 / 3, 2 / 3, 1 / 3]):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * factor
        optimizer.zero_grad()
        their_loss(theirs, text.step(step, 8, "cpu")).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), CLIP)
        assert norm > CLIP
        optimizer.step()
    for name, parameter in mine.named_parameters():
        if "pooler" in name:
            assert torch.equal(parameter, toys.backbone().get_parameter(name.removeprefix("backbone.")))
        else:
            wanted = theirs.get_parameter(named(mine)[name])
            # a key's bias has no true gradient, and Adam makes steps of its rounding
            assert torch.allclose(parameter, wanted, rtol=1e-6, atol=1e-5 if "key.bias" in name else 1e-8), (
                name
            )


def test_dropout_is_a_function_of_its_key(text: MaskedText) -> None:
    mine, (batch, chosen, _) = ours(reference()), text.step(0, 8, "cpu")

    def logits(key: int) -> Tensor:
        return mine(batch, chosen, DropoutHooks(batch, key, toys.SMALL.num_attention_heads)).detach()

    assert torch.equal(logits(1), logits(1))
    assert not torch.allclose(logits(1), logits(2))
    assert not torch.allclose(logits(1), mine(batch, chosen, UNALTERED))


def test_every_step_of_every_seed_has_a_dropout_key_of_its_own(
    text: MaskedText, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[int] = []

    def recording(*given: Any) -> Hooks:
        keys.append(given[1])
        return UNALTERED

    monkeypatch.setattr(pretraining, "DropoutHooks", recording)
    for seed in (0, 1):
        train(ours(reference()), text, Pretraining(batch_size=2, seed=seed), 3, [].append)
    assert len(set(keys)) == 6


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 12), ({"epochs": 2}, 8), ({"steps": 7}, 7), ({"epochs": 1, "batch_size": 100}, 1)],
)
def test_an_epoch_is_a_pass_and_there_are_three_unless_told(settings: dict[str, Any], steps: int) -> None:
    assert build(Pretraining, settings, "pretraining").total_steps(100) == steps


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 3, "epochs": 1}, "pretraining: give steps or epochs, got both (3 and 1)"),
        ({"steps": 0}, "pretraining.steps: expected a number at least 1, got 0"),
        ({"learning_rate": 0}, "pretraining.learning_rate: expected a number above 0"),
        ({"warmup": 1.0}, "pretraining.warmup: expected a number below 1"),
        ({"max_length": 4}, "pretraining.max_length: expected a number at least 8, got 4"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_field(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Pretraining, settings, "pretraining")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("older", [False, True], ids=["today's names", "the hub's older names"])
def test_a_published_head_is_taken_as_it_is(tmp_path: Path, older: bool) -> None:
    theirs = reference().float()
    theirs.save_pretrained(tmp_path)
    if older:
        path = tmp_path / "model.safetensors"
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): of
            for name, of in load_file(path).items()
        }
        save_file(renamed, path)
    head = MaskedLanguageHead.started(toys.SMALL, read_tensors(tmp_path), 0)
    for name, value in head.published().items():
        assert torch.equal(value, theirs.get_parameter(name)), name


def test_half_a_head_is_refused_by_what_it_lacks() -> None:
    published = {name: value for name, value in reference().state_dict().items() if name in HEAD}
    lacking = {name: value for name, value in published.items() if "LayerNorm" not in name}
    with pytest.raises(ModelError, match=r"lacks cls\.predictions\.transform\.LayerNorm\.weight"):
        MaskedLanguageHead.started(toys.SMALL, lacking, 0)
    wrong = {**published, "cls.predictions.bias": torch.zeros(7)}
    with pytest.raises(ModelError, match=r"cls\.predictions\.bias has shape \(7,\), expected \(200,\)"):
        MaskedLanguageHead.started(toys.SMALL, wrong, 0)


def test_the_base_model_is_not_written_to() -> None:
    before = {path.name: path.read_bytes() for path in DEMO_FOLDER.iterdir()}
    base = load_base("demo")
    kept = {name: array.copy() for name, array in base.arrays.items()}
    data = toys.random_data(tasks={"sst": toys.TASKS["sst"]}, sizes=(20,))
    pretraining.pretrain(base, data, Pretraining(steps=2), [].append)
    assert all((base.arrays[name] == array).all() for name, array in kept.items())
    assert {path.name: path.read_bytes() for path in DEMO_FOLDER.iterdir()} == before
