"""A tokenizer's files that encode sentences and pairs as a run was trained on them, whoever loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtbert.configuration import Pairs
from mtbert.export.trained import Trained

SPECIAL = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}


def write_tokenizer(folder: Path, trained: Trained) -> None:
    """The base model's own words, with the run's special tokens, segments and length."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = trained.base.tokenizer()
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair=_pair(trained.configuration.pairs), special_tokens=ids
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it stands
        "model_max_length": trained.max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **{name: token for name, token in SPECIAL.items() if tokenizer.token_to_id(token) is not None},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _pair(pairs: Pairs) -> str:
    """Where two sentences, special tokens and segments stand; of no use where sentences are encoded apart."""
    middle = "[SEP] " if pairs.separator else ""
    segment = ":1" if pairs.segment_ids else ""
    return f"[CLS] $A {middle}$B{segment} [SEP]{segment}"
