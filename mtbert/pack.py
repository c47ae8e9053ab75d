"""Runs that advance together over one frozen backbone: their banks, and one forward pass for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtbert.adapters.base import Admitted, Bank, BranchBank, SiteBank, SlotLinear, master_type
from mtbert.adapters.places import PLACES
from mtbert.attention import AttentionView, Factors
from mtbert.bert import Backbone
from mtbert.configuration import Dropout
from mtbert.devices import put
from mtbert.dropout import Rated, Rates, attention_factors, drop, token_keys
from mtbert.features import Features, sequence_vectors, side_by_side
from mtbert.heads import HeadBank, vectors
from mtbert.hooks import Hooks, Rows, Site
from mtbert.linear import Linear
from mtbert.slots import SlotView, State, Stretch
from mtbert.tasks import Task
from mtbert.techniques import Head, Uncertainty
from mtbert.tokens import Span, TokenBatch
from mtbert.weighting import LogVarianceBank


@dataclass(frozen=True, eq=False)
class Layout:
    """What the rows of a tensor are: whose, and where their keys for dropout come from.

    Attributes:
        stretches: (member, task, start, stop), covering all rows in order.
        rows: how many.
        tokens: int64 [rows], the token row of each, or None where they are the token rows.
    """

    stretches: Sequence[tuple[int, str, int, int]]
    rows: int
    tokens: Tensor | None


@dataclass(frozen=True, eq=False)
class TaskOutput:
    """What the heads of one task gave.

    Attributes:
        outputs: [examples, outputs] of all members, in the order of `members`.
        members: (member, start, stop) along the examples.
    """

    task: Task
    outputs: Tensor
    members: Sequence[tuple[int, int, int]]


class Pack:
    """The banks of several members over one backbone."""

    def __init__(
        self, backbone: Backbone, admitted: Sequence[Admitted], tasks: Mapping[str, Task], device: str
    ) -> None:
        self.backbone, self.tasks = backbone, tasks
        self.admitted = {member.index: member for member in admitted}
        config = backbone.config
        heads: dict[tuple[str, Head, int, bool], list[Admitted]] = {}
        for member in admitted:
            configuration = member.configuration
            for task in member.tasks:
                head, number = configuration.heads.of_task(task), vectors(tasks[task], configuration.pairs)
                heads.setdefault((task, head, number, configuration.heads.trained), []).append(member)
        self.adapters = [
            bank for place in PLACES.values() for bank in place.banks(admitted, backbone, tasks, device)
        ]
        dtype = master_type(admitted[0].configuration.precision)
        self.head_banks = [
            HeadBank(tasks[task], group, config.hidden_size, dtype, device)
            for (task, *_), group in heads.items()
        ]
        uncertain = [member for member in admitted if isinstance(member.configuration.weighting, Uncertainty)]
        self._log_variances = [LogVarianceBank(uncertain, device)] if uncertain else []
        self.by_site: dict[Site, list[SiteBank]] = {}
        self.branches: dict[Site, list[BranchBank]] = {}
        for bank in self.adapters:
            for site in bank.sites:
                if isinstance(bank, BranchBank):
                    self.branches.setdefault(site, []).append(bank)
                else:
                    self.by_site.setdefault(site, []).append(bank)

    @property
    def banks(self) -> list[Bank]:
        return [*self.adapters, *self.head_banks, *self._log_variances]

    def zero_gradients(self) -> None:
        """In place: the leaves' gradients are views, and must stay."""
        for bank in self.banks:
            if bank.stack.gradients is not None:
                bank.stack.gradients.zero_()

    def state_of(self, member: int) -> State:
        """All that a member has in the banks, by name."""
        state: State = {}
        for bank in self.banks:
            for slot, owner in enumerate(bank.members):
                if owner == member:
                    state |= bank.stack.read(bank.stack.values[slot], slot)
        return state

    def log_variances(self, member: int) -> dict[str, Tensor]:
        """A member's log σ² by task; none where its weighting trains none."""
        return {task: s for bank in self._log_variances for task, s in bank.of_member(member).items()}

    def forward(
        self,
        batch: TokenBatch,
        dropouts: Mapping[int, Dropout] | None,
        keys: Mapping[int, int],
        stored: Features | None = None,
    ) -> list[TaskOutput]:
        """The outputs of every (member, task) in the batch, a list entry for each head bank that has rows.

        Args:
            dropouts: each member's rates in training; None to drop nothing.
            keys: each member's 64 bits for the masks of this step.
            stored: what reaches the heads, where the backbone need not run for it.
        """
        hooks = PackHooks(self, batch, dropouts, keys)
        if stored is not None:
            return self.heads_over(stored, batch, hooks)
        return self.outputs(self.backbone.embed(batch, hooks), batch, hooks)

    def outputs(self, embedded: Tensor, batch: TokenBatch, hooks: PackHooks) -> list[TaskOutput]:
        """`forward` from the embedded tokens on. [tokens, hidden]"""
        return self.heads_over(self._features(embedded, batch, hooks), batch, hooks)

    def heads_over(self, features: Features, batch: TokenBatch, hooks: PackHooks) -> list[TaskOutput]:
        """What the heads give over what reaches them."""
        outputs = []
        for bank in self.head_banks:
            spans = [span for span in batch.spans if bank.slot_of(span.member, span.task) is not None]
            if spans:
                outputs.append(self._head(bank, spans, features, hooks))
        return outputs

    def _features(self, embedded: Tensor, batch: TokenBatch, hooks: PackHooks) -> Features:
        of_member = {at: member.configuration for at, member in self.admitted.items()}
        kinds = {of_member[int(member)].features for member in set(batch.member.tolist())}
        found = sequence_vectors(self.backbone, embedded, batch, hooks, kinds)
        features = {}
        for span in batch.spans:
            configuration = of_member[span.member]
            number = vectors(self.tasks[span.task], configuration.pairs)
            of_span = found[configuration.features][span.sequences]
            features[span.member, span.task] = side_by_side(of_span, number)
        return features

    def _head(
        self, bank: HeadBank, spans: Sequence[Span], features: Features, hooks: PackHooks
    ) -> TaskOutput:
        parts, stretches, first_sequences, members = [], [], [], []
        begin = 0
        for span in spans:
            of_span = features[span.member, span.task]
            end = begin + len(of_span)
            parts.append(of_span)
            first_sequences.append(np.arange(span.sequences.start, span.sequences.start + len(of_span)))
            stretches.append((span.member, span.task, begin, end))
            members.append((span.member, begin, end))
            begin = end
        x = parts[0] if len(parts) == 1 else torch.cat(parts)
        rows = f"{bank.site} #{self.head_banks.index(bank)}"  # a task has several banks if its heads differ
        hooks.lay_out(rows, stretches, np.concatenate(first_sequences))
        x = hooks.drop_head_input(bank.site, x, rows)
        outputs = bank.forward(
            x, hooks.view(bank, rows), lambda site, within: hooks.drop_head_input(site, within, rows)
        )
        outputs = hooks.adapt_head(bank, x, outputs, rows)
        return TaskOutput(bank.task, outputs, members)


