"""What reaches the heads: read off the backbone, and stored where it depends on the example alone.

Over a frozen backbone that nothing alters, an example's features are the same in every step of every run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbert.batches import Request, assemble, by_length, sequence_lengths
from mtbert.bert import Backbone, mean_pool
from mtbert.configuration import Configuration, Pairs
from mtbert.data.tokenise import TokenisedData
from mtbert.heads import vectors
from mtbert.hooks import UNALTERED, Hooks
from mtbert.run import digest
from mtbert.tokens import TokenBatch

Features = Mapping[tuple[int, str], Tensor]
"""What reaches the heads, by (member, task): a vector for each example, or both sentences' side by side.
[examples, features]"""

BLOCK_TOKENS, BLOCK_TOKENS_ON_GPU = 128, 8192
"""About how many tokens a block takes: with few, little is computed that is never used; many suit a GPU."""
_STORED_AS = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.int16}


def sequence_vectors(
    backbone: Backbone, embedded: Tensor, batch: TokenBatch, hooks: Hooks, kinds: Collection[str]
) -> dict[str, Tensor]:
    """What the heads may read, from the embedded tokens on: by kind, those of `kinds` among them.

    Args:
        embedded: [tokens, hidden]

    Returns:
        [sequences, hidden] each.
    """
    if "mean" not in kinds:
        first = backbone.encode(embedded, batch, hooks, "sequence")
        found = {}
    else:
        hidden = backbone.encode(embedded, batch, hooks, "token")
        first = hidden.index_select(0, batch.first_rows)
        found = {"mean": mean_pool(hidden, batch)}
    if "pooler" in kinds:
        found["pooler"] = backbone.pool(first, hooks)
    return {**found, "cls": first}


def side_by_side(of_sequences: Tensor, number: int) -> Tensor:
    """Each example's vectors in one row. [number · examples, hidden] → [examples, number · hidden]"""
    return of_sequences if number == 1 else torch.cat(of_sequences.chunk(number), dim=1)


def depends_on_example_alone(configuration: Configuration) -> bool:
    """Whether nothing alters the backbone or drops in it, so that what reaches the heads never changes."""
    places = (configuration.low_rank, configuration.parallel, configuration.smart, configuration.merge)
    return (
        (configuration.backbone, configuration.biases) == ("frozen", "frozen")
        and all(place is None for place in places)
        and all(
            stage.dropout.backbone == 0 and stage.dropout.attention_rate == 0
            for stage in configuration.stage_list()
        )
    )


class Kind(NamedTuple):
    """What features depend on beside the example: `read` is pooler, cls or mean."""

    dtype: torch.dtype
    read: str
    max_length: int
    pairs: Pairs
    task: str
    split: str


