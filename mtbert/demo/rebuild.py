"""Rebuilds the embedded model from its seed: python -m mtbert.demo.rebuild [--out DIR] [--passages N]

Masked LM and next-sentence prediction (Devlin et al. 2019), and detection of replaced words (Clark et al.
2020), over `generator.pretraining_text`, on one thread: with the same torch on the same kind of machine the
weights come out the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from safetensors.torch import save_file
from torch import Tensor, nn

from mtbert.demo.corpus import Corrupted, Encoded, Kinds, corrupt, encode
from mtbert.demo.vocabulary import MAX_LENGTH, build_tokenizer, save_tokenizer, vocabulary

SEED = 1
PASSAGES = 384_000
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
WARMUP = 0.05
LOSS_WEIGHTS = (1.0, 4.0, 1.0)  # of masked words, of false words, of whether the second text follows
SAY_EVERY = 500
WEIGHTS = Path(__file__).parent / "weights"
CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": MAX_LENGTH,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.06,  # of the order of 1 / sqrt(hidden): with BERT's 0.02 learning starts late
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "pad_token_id": 0,
}
"""What is written as config.json; pretraining itself, which sees no passage twice, has no dropout."""


class Pretrained(nn.Module):
    """BERT with the heads it is pretrained with; only BERT is kept."""

    def __init__(self, words: int) -> None:
        from transformers import BertConfig, BertForPreTraining

        super().__init__()
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config = BertConfig(**CONFIG | dropout, vocab_size=words)
        self.model = BertForPreTraining(config)
        self.falsity = nn.Linear(config.hidden_size, 1)

    def losses(self, batch: Encoded, read: Corrupted) -> Tensor:
        """The losses of masked words, of false words, and of whether the second text follows. [3]"""
        output = self.model.bert(
            input_ids=torch.from_numpy(read.ids),
            token_type_ids=torch.from_numpy(batch.segments),
            attention_mask=torch.from_numpy(batch.attended),
        )
        masked, doubted = torch.from_numpy(read.masked), torch.from_numpy(read.doubted)
        words = self.model.cls.predictions(output.last_hidden_state[masked])
        falsity = self.falsity(output.last_hidden_state[doubted])[:, 0]
        relation = self.model.cls.seq_relationship(output.pooler_output)
        return torch.stack(
            [
                F.cross_entropy(words, torch.from_numpy(batch.ids)[masked]),
                F.binary_cross_entropy_with_logits(falsity, torch.from_numpy(read.false)[doubted].float()),
                F.cross_entropy(relation, torch.from_numpy(batch.strangers)),
            ]
        )


def pretrain(passages: int, seed: int, pieces: list[str]) -> Pretrained:
    """The model after one pass over so many passages."""
    torch.manual_seed(seed)
    random = np.random.Generator(np.random.Philox(seed))
    model, kinds = Pretrained(len(pieces)), Kinds(pieces)
    corpus = encode(seed, passages, build_tokenizer(pieces))
    steps = passages // BATCH_SIZE
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    weights = torch.tensor(LOSS_WEIGHTS)
    began, sums = time.process_time(), np.zeros(len(weights))
    for step, batch in enumerate(corpus.batches(BATCH_SIZE, random), start=1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(step / (WARMUP * steps), (steps + 1 - step) / steps, 1.0)
        losses = model.losses(batch, corrupt(batch, kinds, random))
        optimizer.zero_grad()
        (losses @ weights).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        sums += losses.detach().numpy()
        if step % SAY_EVERY == 0 or step == steps:
            _say_losses(step, steps, sums / ((step - 1) % SAY_EVERY + 1), time.process_time() - began)
            sums[:] = 0
    return model


def rebuild(folder: Path, passages: int = PASSAGES, seed: int = SEED) -> None:
    """Pretrains and writes the model's folder: config, weights and tokenizer."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    pieces = vocabulary()
    model = pretrain(passages, seed, pieces)
    tensors = {name: parameter.detach() for name, parameter in model.model.bert.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    text = json.dumps({**CONFIG, "vocab_size": len(pieces)}, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    save_tokenizer(pieces, folder)
    _say(f"{sum(tensor.numel() for tensor in tensors.values()):,} parameters in {folder}")


def main(argv: Sequence[str] | None = None) -> int:
    """Rebuilds the embedded model where it lies, or in another folder."""
    parser = argparse.ArgumentParser(prog="python -m mtbert.demo.rebuild", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="folder to write to (default: the package's)"
    )
    parser.add_argument("--passages", type=int, default=PASSAGES, help="passages to pretrain on")
    arguments = parser.parse_args(argv)
    rebuild(arguments.out, arguments.passages)
    return 0


def _say_losses(step: int, steps: int, losses: np.ndarray, seconds: float) -> None:
    words, falsity, relation = losses
    _say(
        f"step {step:,} of {steps:,}: loss of masked words {words:.3f}, of false words {falsity:.3f}, "
        f"of following {relation:.3f}; {seconds:.0f} s"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