class PackHooks(Hooks):
    """The members' adapters and dropout in one forward pass."""

    def __init__(
        self,
        pack: Pack,
        batch: TokenBatch,
        dropouts: Mapping[int, Dropout] | None,
        keys: Mapping[int, int],
    ) -> None:
        self.pack, self.batch, self.dropouts = pack, batch, dropouts
        self._layouts = {
            "token": Layout([(s.member, s.task, s.rows.start, s.rows.stop) for s in batch.spans],
                            batch.rows, None),
            "sequence": Layout([(s.member, s.task, s.sequences.start, s.sequences.stop)
                                for s in batch.spans], batch.sequences, batch.first_rows),
        }  # fmt: skip
        self._views: dict[tuple[int, Rows], SlotView] = {}
        self._keys = {} if dropouts is None else {"token": token_keys(batch, dict(keys))}
        self._rates: dict[tuple[str, Rows], Rates | None] = {}

    def lay_out(
        self, rows: Rows, stretches: Sequence[tuple[int, str, int, int]], sequences: np.ndarray
    ) -> None:
        """Name a new kind of rows: one for each of these sequences. int64 [rows]"""
        tokens = self.batch.first_rows[put(sequences, self.batch.first_rows.device)]
        self._layouts[rows] = Layout(stretches, len(sequences), tokens)

    def view(self, bank: Bank, rows: Rows) -> SlotView:
        """The rows that each of the bank's slots takes."""
        known = self._views.get((id(bank), rows))
        if known is None:
            layout = self._layouts[rows]
            slots = [
                (bank.slot_of(member, task), start, stop) for member, task, start, stop in layout.stretches
            ]
            taken = [Stretch(slot, start, stop) for slot, start, stop in slots if slot is not None]
            known = SlotView(taken, layout.rows, self.batch.ids.device)
            self._views[id(bank), rows] = known
        return known

    def adapt(self, site: Site, x: Tensor, y: Tensor, linear: Linear, rows: Rows) -> Tensor:
        for bank in self.pack.by_site.get(site, ()):
            y = self._adapt_by(bank, site, x, y, linear, rows)
        return y

    def adapt_head(self, head: HeadBank, x: Tensor, y: Tensor, rows: Rows) -> Tensor:
        """What adapters make of a head's output; each of their slots sees its own member's head."""
        for bank in self.pack.by_site.get(head.site, ()):
            adapted = [bank.members[slot] for slot in self.view(bank, rows).slots]
            if adapted:  # a head of another kind than linear has no layer to adapt
                y = self._adapt_by(bank, head.site, x.to(y.dtype), y, head.layers(adapted), rows)
        return y

    def _adapt_by(
        self, bank: SiteBank, site: Site, x: Tensor, y: Tensor, linear: Linear | SlotLinear, rows: Rows
    ) -> Tensor:
        view = self.view(bank, rows)
        if not view.slots:
            return y
        return bank.adapt(site, x, self._drop_by(bank, f"{site}.adapter", x, rows), y, linear, view)

    def branch(self, site: Site, x: Tensor, y: Tensor, rows: Rows) -> Tensor:
        for bank in self.pack.branches.get(site, ()):
            asked = self.view(bank, rows)
            if asked.slots:
                added = bank.transform(site, x, self.batch, self.view(bank, "token"), asked, rows)
                y = y + self._drop_by(bank, f"{site}.branch", added, rows)
        return y

    def drop(self, site: Site, x: Tensor, rows: Rows) -> Tensor:
        if self.dropouts is None:
            return x
        return drop(site, x, self._row_keys(rows), self._rates_of("backbone", rows))

    def drop_head_input(self, site: Site, x: Tensor, rows: Rows) -> Tensor:
        """Dropout before a head, or within it. [examples, features]"""
        if self.dropouts is None:
            return x
        return drop(site, x, self._row_keys(rows), self._rates_of("heads", rows))

    def attention_factors(self, site: Site, view: AttentionView) -> Factors | None:  # noqa: ARG002
        if self.dropouts is None:
            return None
        heads = self.pack.backbone.config.num_attention_heads
        return attention_factors(
            site, self._row_keys("token"), self._rates_of("attention_rate", "token"), heads
        )

    def _drop_by(self, bank: SiteBank | BranchBank, site: Site, x: Tensor, rows: Rows) -> Tensor:
        """Dropout of an adapter's own."""
        if self.dropouts is None:
            return x
        purpose = f"adapters.{id(bank)}"
        if (purpose, rows) not in self._rates:
            self._rates[purpose, rows] = Rates.of(list(self._bank_rates(bank, rows)), x.device)
        return drop(site, x, self._row_keys(rows), self._rates[purpose, rows])

    def _bank_rates(self, bank: SiteBank | BranchBank, rows: Rows) -> Iterable[tuple[int, int, float]]:
        """The rate of each stretch: the stage's, or else the adapter's own; zero where it has none."""
        assert self.dropouts is not None
        for member, task, start, stop in self._layouts[rows].stretches:
            slot = bank.slot_of(member, task)
            of_stage = self.dropouts[member].adapters
            own = None if slot is None else bank.rates[slot]
            yield start, stop, 0.0 if own is None else own if of_stage is None else of_stage

    def _rates_of(self, purpose: str, rows: Rows) -> Rates | None:
        assert self.dropouts is not None
        if (purpose, rows) not in self._rates:
            rated: Rated = [
                (start, stop, getattr(self.dropouts[member], purpose))
                for member, _, start, stop in self._layouts[rows].stretches
            ]
            self._rates[purpose, rows] = Rates.of(rated, self.batch.ids.device)
        return self._rates[purpose, rows]

    def _row_keys(self, rows: Rows) -> Tensor:
        """int32 [rows, 1]: a sequence's or an example's key is its first token's."""
        if rows not in self._keys:
            tokens = self._layouts[rows].tokens
            assert tokens is not None
            self._keys[rows] = self._keys["token"].index_select(0, tokens)
        return self._keys[rows]