class FeatureStore:
    """Features of the examples of one data set over one base model, computed when they are first asked for.

    They are computed in blocks of examples of like length. A block is always the same examples, so that
    its features are the same bits whoever asks for them, whenever.
    """

    def __init__(self, data: TokenisedData, device: str, folder: Path | None = None) -> None:
        """
        Args:
            folder: of files that several processes of this machine share, all for this data and this base
                model; None keeps the features in this process.
        """
        self._data, self._device, self._folder = data, device, folder
        self._names = {id(split): name for (_, name), split in data.splits.items()}
        self._shelves: dict[Kind, Shelf] = {}

    def read(
        self, backbone: Backbone, max_length: int, requests: Sequence[Request], read: Mapping[int, str]
    ) -> Features:
        """The features of all requests' examples, in the backbone's precision.

        Args:
            backbone: frozen, the base model in some precision.
            requests: of splits of this store's data.
            read: by member: pooler, cls or mean.
        """
        return {
            (request.member, request.task): self._read(backbone, max_length, request, read[request.member])
            for request in requests
        }

    def _read(self, backbone: Backbone, max_length: int, request: Request, read: str) -> Tensor:
        name = self._names[id(request.split)]
        pairs = _telling(request.pairs, self._data.tasks[request.task].sentences)
        kind = Kind(backbone.dtype, read, max_length, pairs, request.task, name)
        if kind not in self._shelves:
            self._shelves[kind] = self._shelf(kind, backbone.config.hidden_size)
        shelf = self._shelves[kind]
        rows = shelf.row[request.indices]
        blocks = shelf.block[rows]
        for block in np.unique(blocks[shelf.filled[blocks] == 0]).tolist():
            shelf.fill(block, self._compute(backbone, kind, shelf.examples(block)))
        return torch.from_numpy(shelf.values[rows]).view(kind.dtype).to(self._device)

    def _shelf(self, kind: Kind, hidden: int) -> Shelf:
        split = self._data.splits[kind.task, kind.split]
        lengths = sequence_lengths(split, kind.pairs, kind.max_length)
        tokens = BLOCK_TOKENS if self._device == "cpu" else BLOCK_TOKENS_ON_GPU
        width = hidden * vectors(self._data.tasks[kind.task], kind.pairs)
        stored = torch.empty(0, dtype=_STORED_AS[kind.dtype]).numpy().dtype
        path = None
        if self._folder is not None:
            said = [str(kind.dtype), kind.read, kind.max_length, vars(kind.pairs), tokens]
            path = self._folder / f"{kind.task}.{kind.split}.{digest([self._data.fingerprint, *said])}"
        return Shelf(lengths, tokens, width, stored, path)

    @torch.no_grad()
    def _compute(self, backbone: Backbone, kind: Kind, examples: np.ndarray) -> np.ndarray:
        """The features of some examples, as they are stored. [examples, features]"""
        split = self._data.splits[kind.task, kind.split]
        request = Request(0, kind.task, split, examples, kind.pairs)
        batch = assemble([request], self._data.special, kind.max_length, self._device)
        embedded = backbone.embed(batch, UNALTERED)
        found = sequence_vectors(backbone, embedded, batch, UNALTERED, {kind.read})[kind.read]
        of_examples = side_by_side(found, vectors(self._data.tasks[kind.task], kind.pairs))
        stored: np.ndarray = of_examples.cpu().view(_STORED_AS[kind.dtype]).numpy()
        return stored


class Shelf:
    """The features of one kind, block by block, in this process's memory or in two files.

    Attributes:
        row: int64 [examples], where an example's features lie; `block`: int64 [rows].
        values: [rows, features]; those of blocks that are not filled mean nothing.
        filled: uint8 [blocks].
    """

    def __init__(
        self, lengths: np.ndarray, block_tokens: int, width: int, stored: np.dtype, path: Path | None
    ) -> None:
        """
        Args:
            lengths: the tokens that each example takes. int64 [examples]
            path: of the files, but for their endings; they may be there already.
        """
        self._blocks = list(by_length(lengths, block_tokens))
        self._begins = np.cumsum([0, *map(len, self._blocks)])
        self.row = np.empty(len(lengths), dtype=np.int64)
        self.row[np.concatenate(self._blocks)] = np.arange(len(lengths))
        self.block = np.repeat(np.arange(len(self._blocks)), np.diff(self._begins))
        self._path = path
        self.values = self._array("values", (len(lengths), width), stored)
        self.filled = self._array("filled", (len(self._blocks),), np.dtype(np.uint8))

    def examples(self, block: int) -> np.ndarray:
        """The examples of a block. int64 [examples of the block]"""
        return self._blocks[block]

    def fill(self, block: int, values: np.ndarray) -> None:
        """Keep a block's features, and then say that they are there; another process may do the same."""
        begin, end = self._begins[block], self._begins[block + 1]
        if self._path is None:
            self.values[begin:end] = values
            self.filled[block] = 1
        else:
            _write(self._file("values"), begin * self.values.strides[0], values.tobytes())
            _write(self._file("filled"), block, b"\1")

    def _array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Zeros, or what others have written; pages that nobody fills take no memory."""
        if self._path is None:
            return np.zeros(shape, dtype)
        with open(self._file(name), "ab") as file:
            file.truncate(int(np.prod(shape)) * dtype.itemsize)
        return np.memmap(self._file(name), dtype, "r", shape=shape)

    def _file(self, name: str) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}.{name}")


def _write(path: Path, offset: int, content: bytes) -> None:
    """Written rather than mapped: a full disk is then an error, and not a signal that kills."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(content)


def _telling(pairs: Pairs, sentences: int) -> Pairs:
    """Without what makes no difference to a task of so many sentences."""
    if sentences == 1:
        return Pairs()
    return Pairs(encoding="separate") if pairs.encoding == "separate" else pairs
