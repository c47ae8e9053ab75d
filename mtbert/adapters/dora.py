"""Weight-decomposed low-rank adaptation: m·(W + s·B·A)/‖W + s·B·A‖, norms by output rows (Liu et al. 2024).

With the gain g = m/‖W + s·B·A‖ the layer gives y + (g − 1)·W·x + g·s·B·A·x, so that its bias is not scaled.
Where the adapter's input is dropped, both added terms read what is left of it (as in the peft library).
The norm is a constant in the gradient (section 4.3 of the paper).

The magnitude m is kept as its difference from ‖W‖'s rows: zero at first, whatever the backbone. Weight decay
therefore draws m towards ‖W‖, and an adapter decayed to nothing is the layer as it was; decaying m itself
would draw it to zero. A head's own W may be trained: ‖W‖ is then that of the present W, a constant in the
gradient too, and an adapter that has not moved leaves that training as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

from mtbert.adapters.base import Admitted, Shapes, SlotLinear
from mtbert.adapters.factors import FactorBank
from mtbert.bert import BertConfig
from mtbert.hooks import Site
from mtbert.linear import Linear
from mtbert.slots import SlotView
from mtbert.tasks import Task


class DoRABank(FactorBank):
    """The DoRAs of several members."""

    @staticmethod
    def trained_shapes(rank: int, out: int, into: int) -> Shapes:
        """A, B, and the magnitude as its difference from ‖W‖."""
        return {**FactorBank.trained_shapes(rank, out, into), "magnitude": (out,)}

    def __init__(
        self,
        admitted: Sequence[Admitted],
        config: BertConfig,
        tasks: Mapping[str, Task],
        dtype: torch.dtype,
        device: str,
        head: str | None,
    ) -> None:
        super().__init__(admitted, config, tasks, dtype, device, head)
        owners = {site: self.owners(site) for site in self.sites}
        self._owners = {
            site: torch.tensor(slots, device=device).unsqueeze(1)
            for site, slots in owners.items()
            if not all(slots)
        }

    def adapt(
        self,
        site: Site,
        x: Tensor,
        dropped: Tensor,
        y: Tensor,
        linear: Linear | SlotLinear,
        view: SlotView,
    ) -> Tensor:
        """y + (g - 1)·W·dropout(x) + g·s·B·A·dropout(x), each row with its slot's. [rows, out]"""
        a = view.of_slots(self.stack.leaf[f"{site}.A"])  # [slots, rank, in]
        b = view.of_slots(self.stack.leaf[f"{site}.B"])  # [slots, out, rank]
        b = b * view.of_slots(self.scales)[:, None, None]
        original, adapted = norms(a, b, linear)
        magnitude = original + view.of_slots(self._difference(site))  # [slots, out]
        excess = (magnitude - adapted) / adapted  # g - 1, which bfloat16 holds better than g
        gained = b * (1 + excess).unsqueeze(-1)
        cells = view.spread(dropped)  # [slots, width, in]
        if isinstance(linear, SlotLinear):
            product = torch.bmm(cells, linear.weight.mT)
        else:
            product = view.spread((y if dropped is x else linear(dropped)) - linear.bias.to(y.dtype))
        low_rank = torch.bmm(torch.bmm(cells, a.to(y.dtype).mT), gained.to(y.dtype).mT)
        return y + view.collect(torch.addcmul(low_rank, product, excess.to(y.dtype).unsqueeze(1)))

    def _difference(self, site: Site) -> Tensor:
        """The magnitudes less ‖W‖; no gradient where a slot does not adapt the site. [slots, out]"""
        difference = self.stack.leaf[f"{site}.magnitude"]
        owners = self._owners.get(site)
        return difference if owners is None else torch.where(owners, difference, 0.0)


@torch.no_grad()
def norms(a: Tensor, b: Tensor, linear: Linear | SlotLinear) -> tuple[Tensor, Tensor]:
    """‖W‖ and ‖W + B·A‖ by output rows, without making the sum: ‖W‖² + 2·B(A·Wᵀ) + B(A·Aᵀ)Bᵀ, row by row.

    Args:
        a: [slots, rank, in], in float32 at least.
        b: [slots, out, rank], the scale in it.

    Returns:
        [slots, out], the first [1, out] where the slots share W; equal where B is zero.
    """
    if isinstance(linear, SlotLinear):
        squared = linear.weight.square().sum(-1)
        crossed = torch.bmm(a, linear.weight.mT)  # [slots, rank, out]
    else:
        squared = linear.squared_norms().unsqueeze(0)
        crossed = F.linear(a, linear.weight.to(a.dtype))
    change = (b * (2 * crossed.mT + b @ (a @ a.mT))).sum(-1)
    return squared.sqrt(), (squared + change).sqrt()
