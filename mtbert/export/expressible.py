"""What a form of export cannot hold: told before anything is written, with the field and the way out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mtbert.adapters.factors import sites, variants
from mtbert.bert import BertConfig
from mtbert.configuration import Configuration
from mtbert.export.forms import Form
from mtbert.schema import ConfigError
from mtbert.techniques import CompressedHead, LinearHead

Reason = tuple[str, str, Form]
"""The field, what it is, and a form that can hold it."""


def check(form: Form, configuration: Configuration, config: BertConfig, tasks: Sequence[str]) -> None:
    """
    Args:
        tasks: those that the run trains.

    Raises:
        ConfigError: the form cannot hold what the run is; names the field, why, and a form that can.
    """
    if form == "safetensors":
        return
    reasons = [*_of_any(configuration, tasks)]
    if form == "peft":
        reasons += _of_peft(configuration, config, tasks)
    for field, what, other in reasons:
        raise ConfigError(
            f"configuration.{field}: {what}, which {form} cannot hold; export with --to {other} DIR"
        )


def _of_any(configuration: Configuration, tasks: Sequence[str]) -> Iterator[Reason]:
    """What neither library has a place for."""
    parallel = configuration.parallel
    if parallel is not None:
        yield "parallel", f"a function of its own beside each layer ({parallel.form})", "safetensors"
    for task in tasks:
        head = configuration.heads.of_task(task)
        if not isinstance(head, (LinearHead, CompressedHead)):
            yield f"heads.tasks.{task}", f"a head that is no linear layer ({head.kind})", "safetensors"


def _of_peft(configuration: Configuration, config: BertConfig, tasks: Sequence[str]) -> Iterator[Reason]:
    """What changes BERT otherwise than by one low-rank adapter."""
    low_rank = configuration.low_rank
    if configuration.backbone == "trained":
        yield "backbone", "trained weights of BERT's own, beside any adapter", "transformers"
    if low_rank is None:
        yield "low_rank", "no low-rank adapter at all", "transformers"
        return
    for variant, of in variants(low_rank, tasks).items():
        if not sites(of, config, []):
            field = f"low_rank.tasks.{variant}.targets" if variant in low_rank.tasks else "low_rank.targets"
            yield field, "adapters at the heads alone", "transformers"
    if configuration.biases == "trained" and low_rank.sharing == "per_task":
        what = "trained biases beside an adapter for each task, of which one alone may have them"
        yield "biases", what, "transformers"
