"""The masked-LM head: from a token's hidden state to the word that stood there (Devlin et al. 2019, 3.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from mtbert.bert import BertConfig, LayerNorm
from mtbert.heads import INITIAL_SPREAD
from mtbert.linear import Linear
from mtbert.tensor_draws import torch_generator
from mtbert.weights import ModelError

PREFIX = "cls.predictions."
_PUBLISHED = {
    "dense.weight": "transform.dense.weight",
    "dense.bias": "transform.dense.bias",
    "norm.weight": "transform.LayerNorm.weight",
    "norm.bias": "transform.LayerNorm.bias",
    "bias": "bias",
}


class MaskedLanguageHead(nn.Module):
    """A dense layer, GELU, LayerNorm, and the word embeddings as the output layer, with a bias of its own."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.bias = nn.Parameter(torch.empty(config.vocab_size))

    @staticmethod
    def started(config: BertConfig, published: Mapping[str, Tensor], seed: int) -> MaskedLanguageHead:
        """The head that a model was pretrained with, or a fresh one as BERT's are drawn, float32.

        Args:
            published: the model's tensors by transformers' names; a head is there whole or not at all.

        Raises:
            ModelError: a part of a head is there, or one of another size.
        """
        head = MaskedLanguageHead(config)
        found = {own: published.get(PREFIX + name) for own, name in _PUBLISHED.items()}
        there = {own: value for own, value in found.items() if value is not None}
        if there and len(there) < len(found):
            lacking = ", ".join(PREFIX + _PUBLISHED[own] for own in found if own not in there)
            raise ModelError(f"the model's masked-LM head lacks {lacking}")
        for own, parameter in head.named_parameters():
            value = there.get(own, _fresh(own, tuple(parameter.shape), seed))
            if value.shape != parameter.shape:
                raise ModelError(
                    f"the model's {PREFIX}{_PUBLISHED[own]} has shape {tuple(value.shape)}, "
                    f"expected {tuple(parameter.shape)}"
                )
            parameter.data = value.float().clone()
        return head.requires_grad_(True)

    def published(self) -> dict[str, Tensor]:
        """The tensors by transformers' names; the output layer's weight is the word embeddings'."""
        return {PREFIX + _PUBLISHED[own]: value.detach() for own, value in self.named_parameters()}

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Logits of every word.

        Args:
            hidden: [chosen, hidden].
            words: the word embeddings. [vocabulary, hidden]

        Returns:
            [chosen, vocabulary].
        """
        return F.linear(self.norm(F.gelu(self.dense(hidden))), words, self.bias)


def _fresh(own: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Small normal weights, a LayerNorm that leaves what it is given, and no bias."""
    if own == "dense.weight":
        draw = torch_generator(seed, "initial", PREFIX + _PUBLISHED[own])
        return torch.randn(shape, generator=draw) * INITIAL_SPREAD
    return torch.ones(shape) if own == "norm.weight" else torch.zeros(shape)
