"""Normal noise by key: as random as it should be, and a function of run, step and place alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from mtbert import tensor_draws
from mtbert.draws import key64
from mtbert.dropout import token_keys
from mtbert.tensor_draws import normal
from mtbert.tokens import TokenBatch


def drawn(rows: int = 512, columns: int = 300, seed: int = 0, step: int = 0) -> Tensor:
    batch = TokenBatch(
        torch.ones(rows, dtype=torch.int64), torch.zeros(rows), np.array([rows]), np.zeros(1), ["sst"]
    )
    return normal(token_keys(batch, {0: key64(seed, "smart noise", step)}), "smart", columns, torch.float64)


def test_the_noise_is_normal_in_whole_and_in_every_row_and_column() -> None:
    found = drawn()
    assert found.shape == (512, 300)
    assert stats.kstest(found.flatten().numpy(), "norm").pvalue > 1e-4
    for dim in (0, 1):
        count = found.shape[dim]
        assert (found.mean(dim) * np.sqrt(count)).abs().max() < 5
        assert ((found.var(dim) - 1) * np.sqrt(count / 2)).abs().max() < 6
    assert 3.5 < float(found.abs().max()) < 6


@pytest.mark.parametrize("lag", [1, 2, 150])
def test_neighbouring_rows_columns_and_the_halves_of_a_pair_are_independent(lag: int) -> None:
    found = drawn()
    for one, other in ((found[lag:], found[:-lag]), (found[:, lag:], found[:, :-lag])):
        for power in (1, 2):
            together = np.corrcoef((one**power).flatten(), (other**power).flatten())[0, 1]
            assert abs(together) * np.sqrt(one.numel()) < 4.5


def test_the_noise_is_another_in_every_step_and_seed_and_one_in_both_precisions() -> None:
    base = drawn()
    for other in (drawn(step=1), drawn(seed=1), drawn(step=30_000)):
        assert abs(np.corrcoef(base.flatten(), other.flatten())[0, 1]) * np.sqrt(base.numel()) < 4.5
    assert torch.equal(base, drawn())
    assert torch.equal(base[:100, :20], drawn(rows=100)[:, :20])
    rows = torch.arange(64, dtype=torch.int32).unsqueeze(1) * 123_456_789
    low = normal(rows, "smart", 50, torch.float32)
    assert low.dtype == torch.float32
    assert torch.allclose(low.double(), normal(rows, "smart", 50, torch.float64), atol=1e-5)


def test_the_rarest_bits_give_finite_noise() -> None:
    bits = torch.tensor([[-(2**31)], [2**31 - 1], [0], [-1]], dtype=torch.int32)
    exact = tensor_draws._uniform(bits, torch.float64)
    assert ((exact > 0) & (exact < 1)).all()
    assert torch.equal(tensor_draws._uniform(bits, torch.float32).double(), exact)
