"""Low-rank adaptation: y + s·B·A·x at any linear layer (Hu et al. 2021, Eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from mtbert.adapters.base import SlotLinear
from mtbert.adapters.factors import FactorBank
from mtbert.hooks import Site
from mtbert.linear import Linear
from mtbert.slots import SlotView


class LoRABank(FactorBank):
    """The LoRAs of several members."""

    def first_factor(self, site: Site) -> Tensor:
        """A of every slot. [slots, rank, in]"""
        return self.stack.leaf[f"{site}.A"]

    def adapt(
        self,
        site: Site,
        x: Tensor,  # noqa: ARG002 - the signature of every bank's
        dropped: Tensor,
        y: Tensor,
        linear: Linear | SlotLinear,  # noqa: ARG002
        view: SlotView,
    ) -> Tensor:
        """y + s·B·A·dropout(x), each row with its slot's factors. [rows, out]"""
        a = view.of_slots(self.first_factor(site)).to(y.dtype)  # [slots, rank, in]
        b = view.of_slots(self.stack.leaf[f"{site}.B"]).to(y.dtype)  # [slots, out, rank]
        if view.whole:
            return torch.addmm(y, dropped @ a[0].T, b[0].T, alpha=self.scale_of_slot[view.slots[0]])
        scales = view.of_slots(self.scales)[:, None, None].to(y.dtype)
        narrow = torch.bmm(view.spread(dropped), a.mT) * scales
        return y + view.collect(torch.bmm(narrow, b.mT))
