"""Token ids of a data set: made once, read-only, and taken apart into arrays that processes can share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mtbert.configuration import Pairs
from mtbert.data.examples import Dataset, Example
from mtbert.schema import build, plain
from mtbert.tasks import Task
from mtbert.weights import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH = 10_000  # sentences that are tokenised together
_SINGLE = 2  # special tokens about a sentence, [CLS] and [SEP]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths, end to end: row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: int32 [tokens]
        offsets: int64 [rows + 1]
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]"""
        return np.diff(self.offsets)


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """One split of one task. Sentences have no special tokens and are not cut.

    Attributes:
        ids: of the examples.
        second: None where the task has one sentence.
        labels: float32 [examples], nan where there is none.
    """

    ids: tuple[str, ...]
    first: Ragged
    second: Ragged | None
    labels: np.ndarray


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of [CLS], [SEP], [PAD] and [MASK]."""

    cls: int
    sep: int
    pad: int
    mask: int


@dataclass(frozen=True, eq=False)
class TokenisedData:
    """All splits as read-only arrays. `describe` and `arrays` take it apart, `from_arrays` copies nothing.

    Attributes:
        splits: by (task, split).
    """

    tasks: Mapping[str, Task]
    fingerprint: str
    splits: Mapping[tuple[str, str], TokenSplit]
    special: SpecialTokens

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by its name; the examples' ids as UTF-8 end to end."""
        found: dict[str, np.ndarray] = {}
        for (task, split), of in self.splits.items():
            name = f"{task}/{split}"
            encoded = [example_id.encode() for example_id in of.ids]
            found[f"{name}/ids"] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
            found[f"{name}/id_offsets"] = _offsets(map(len, encoded))
            found[f"{name}/labels"] = of.labels
            for side, ragged in (("first", of.first), ("second", of.second)):
                if ragged is not None:
                    found[f"{name}/{side}"] = ragged.values
                    found[f"{name}/{side}_offsets"] = ragged.offsets
        return found

    def describe(self) -> dict[str, Any]:
        """All but the arrays, as JSON has it."""
        return {
            "tasks": [plain(task) for task in self.tasks.values()],
            "fingerprint": self.fingerprint,
            "splits": [list(key) for key in self.splits],
            "special": asdict(self.special),
        }

    @staticmethod
    def from_arrays(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> TokenisedData:
        """The data that `describe` and `arrays` told of, over these very arrays."""
        tasks = [build(Task, task, "task") for task in description["tasks"]]
        splits = {(task, split): _split(arrays, f"{task}/{split}") for task, split in description["splits"]}
        special = SpecialTokens(**description["special"])
        return TokenisedData({task.name: task for task in tasks}, description["fingerprint"], splits, special)


def tokenise(
    dataset: Dataset, tokenizer: Tokenizer, *, splits: Collection[str] | None = None
) -> TokenisedData:
    """Token ids of every sentence, without special tokens and without truncation.

    Args:
        splits: those to tokenise; all if None. Training needs no test.

    Raises:
        ModelError: the tokenizer lacks a special token, or gives ids beyond its vocabulary.
    """
    special = _special(tokenizer)
    tokenizer = _uncut(tokenizer)
    found = {}
    for (task, split), examples in dataset.examples.items():
        if splits is None or split in splits:
            found[task, split] = _tokenised(dataset.tasks[task], examples, tokenizer)
    return TokenisedData(dataset.tasks, dataset.fingerprint, found, special)


def truncated(data: TokenisedData, pairs: Pairs, max_length: int) -> dict[tuple[str, str], int]:
    """How many sequences of each (task, split) would be cut to `max_length`, special tokens included.

    A pair is one sequence, or two where sentences are encoded separately.
    """
    counts = {}
    for key, split in data.splits.items():
        lengths = [split.first.lengths + _SINGLE]
        if split.second is not None and pairs.encoding == "separate":
            lengths.append(split.second.lengths + _SINGLE)
        elif split.second is not None:
            lengths = [lengths[0] + split.second.lengths + pairs.separator]
        counts[key] = sum(int((each > max_length).sum()) for each in lengths)
    return counts


def _tokenised(task: Task, examples: Sequence[Example], tokenizer: Tokenizer) -> TokenSplit:
    labels = [np.nan if example.label is None else example.label for example in examples]
    second = None
    if task.sentences == 2:
        second = _ragged([example.second or "" for example in examples], tokenizer)
    return TokenSplit(
        tuple(example.example_id for example in examples),
        _ragged([example.first for example in examples], tokenizer),
        second,
        _read_only(np.array(labels, dtype=np.float32)),
    )


def _ragged(sentences: Sequence[str], tokenizer: Tokenizer) -> Ragged:
    values: list[np.ndarray] = []
    lengths: list[int] = []
    for begin in range(0, len(sentences), _BATCH):
        batch = list(sentences[begin : begin + _BATCH])
        found = [encoding.ids for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
        lengths += map(len, found)
        values.append(np.fromiter(chain.from_iterable(found), dtype=np.int32))
    joined = np.concatenate(values) if values else np.empty(0, dtype=np.int32)
    return Ragged(_read_only(joined), _offsets(lengths))


def _special(tokenizer: Tokenizer) -> SpecialTokens:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    missing = [token for token in ("[CLS]", "[SEP]", "[PAD]", "[MASK]") if token not in vocabulary]
    if missing:
        raise ModelError(
            f"the tokenizer lacks {', '.join(missing)} among its {len(vocabulary)} words; expected BERT's own"
        )
    word, highest = max(vocabulary.items(), key=lambda item: item[1])
    if highest >= len(vocabulary):
        raise ModelError(
            f"the tokenizer gives {word!r} the id {highest}, and has {len(vocabulary)} words; "
            "expected ids below the number of words"
        )
    return SpecialTokens(*(vocabulary[token] for token in ("[CLS]", "[SEP]", "[PAD]", "[MASK]")))


def _uncut(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without truncation and padding of its own; the caller's is left as it is."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _split(arrays: Mapping[str, np.ndarray], name: str) -> TokenSplit:
    text, bounds = arrays[f"{name}/ids"].tobytes(), arrays[f"{name}/id_offsets"].tolist()
    sides = [
        Ragged(_read_only(arrays[f"{name}/{side}"]), _read_only(arrays[f"{name}/{side}_offsets"]))
        for side in ("first", "second")
        if f"{name}/{side}" in arrays
    ]
    return TokenSplit(
        tuple(text[begin:end].decode() for begin, end in pairwise(bounds)),
        sides[0],
        sides[1] if len(sides) == 2 else None,
        _read_only(arrays[f"{name}/labels"]),
    )


def _offsets(lengths: Iterable[int]) -> np.ndarray:
    return _read_only(np.cumsum([0, *lengths], dtype=np.int64))


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that refuses writes."""
    view = array.view()
    view.flags.writeable = False
    return view
