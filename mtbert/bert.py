"""A minimal BERT encoder over unpadded tokens (Devlin et al. 2019). It knows of no adapter."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from mtbert.attention import attention
from mtbert.devices import put
from mtbert.hooks import Hooks, Rows
from mtbert.linear import Linear
from mtbert.tokens import TokenBatch


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT; the names are those of the published `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's name in `Backbone` and its shape, without making one."""
        hidden, wide = self.hidden_size, self.intermediate_size
        linears = {"query": (hidden, hidden), "key": (hidden, hidden), "value": (hidden, hidden)}
        linears |= {"attention_out": (hidden, hidden), "ffn_in": (wide, hidden), "ffn_out": (hidden, wide)}
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word.weight": (self.vocab_size, hidden),
            "embeddings.position.weight": (self.max_position_embeddings, hidden),
            "embeddings.segment.weight": (self.type_vocab_size, hidden),
            "embeddings.norm.weight": (hidden,),
            "embeddings.norm.bias": (hidden,),
        }
        for layer in range(self.num_hidden_layers):
            for name, shape in linears.items():
                shapes[f"layer.{layer}.{name}.weight"] = shape
                shapes[f"layer.{layer}.{name}.bias"] = shape[:1]
            for name in ("attention_norm", "output_norm"):
                shapes[f"layer.{layer}.{name}.weight"] = (hidden,)
                shapes[f"layer.{layer}.{name}.bias"] = (hidden,)
        return shapes | {"pooler.weight": (hidden, hidden), "pooler.bias": (hidden,)}

    def linear_shape(self, target: str) -> tuple[int, int]:
        """[out, in] of a linear layer by its target name: `query`, …, `pooler`."""
        shape = self.shapes()["pooler.weight" if target == "pooler" else f"layer.0.{target}.weight"]
        return shape[0], shape[1]


class LayerNorm(nn.LayerNorm):
    """A LayerNorm that computes in its input's precision, whatever its weights are kept in."""

    def forward(self, x: Tensor) -> Tensor:
        """[rows, hidden] → [rows, hidden]"""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class Embeddings(nn.Module):
    """Word, position and segment embeddings, summed and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = _table(config.vocab_size, config.hidden_size)
        self.position = _table(config.max_position_embeddings, config.hidden_size)
        self.segment = _table(config.type_vocab_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, batch: TokenBatch, hooks: Hooks, dtype: torch.dtype) -> Tensor:
        """[tokens, hidden] of `dtype`"""
        summed = self.word(batch.ids) + self.position(batch.positions) + self.segment(batch.segment_ids)
        return hooks.drop("embeddings", self.norm(summed.to(dtype)), "token")


class Layer(nn.Module):
    """Self-attention and feed-forward network, a residual and a LayerNorm after each."""

    def __init__(self, config: BertConfig, index: int) -> None:
        super().__init__()
        hidden, wide = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.site = f"layer.{index}"
        self.query, self.key, self.value = (Linear(hidden, hidden) for _ in range(3))
        self.attention_out = Linear(hidden, hidden)
        self.ffn_in, self.ffn_out = Linear(wide, hidden), Linear(hidden, wide)
        self.attention_norm = LayerNorm(hidden, config.layer_norm_eps)
        self.output_norm = LayerNorm(hidden, config.layer_norm_eps)

    def _linear(self, name: str, x: Tensor, hooks: Hooks, rows: Rows) -> Tensor:
        linear: Linear = getattr(self, name)
        return hooks.adapt(f"{self.site}.{name}", x, linear(x), linear, rows)

    def forward(self, x: Tensor, batch: TokenBatch, hooks: Hooks, rows: Rows) -> Tensor:
        """[tokens, hidden] → [tokens, hidden], or the first tokens' [sequences, hidden] alone."""
        view = batch.attention_first if rows == "sequence" else batch.attention_all
        asking = x.index_select(0, batch.first_rows) if rows == "sequence" else x
        mixed = attention(
            self._linear("query", asking, hooks, rows),
            self._linear("key", x, hooks, "token"),
            self._linear("value", x, hooks, "token"),
            self.heads,
            view,
            hooks.attention_factors(self.site, view),
        )
        attended = hooks.drop(
            f"{self.site}.attention_out", self._linear("attention_out", mixed, hooks, rows), rows
        )
        middle = self.attention_norm(hooks.branch(f"{self.site}.attention", x, attended + asking, rows))
        wide = F.gelu(self._linear("ffn_in", middle, hooks, rows))
        fed = hooks.drop(f"{self.site}.ffn_out", self._linear("ffn_out", wide, hooks, rows), rows)
        result: Tensor = self.output_norm(hooks.branch(self.site, x, fed + middle, rows))
        return result


