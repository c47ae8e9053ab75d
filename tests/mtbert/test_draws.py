"""Draws by key: the same for the same parts, as good as random otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from mtbert.draws import generator, key64, row_keys, splitmix64, threshold16
from mtbert.tensor_draws import column_keys, keep_factors, mix32, torch_generator


def test_a_key_depends_on_every_part_its_type_and_their_order() -> None:
    keys = [
        key64(1, "order", 2),
        key64(2, "order", 1),
        key64("order", 1, 2),
        key64("1", "order", 2),
        key64(1, "order", 2, 0),
        key64(1, "orde", "r", 2),
        key64(12, "order"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)
    assert key64(1, "order", 2) == keys[0]


DRAWS = """(key64(3, 'a'), generator(3, 'a').integers(1 << 40, size=3).tolist(),
row_keys(key64(1), 3).tolist(), column_keys('layer.0', 3, 'cpu').tolist())"""


def test_draws_are_the_same_in_every_process() -> None:
    names = "from mtbert.draws import key64, generator, row_keys; from mtbert.tensor_draws import column_keys"
    there = subprocess.run(
        [sys.executable, "-c", f"{names}; print({DRAWS})"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    assert there.strip() == str(eval(DRAWS))


def test_generators_start_anew_and_differ_by_purpose() -> None:
    assert (generator(0, "order").permutation(50) == generator(0, "order").permutation(50)).all()
    assert (generator(0, "order").permutation(50) != generator(0, "schedule").permutation(50)).any()
    one, same, other = (torch.rand(20, generator=torch_generator(0, name)) for name in ("a", "a", "b"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_drawing_touches_no_global_generator() -> None:
    torch.manual_seed(5)
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]
    generator(0).random(3)
    torch.rand(3, generator=torch_generator(0))
    assert (np.random.get_state()[1] == np_state).all()  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), torch_state)


def reference_splitmix(value: int) -> int:
    """Steele, Lea & Flood 2014, with Python's own whole numbers."""
    mask = 2**64 - 1
    mixed = (value + 0x9E3779B97F4A7C15) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return mixed ^ (mixed >> 31)


def test_splitmix_is_the_published_one() -> None:
    values = [0, 1, 2**32, 2**63, 2**64 - 1]
    assert splitmix64(np.array(values, np.uint64)).tolist() == [reference_splitmix(value) for value in values]
    assert reference_splitmix(0) == 0xE220A8397B1DCDAF  # the first number of the published sequence


def test_a_row_s_key_does_not_depend_on_how_many_there_are() -> None:
    assert (row_keys(7, 5) == row_keys(7, 50)[:5]).all()
    assert torch.equal(column_keys("s", 5, "cpu"), column_keys("s", 50, "cpu")[:5])


def test_keys_of_rows_and_columns_do_not_repeat() -> None:
    assert len(np.unique(row_keys(key64(0, "dropout", 3), 4096))) > 4090
    assert len(np.unique(np.concatenate([row_keys(key64(s), 512) for s in range(8)]))) > 4090
    assert len(column_keys("layer.0.query", 2048, "cpu").unique()) > 2046
    assert not torch.equal(column_keys("layer.0.query", 64, "cpu"), column_keys("layer.1.query", 64, "cpu"))


def test_every_bit_of_a_mixed_word_is_set_half_of_the_time() -> None:
    words = mix32(torch.from_numpy(row_keys(1, 1 << 14)).clone()).numpy()
    shares = np.unpackbits(words.view(np.uint8)).reshape(-1, 32).mean(axis=0)
    assert np.abs(shares - 0.5).max() < 4.5 * 0.5 / np.sqrt(len(words))


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_threshold_drops_the_asked_share_of_sixteen_bits_and_keeps_the_mean(rate: float) -> None:
    threshold, scale = threshold16(rate)
    words = np.arange(-32768, 32768)
    kept = (words >= threshold).mean()
    assert 1 - kept == pytest.approx(rate, abs=0.5 / 65536 + 1e-12)
    assert kept * scale == pytest.approx(1.0)


def test_a_rate_next_to_one_still_keeps_something() -> None:
    threshold, scale = threshold16(0.999999)
    assert -32768 <= threshold <= 32767
    assert np.isfinite(scale)


def test_factors_are_zero_or_the_scale_and_the_sixteen_bits_are_even() -> None:
    rows, columns = torch.from_numpy(row_keys(3, 256)).unsqueeze(1), column_keys("s", 64, "cpu")
    factors = keep_factors(rows, columns, *threshold16(0.25), torch.float64)
    assert factors.shape == (256, 128)
    assert set(factors.unique().tolist()) == {0.0, 65536 / (65536 - 16384)}
    words = mix32(rows ^ columns).view(torch.int16).numpy()
    counts = np.histogram(words, bins=64, range=(-32768, 32768))[0]
    assert stats.chisquare(counts).pvalue > 1e-4


def test_a_threshold_for_each_row_is_that_row_s() -> None:
    rows, columns = torch.from_numpy(row_keys(3, 4)).unsqueeze(1), column_keys("s", 500, "cpu")
    rates = (0.0, 0.1, 0.5, 0.0)
    thresholds, scales = zip(*map(threshold16, rates), strict=True)
    together = keep_factors(
        rows,
        columns,
        torch.tensor(thresholds, dtype=torch.int16).unsqueeze(1),
        torch.tensor(scales, dtype=torch.float64).unsqueeze(1),
        torch.float32,
    )
    for at, rate in enumerate(rates):
        alone = keep_factors(rows[at : at + 1], columns, *threshold16(rate), torch.float32)
        assert torch.equal(together[at : at + 1], alone)
