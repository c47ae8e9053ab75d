"""All that may alter a forward pass: made for a batch and passed in, never injected into the model."""

from __future__ import annotations

from torch import Tensor

from mtbert.attention import AttentionView, Factors
from mtbert.linear import Linear

Site = str
"""A named place: `layer.3.query`, `layer.3.attention_out`, `layer.3.ffn_in`, `pooler`; the branches
`layer.3.attention` and `layer.3`, before each LayerNorm; `embeddings`; the heads, `heads.sst`."""

Rows = str
"""What the rows of a tensor are: `token`, one for each token; `sequence`, one for each sequence
(its first token, or what is pooled of it); others that the hooks name themselves."""


class Hooks:
    """Hooks that alter nothing; the base of those that do."""

    def adapt(self, site: Site, x: Tensor, y: Tensor, linear: Linear, rows: Rows) -> Tensor:  # noqa: ARG002
        """What a linear layer gives, from its input x [rows, in] and y = x Wᵀ + b [rows, out]."""
        return y

    def branch(self, site: Site, x: Tensor, y: Tensor, rows: Rows) -> Tensor:  # noqa: ARG002
        """What a LayerNorm is given, from the residual sum y [rows, hidden].

        Args:
            x: the layer's input, always of all tokens. [tokens, hidden]
        """
        return y

    def drop(self, site: Site, x: Tensor, rows: Rows) -> Tensor:  # noqa: ARG002
        """Dropout of hidden states. [rows, hidden]"""
        return x

    def attention_factors(self, site: Site, view: AttentionView) -> Factors | None:  # noqa: ARG002
        """What multiplies the attention probabilities of a layer, or None for nothing."""
        return None


UNALTERED = Hooks()
