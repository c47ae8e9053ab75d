"""Dropout masks: as random as they should be, and a function of run, step and place alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.bert import BertConfig
from mtbert.dropout import Rates, attention_factors, drop, step_key, token_keys
from mtbert.tokens import TokenBatch, rounded_rows
from tests.mtbert import toys

CPU = torch.device("cpu")
ROWS, FEATURES = 1024, 256


def batch_of(lengths: Sequence[int], member: Sequence[int] | None = None, spare: int = 0) -> TokenBatch:
    """Sequences of one task with these lengths; `spare` rows more than they need."""
    rows = rounded_rows(sum(lengths)) + spare
    ids = torch.full((rows,), toys.FIRST_WORD)
    of = np.zeros(len(lengths), np.int64) if member is None else np.array(member)
    return TokenBatch(ids, torch.zeros_like(ids), np.array(lengths), of, ["sst"] * len(lengths))


def keys_of(seed: int = 0, step: int = 0, rows: int = ROWS) -> Tensor:
    return token_keys(batch_of([rows]), {0: step_key(seed, step)})


def mask(
    site: str = "layer.0.ffn_out",
    rate: float = 0.5,
    seed: int = 0,
    step: int = 0,
    rows: int = ROWS,
    features: int = FEATURES,
) -> Tensor:
    """What a tensor of ones becomes. [rows, features]"""
    ones = torch.ones(rows, features, dtype=torch.float64)
    return drop(site, ones, keys_of(seed, step, rows), Rates.of([(0, rows, rate)], CPU))


def attention_mask(batch: TokenBatch, keys: Tensor, rate: float, heads: int = 4) -> list[Tensor]:
    """Each sequence's factors, in the batch's order. [heads, queries, length]"""
    factors = attention_factors("layer.0", keys, Rates.of([(0, batch.rows, rate)], CPU), heads)
    assert factors is not None
    found: dict[int, Tensor] = {}
    for rectangle in batch.attention_all.rectangles:
        of = factors(rectangle, torch.float64)
        assert of is not None
        of = of.view(len(rectangle.sequences), heads, rectangle.queries, rectangle.width)
        for at, (sequence, length) in enumerate(zip(rectangle.sequences, rectangle.lengths, strict=True)):
            found[int(sequence)] = of[at, :, :length, :length]
    return [found[sequence] for sequence in range(batch.sequences)]


def deviations(dropped: Tensor, rate: float, dim: int | tuple[int, ...]) -> Tensor:
    """How many standard deviations the dropped counts along `dim` are from what chance gives."""
    zero = (dropped == 0).double()
    count = zero.sum(dim=dim)
    number = zero.numel() / count.numel()
    return (count - rate * number) / np.sqrt(rate * (1 - rate) * number)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.75])
def test_the_asked_share_is_dropped_and_the_rest_scaled_up_to_keep_the_mean(rate: float) -> None:
    dropped = mask(rate=rate)
    assert abs(float(deviations(dropped, rate, (0, 1)))) < 4.5
    kept = dropped[dropped != 0]
    assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=1e-4)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_every_row_and_every_column_is_dropped_at_that_rate(rate: float) -> None:
    dropped = mask(rate=rate)
    for dim in (0, 1):
        found = deviations(dropped, rate, dim)
        assert found.abs().max() < 5.5
        assert float(found.std()) == pytest.approx(1.0, abs=0.2)
    for start in range(4):  # neighbours come from the halves of one word
        assert abs(float(deviations(dropped[:, start::4], rate, (0, 1)))) < 4.5


def correlation(one: Tensor, other: Tensor) -> float:
    """In standard deviations of what independent masks give."""
    found = np.corrcoef(one.flatten().numpy() == 0, other.flatten().numpy() == 0)[0, 1]
    return float(found * np.sqrt(one.numel()))


def test_masks_of_other_sites_steps_and_seeds_are_independent() -> None:
    base = mask()
    others = {
        "site": mask(site="layer.1.ffn_out"),
        "place": mask(site="layer.0.attention_out"),
        "step": mask(step=1),
        "late step": mask(step=30_000),
        "seed": mask(seed=1),
    }
    for name, other in others.items():
        assert abs(correlation(base, other)) < 4.5, name


@pytest.mark.parametrize("lag", [1, 2, 3, 16])
def test_neighbouring_rows_and_columns_are_independent(lag: int) -> None:
    dropped = mask()
    assert abs(correlation(dropped[lag:], dropped[:-lag])) < 4.5
    assert abs(correlation(dropped[:, lag:], dropped[:, :-lag])) < 4.5


def test_no_two_columns_and_no_two_rows_are_alike() -> None:
    zero = (mask() == 0).double().numpy()
    for table in (zero, zero.T):
        table = table - table.mean(axis=0)
        assert (table != 0).any(axis=0).all(), "a column or row in which nothing, or everything, is dropped"
        table = table / np.sqrt((table**2).mean(axis=0))
        pairs = (table.T @ table / np.sqrt(len(table)))[np.triu_indices(table.shape[1], 1)]
        assert np.abs(pairs).max() < 6.5  # of half a million pairs
        assert pairs.std() == pytest.approx(1.0, abs=0.05)


def test_pairs_of_rows_and_columns_hold_no_more_structure_than_chance() -> None:
    """Words of row ^ column: where r ^ r' = c ^ c' a whole rectangle would repeat."""
    sign = torch.where(mask(rows=256, features=256) == 0, 1.0, -1.0)
    products = sign[::2] * sign[1::2]  # [128, 256]
    products = products[:, ::2] * products[:, 1::2]
    assert abs(float(products.mean())) * np.sqrt(products.numel()) < 4.5


def test_one_mask_whatever_the_step_is_called_from() -> None:
    assert torch.equal(mask(seed=3, step=7), mask(seed=3, step=7))
    torch.rand(10)
    assert torch.equal(mask(seed=3, step=7), mask(seed=3, step=7))


def test_no_rate_drops_nothing_and_rates_of_rows_are_their_own() -> None:
    x = torch.randn(6, 5)
    assert drop("s", x, keys_of(rows=6)[:6], Rates.of([(0, 6, 0.0)], CPU)) is x
    rows = 64
    mixed = Rates.of([(0, 16, 0.0), (16, 32, 0.1), (32, 64, 0.5)], CPU)
    ones = torch.ones(rows, FEATURES, dtype=torch.float64)
    together = drop("s", ones, keys_of(rows=rows), mixed)
    assert (together[:16] == 1).all()
    for start, stop, rate in ((16, 32, 0.1), (32, 64, 0.5)):
        alone = drop("s", ones, keys_of(rows=rows), Rates.of([(0, rows, rate)], CPU))
        assert torch.equal(together[start:stop], alone[start:stop])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_precision_drops_the_same_entries(dtype: torch.dtype) -> None:
    rates, keys = Rates.of([(0, 32, 0.3)], CPU), keys_of(rows=32)
    low = drop("s", torch.ones(32, 7, dtype=dtype), keys, rates)
    assert low.dtype == dtype
    assert torch.equal(low == 0, drop("s", torch.ones(32, 7, dtype=torch.float64), keys, rates) == 0)


def test_gradients_pass_where_values_do() -> None:
    x = torch.randn(ROWS, 6, dtype=torch.float64, requires_grad=True)
    dropped = drop("s", x, keys_of(), Rates.of([(0, ROWS, 0.4)], CPU))
    dropped.sum().backward()
    assert torch.allclose(dropped, x * x.grad)  # type: ignore[operator]


def test_a_member_s_keys_do_not_depend_on_its_neighbours_or_on_padding() -> None:
    own, others = [5, 9], [30, 2, 17]
    key = {0: step_key(8, 0), 1: step_key(7, 4), 2: step_key(9, 0)}
    alone = token_keys(batch_of(own), {0: key[1]})[:14]
    crowd = batch_of([*others, *own, *others], [0, 0, 0, 1, 1, 2, 2, 2])
    assert torch.equal(token_keys(crowd, key)[49:63], alone)
    assert torch.equal(token_keys(batch_of(own, spare=64), {0: key[1]})[:14], alone)
    last = batch_of([*others, *own], [0, 0, 0, 1, 1])
    assert torch.equal(token_keys(last, key)[49:63], alone)


def test_attention_masks_are_the_same_alone_in_a_pack_and_at_any_width() -> None:
    own = [5, 20]
    key = {0: step_key(8, 0), 1: step_key(7, 4)}
    lone = batch_of(own)
    alone = attention_mask(lone, token_keys(lone, {0: key[1]}), 0.3)
    for others in ([3], [60], [17, 100, 2]):
        crowd = batch_of([*others, *own], [0] * len(others) + [1, 1])
        together = attention_mask(crowd, token_keys(crowd, key), 0.3)
        for mine, theirs in zip(alone, together[len(others) :], strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_attention_masks_are_even_over_heads_queries_and_keys(rate: float) -> None:
    batch = batch_of([128] * 4)
    for of in attention_mask(batch, keys_of(rows=512), rate):
        assert abs(float(deviations(of, rate, (0, 1, 2)))) < 4.5
        for dims in ((1, 2), (0, 2), (0, 1)):
            assert deviations(of, rate, dims).abs().max() < 5
        zero = (of == 0).double()
        assert float(of.mean()) == pytest.approx(1.0, abs=0.03)
        assert abs(correlation(1 - zero[0], 1 - zero[1])) < 4.5
        assert abs(correlation(1 - zero[:, 1:], 1 - zero[:, :-1])) < 4.5
        assert abs(correlation(1 - zero[..., 1:], 1 - zero[..., :-1])) < 4.5


def test_the_asking_first_token_has_the_same_attention_mask_in_either_view() -> None:
    batch = batch_of([5, 20, 40])
    keys = token_keys(batch, {0: step_key(0, 0)})
    factors = attention_factors("layer.1", keys, Rates.of([(0, batch.rows, 0.3)], CPU), 2)
    assert factors is not None
    for whole, first in zip(batch.attention_all.rectangles, batch.attention_first.rectangles, strict=True):
        of_all, of_first = factors(whole, torch.float32), factors(first, torch.float32)
        assert of_all is not None
        assert of_first is not None
        assert torch.equal(of_all[:, :1], of_first)


def test_a_model_of_long_sequences_can_be_trained_with_dropout() -> None:
    config = BertConfig(toys.VOCABULARY, 4, 1, 1, 8, max_position_embeddings=1100)
    tasks = {"sst": toys.TASKS["sst"]}
    data = toys.random_data((2,), dev=2, lengths=(1050, 1051), tasks=tasks)
    run = toys.run(training={"steps": 1, "batch_size": 2, "dropout": {"backbone": 0.1}})
    assert toys.ended(toys.train_alone(data, toys.backbone(config=config), run)).record["step"] == 1


@pytest.mark.parametrize("site", ["backbone", "attention", "adapters", "heads"])
def test_each_rate_of_a_configuration_changes_training_by_itself(site: str) -> None:
    data, backbone = toys.random_data(), toys.backbone()
    none = {"backbone": 0.0, "attention": 0.0, "adapters": 0.0, "heads": 0.0}

    def trained(**rates: float) -> bytes:
        run = toys.run(low_rank=toys.lora(), training={"steps": 2, "dropout": {**none, **rates}})
        state = toys.weights(toys.ended(toys.train_alone(data, backbone, run)))
        return b"".join(state[name].numpy().tobytes() for name in sorted(state))

    assert trained() == trained()
    assert trained() != trained(**{site: 0.5})
