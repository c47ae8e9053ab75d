"""The demo's WordPiece vocabulary: every word of its world, and letters to spell any other with."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mtbert.demo.generator import examples, pretraining_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_LENGTH = 128  # positions of the embedded model
_PASSAGES = 20_000  # enough for each word of the world to be seen dozens of times
_CHARACTERS = string.ascii_lowercase + string.digits


def vocabulary() -> list[str]:
    """The pieces by their number: special ones, punctuation, characters, words, characters within words."""
    from tokenizers.pre_tokenizers import BertPreTokenizer

    split = BertPreTokenizer().pre_tokenize_str
    words = {word for text in _texts() for word, _ in split(text)}
    plain = set(string.punctuation) | set(_CHARACTERS)
    return [
        *SPECIAL,
        *sorted(plain),
        *sorted(words - plain),
        *(f"##{character}" for character in _CHARACTERS),
    ]


def build_tokenizer(pieces: list[str]) -> Tokenizer:
    """BERT's tokenizer over these pieces: lower-cased, accents taken off, [CLS] and [SEP] put around."""
    from tokenizers import BertWordPieceTokenizer

    numbers = {piece: number for number, piece in enumerate(pieces)}
    tokenizer: Tokenizer = BertWordPieceTokenizer(numbers, lowercase=True)._tokenizer
    return tokenizer


def save_tokenizer(pieces: list[str], folder: Path) -> None:
    """Writes `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`."""
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    build_tokenizer(pieces).save(str(folder / "tokenizer.json"))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": MAX_LENGTH,
        **dict(zip(names, SPECIAL, strict=True)),
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _texts() -> Iterable[str]:
    for split in examples().values():
        for example in split:
            yield example.first
            yield example.second or ""
    for passage in pretraining_text(0, _PASSAGES):
        yield passage.first
        yield passage.second
