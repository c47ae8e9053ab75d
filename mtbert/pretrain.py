"""Further pretraining by masked language modelling on the tasks' own training text (Sun et al. 2019).

Report 003, section 4.3, on its joined data sets: every training example of every task once in a pass, both
sentences of a pair in one sequence, as the tasks read them. Nothing of dev or test is read. There is no
next-sentence prediction, so that the pooler stays as it was. A pretraining that is interrupted starts again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from mtbert.attention import AttentionView, Factors
from mtbert.bert import Backbone
from mtbert.configuration import Training
from mtbert.data.tokenise import TokenisedData
from mtbert.draws import key64
from mtbert.dropout import Rates, attention_factors, drop, token_keys
from mtbert.hooks import UNALTERED, Hooks, Rows, Site
from mtbert.masked_language import MaskedLanguageHead
from mtbert.masking import MaskedText, ordinary_words
from mtbert.optimizer import rate_factor
from mtbert.schema import ConfigError, constrained
from mtbert.tokens import TokenBatch
from mtbert.weights import BaseModel, read_tensors

WEIGHT_DECAY = 0.01  # not of biases and LayerNorms; this, dropout and clipping are as in BERT's own code
DROPOUT = 0.1
CLIP = 1.0
EPOCHS = 3
_TOLD_EVERY = 20  # parts of a pretraining, and after so many seconds at the latest:
_TOLD_AFTER = 30.0


@dataclass(frozen=True)
class Pretraining:
    """How it is done. Without steps or epochs it has three epochs; an epoch is a pass over all tasks."""

    steps: int | None = constrained(None, at_least=1)
    epochs: int | None = constrained(None, at_least=1)
    batch_size: int = constrained(32, at_least=1)
    learning_rate: float = constrained(5e-5, above=0)
    warmup: float = constrained(0.1, at_least=0, below=1)
    max_length: int | None = constrained(None, at_least=8)
    seed: int = constrained(0, at_least=0)

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(f": give steps or epochs, got both ({self.steps} and {self.epochs})")

    def total_steps(self, sequences: int) -> int:
        """The steps over so many training sequences."""
        return self.steps or (self.epochs or EPOCHS) * -(-sequences // self.batch_size)


@dataclass(frozen=True)
class Progress:
    """Where a pretraining is. `loss`: the mean since this was last told; `seconds_left`: about."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Understanding:
    """How well the hidden words of the held-out text are told: mean cross-entropy (nats), and accuracy."""

    loss: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Pretrained:
    """What came out.

    Attributes:
        backbone: float32 tensors by the names of `BertConfig.shapes`.
        head: the masked-LM head's, by transformers' names.
        tokens: that were read, special ones included, repetitions too.
    """

    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    before: Understanding
    after: Understanding
    steps: int
    tokens: int


Tell = Callable[[Progress | Understanding], None]


class Diverged(ValueError):  # noqa: N818 - what the ledger calls such an ending
    """The loss is not finite any more."""