class Backbone(nn.Module):
    """Embeddings, layers and pooler. Embedding and encoding are apart, so that one may alter in between."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.dtype = torch.float32  # what it computes in
        self.embeddings = Embeddings(config)
        self.layer = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.pooler = Linear(config.hidden_size, config.hidden_size)
        self.requires_grad_(False)

    @staticmethod
    def from_arrays(
        config: BertConfig, arrays: Mapping[str, np.ndarray], precision: str = "float32", device: str = "cpu"
    ) -> Backbone:
        """A frozen backbone over these float32 arrays, by the names of `BertConfig.shapes`.

        In float32 on the CPU the arrays are used where they lie, and must not be written to.
        """
        with torch.device("meta"):
            backbone = Backbone(config)
        dtype = getattr(torch, precision)
        tensors = {
            name: _shared_tensor(arrays[name]).to(device=device, dtype=dtype) for name in config.shapes()
        }
        backbone.load_state_dict(tensors, assign=True)
        backbone.dtype = dtype
        return backbone.requires_grad_(False).pack()

    def pack(self) -> Backbone:
        """Lay the frozen linear layers' weights out for speed."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.pack(self.dtype)
        return self

    def trainable_copy(self) -> Backbone:
        """A backbone with weights of its own, all of which can be trained.

        They are kept in float32 at least: a bfloat16 weight would lose small steps.
        """
        with torch.device("meta"):
            copy = Backbone(self.config)
        kept = torch.promote_types(self.dtype, torch.float32)
        own = {name: value.to(kept, copy=True) for name, value in self.state_dict().items()}
        copy.load_state_dict(own, assign=True)
        copy.dtype = self.dtype
        return copy.requires_grad_(True)

    def linear(self, site: str) -> Linear:
        """The linear layer at a site: `layer.3.query`, `pooler`."""
        found = self.get_submodule(site)
        assert isinstance(found, Linear)
        return found

    def embed(self, batch: TokenBatch, hooks: Hooks) -> Tensor:
        """[tokens, hidden]"""
        embedded: Tensor = self.embeddings(batch, hooks, self.dtype)
        return embedded

    def encode(
        self, embedded: Tensor, batch: TokenBatch, hooks: Hooks, rows: Literal["token", "sequence"]
    ) -> Tensor:
        """The last layer's hidden states: [tokens, hidden], or the first tokens' [sequences, hidden]."""
        hidden = embedded
        for layer in self.layer[:-1]:
            hidden = layer(hidden, batch, hooks, "token")
        last: Tensor = self.layer[-1](hidden, batch, hooks, rows)
        return last

    def pool(self, first: Tensor, hooks: Hooks) -> Tensor:
        """The pooler over first tokens. [sequences, hidden] → [sequences, hidden]"""
        return torch.tanh(hooks.adapt("pooler", first, self.pooler(first), self.pooler, "sequence"))


def mean_pool(hidden: Tensor, batch: TokenBatch) -> Tensor:
    """The mean over each sequence's tokens. [tokens, hidden] → [sequences, hidden]"""
    sums = hidden.new_zeros(batch.sequences, hidden.shape[-1])
    sums = sums.index_add(0, batch.sequence_of_row, hidden[: batch.tokens])
    lengths = put(batch.lengths, hidden.device).to(hidden.dtype)
    return sums / lengths[:, None]


def _table(rows: int, width: int) -> nn.Embedding:
    """An embedding whose values are still to come: drawing some, even on meta, imports the compiler."""
    made: nn.Embedding = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]  # torch's own
        torch.empty(rows, width)
    )
    return made


def _shared_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor over the same memory, read-only arrays too (nothing writes to frozen weights)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