class MaskedLanguageModel(nn.Module):
    """A trainable backbone with its masked-LM head; the pooler, which has no part in it, stays."""

    def __init__(self, backbone: Backbone, head: MaskedLanguageHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        backbone.pooler.requires_grad_(False)

    def forward(self, batch: TokenBatch, rows: Tensor, hooks: Hooks) -> Tensor:
        """Logits of every word at these rows. [rows, vocabulary]"""
        hidden = self.backbone.encode(self.backbone.embed(batch, hooks), batch, hooks, "token")
        logits: Tensor = self.head(hidden.index_select(0, rows), self.backbone.embeddings.word.weight)
        return logits


class DropoutHooks(Hooks):
    """Dropout of hidden states and attention probabilities, keyed by 64 bits for each step."""

    def __init__(self, batch: TokenBatch, key: int, heads: int) -> None:
        self._keys = token_keys(batch, {0: key})
        self._rates = Rates.of([(0, batch.rows, DROPOUT)], batch.ids.device)
        self._heads = heads

    def drop(self, site: Site, x: Tensor, rows: Rows) -> Tensor:  # noqa: ARG002 - all rows are tokens here
        return drop(site, x, self._keys, self._rates)

    def attention_factors(self, site: Site, view: AttentionView) -> Factors | None:  # noqa: ARG002
        return attention_factors(site, self._keys, self._rates, self._heads)


def pretrain(
    base: BaseModel, data: TokenisedData, settings: Pretraining, tell: Tell, device: str = "cpu"
) -> Pretrained:
    """Pretrain the base model further. Equal seeds give equal weights, on one kind of CPU.

    Args:
        tell: is told how well the held-out text is understood, then how training goes, then that again.

    Raises:
        DataError: too little text.
        ModelError: a masked-LM head that is not whole.
        Diverged: the loss is not finite.
    """
    longest = base.config.max_position_embeddings
    max_length = min(settings.max_length or longest, longest)
    text = MaskedText.of(data, ordinary_words(base.tokenizer()), max_length, settings.seed)
    head = MaskedLanguageHead.started(base.config, read_tensors(base.folder), settings.seed)
    backbone = Backbone.from_arrays(base.config, base.arrays, device=device).trainable_copy()
    model = MaskedLanguageModel(backbone, head.to(device))
    before = understanding(model, text, device)
    tell(before)
    steps = settings.total_steps(len(text.training))
    tokens = train(model, text, settings, steps, tell, device)
    after = understanding(model, text, device)
    tell(after)
    tensors = {name: value.detach() for name, value in backbone.named_parameters()}
    return Pretrained(tensors, head.published(), before, after, steps, tokens)


def train(
    model: MaskedLanguageModel,
    text: MaskedText,
    settings: Pretraining,
    steps: int,
    tell: Tell,
    device: str = "cpu",
) -> int:
    """Take all steps: AdamW with linear warm-up and decay. Returns the tokens that were read."""
    optimizer, course = _optimizer(model), _Course(settings, steps, device)
    heads = model.backbone.config.num_attention_heads
    schedule = Training(warmup=settings.warmup)
    for step in range(steps):
        batch, chosen, words = text.step(step, settings.batch_size, device)
        hooks = DropoutHooks(batch, key64(settings.seed, "pretraining dropout", step), heads)
        loss = masked_loss(model(batch, chosen, hooks), words)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_factor(schedule, step, steps)
        optimizer.step()
        course.add(loss.detach(), batch.tokens)
        if course.due():
            tell(course.progress())
    return course.tokens


class _Course:
    """The losses since they were last told, and the pace."""

    def __init__(self, settings: Pretraining, steps: int, device: str) -> None:
        self._settings, self._steps = settings, steps
        self._every = -(-steps // _TOLD_EVERY)
        self._loss = torch.zeros((), device=device)
        self._step = self._counted = self.tokens = 0
        self._began = self._told = time.perf_counter()

    def add(self, loss: Tensor, tokens: int) -> None:
        """Count a step."""
        self._loss = self._loss + loss  # on its device: to look at it would wait for that
        self._step, self._counted, self.tokens = self._step + 1, self._counted + 1, self.tokens + tokens

    def due(self) -> bool:
        last = self._step == self._steps
        return last or self._step % self._every == 0 or time.perf_counter() - self._told > _TOLD_AFTER

    def progress(self) -> Progress:
        """What is told now.

        Raises:
            Diverged: the losses since are not finite.
        """
        loss = float(self._loss) / self._counted
        if not math.isfinite(loss):
            raise Diverged(
                f"pretraining: the loss is not finite by step {self._step}; lower --learning-rate "
                f"({self._settings.learning_rate:g}) or raise --warmup ({self._settings.warmup:g})"
            )
        self._loss, self._counted, self._told = torch.zeros_like(self._loss), 0, time.perf_counter()
        seconds = self._told - self._began
        left = seconds / self._step * (self._steps - self._step)
        return Progress(self._step, self._steps, loss, self.tokens / seconds, left)


def masked_loss(logits: Tensor, words: Tensor) -> Tensor:
    """The mean cross-entropy of the hidden words, zero where none is. [chosen, vocabulary], [chosen] → []"""
    return F.cross_entropy(logits, words, reduction="sum") / max(1, len(words))


@torch.no_grad()
def understanding(model: MaskedLanguageModel, text: MaskedText, device: str) -> Understanding:
    """Loss and accuracy on what is held out, without dropout, the same words hidden each time."""
    loss, right, asked = 0.0, 0, 0
    for batch, chosen, words in text.held_out_batches(device):
        logits = model(batch, chosen, UNALTERED)
        loss += float(F.cross_entropy(logits, words, reduction="sum"))
        right += int((logits.argmax(-1) == words).sum())
        asked += len(words)
    return Understanding(loss / max(1, asked), right / max(1, asked))


def _optimizer(model: MaskedLanguageModel) -> torch.optim.AdamW:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [parameter for parameter in trained if parameter.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, fused=True)
