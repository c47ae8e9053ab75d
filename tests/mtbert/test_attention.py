"""Attention over sequences end to end, against softmax(QKᵀ/√d)V of each sequence by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.attention import AttentionView, Factors, Rectangle, attention

HEADS, SIZE = 3, 4
LENGTHS = {
    "one of one": [1],
    "equal": [5, 5, 5],
    "one long": [3, 40, 1, 2],
    "two groups": [17, 90, 2, 3, 88, 1, 16, 33],
    "descending": [50, 20, 1],
}


def laid_out(lengths: list[int], rows: int | None = None) -> tuple[np.ndarray, np.ndarray, int]:
    of = np.array(lengths)
    return np.concatenate([[0], np.cumsum(of)[:-1]]), of, rows or int(of.sum())


def table_factors(table: Tensor) -> Factors:
    """Factors from a table [rows, heads, width], a row of it for each asking token."""

    def factors(rectangle: Rectangle, dtype: torch.dtype) -> Tensor:
        rows = torch.from_numpy(rectangle.key_rows[:, : rectangle.queries])
        found = table[rows].permute(0, 2, 1, 3)[..., : rectangle.width]  # [n, heads, queries, width]
        return found.reshape(-1, rectangle.queries, rectangle.width).to(dtype)

    return factors


def naive(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], first: bool, table: Tensor | None) -> Tensor:
    """One sequence and one head after another."""
    outs, begin = [], 0
    for at, length in enumerate(lengths):
        span = slice(begin, begin + length)
        asking = slice(at, at + 1) if first else span
        heads = []
        for head in range(HEADS):
            part = slice(head * SIZE, (head + 1) * SIZE)
            p = torch.softmax(q[asking, part] @ k[span, part].T / math.sqrt(SIZE), dim=-1)
            if table is not None:
                rows = slice(begin, begin + 1) if first else span
                p = p * table[rows, head, :length]
            heads.append(p @ v[span, part])
        outs.append(torch.cat(heads, dim=1))
        begin += length
    return torch.cat(outs)


def random_qkv(asked: int, rows: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [
        (torch.randn(count, HEADS * SIZE, generator=draw, dtype=torch.float64) * 2).to(dtype).requires_grad_()
        for count in (asked, rows, rows)
    ]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("first", [False, True], ids=["every token asks", "first tokens ask"])
@pytest.mark.parametrize("dropped", [False, True], ids=["plain", "with factors"])
def test_outputs_and_gradients_are_those_of_each_sequence_alone(
    lengths: list[int], first: bool, dropped: bool
) -> None:
    starts, of, rows = laid_out(lengths)
    tokens = int(of.sum())
    view = AttentionView(starts, of, rows, "first" if first else "all", torch.device("cpu"))
    asked = len(lengths) if first else tokens
    ours, reference = random_qkv(asked, tokens), random_qkv(asked, tokens)
    draw = torch.Generator().manual_seed(1)
    table = (
        torch.rand(tokens, HEADS, 96, generator=draw, dtype=torch.float64).round() * 2 if dropped else None
    )
    factors = None if table is None else table_factors(table)
    got = attention(*ours, HEADS, view, factors)
    wanted = naive(*reference, lengths, first, table)
    assert got.shape == wanted.shape
    assert torch.allclose(got, wanted, rtol=0, atol=1e-12)
    weight = torch.randn(wanted.shape, generator=draw, dtype=torch.float64)
    (got * weight).sum().backward()
    (wanted * weight).sum().backward()
    for mine, theirs in zip(ours, reference, strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=0, atol=1e-12)  # type: ignore[arg-type]


def test_gradients_are_those_of_finite_differences() -> None:
    starts, of, rows = laid_out([3, 1, 18])
    view = AttentionView(starts, of, rows, "all", torch.device("cpu"))
    table = torch.rand(rows, HEADS, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(
        lambda q, k, v: attention(q, k, v, HEADS, view, table_factors(table)), random_qkv(rows, rows)
    )


def test_rows_past_the_last_token_are_finite_and_give_and_get_no_gradient() -> None:
    starts, of, _ = laid_out([4, 7])
    rows, tokens = 32, 11
    view = AttentionView(starts, of, rows, "all", torch.device("cpu"))
    q, k, v = random_qkv(rows, rows)
    with torch.no_grad():
        for tensor in (q, k, v):
            tensor[tokens:] = 1e6
    got = attention(q, k, v, HEADS, view, None)
    assert torch.isfinite(got).all()
    assert torch.allclose(got[:tokens], naive(q[:tokens], k[:tokens], v[:tokens], [4, 7], False, None))
    got[:tokens].sum().backward()
    for tensor in (q, k, v):
        assert (tensor.grad[tokens:] == 0).all()  # type: ignore[index]
    before = q.grad.clone()  # type: ignore[union-attr]
    q.grad = None
    weight = torch.ones_like(got)
    weight[tokens:] = 1e9
    (attention(q, k, v, HEADS, view, None) * weight).sum().backward()
    assert torch.equal(q.grad, before)


@pytest.mark.parametrize("lengths", [[4, 7], [7, 4], [3, 5, 4]])
def test_rows_past_the_last_token_take_from_the_last_sequence_alone(lengths: list[int]) -> None:
    """They belong to the last member: another's NaN there would reach its gradients."""
    starts, of, _ = laid_out(lengths)
    rows = 32
    view = AttentionView(starts, of, rows, "all", torch.device("cpu"))
    q, k, v = random_qkv(rows, rows)
    with torch.no_grad():
        for tensor in (q, k, v):
            tensor[: starts[-1]] = float("nan")
    got = attention(q, k, v, HEADS, view, None)
    assert torch.isfinite(got[starts[-1] :]).all()
    (got[starts[-1] :] * 2).sum().backward()
    for tensor in (q, k, v):
        assert torch.isfinite(tensor.grad[starts[-1] :]).all()  # type: ignore[index]


GAPPED_LENGTHS = [4, 19, 1, 7]
GAPPED_STARTS = np.array([0, 20, 39, 48])  # and rows of no sequence after each but the second


@pytest.mark.parametrize("first", [False, True], ids=["every token asks", "first tokens ask"])
def test_sequences_may_lie_apart_and_their_queries_elsewhere(first: bool) -> None:
    rows, ask_at, asked = 64, np.array([2, 0, 5, 3]), 7
    of = np.array(GAPPED_LENGTHS)
    inside = np.concatenate([np.arange(b, b + n) for b, n in zip(GAPPED_STARTS, of, strict=True)])
    queries = ask_at if first else inside
    view = AttentionView(
        GAPPED_STARTS, of, rows, "first" if first else "all", torch.device("cpu"), (ask_at, asked)
    )
    ours = random_qkv(asked if first else rows, rows)
    reference = [tensor.detach().clone().requires_grad_() for tensor in ours]
    q, k, v = reference
    got = attention(*ours, HEADS, view, None)
    wanted = naive(q[queries], k[inside], v[inside], GAPPED_LENGTHS, first, None)
    assert got.shape == ours[0].shape
    assert torch.allclose(got[queries], wanted, rtol=0, atol=1e-12)
    (got * torch.arange(1.0, len(got) + 1)[:, None]).sum().backward()
    (wanted * torch.from_numpy(queries + 1.0)[:, None]).sum().backward()
    for mine, theirs in zip(ours, reference, strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=0, atol=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("ill", [0, 1, 2, 3])
def test_rows_between_sequences_take_from_the_sequence_before_them(ill: int) -> None:
    """They are its member's padding: another's NaN there would reach its gradients."""
    of = np.array(GAPPED_LENGTHS)
    view = AttentionView(GAPPED_STARTS, of, 64, "all", torch.device("cpu"))
    own = slice(int(GAPPED_STARTS[ill]), [*GAPPED_STARTS.tolist(), 64][ill + 1])
    q, k, v = random_qkv(64, 64)
    with torch.no_grad():
        for tensor in (q, k, v):
            tensor[own] = float("nan")
    sick = torch.isnan(attention(q, k, v, HEADS, view, None)).all(dim=1)
    assert sick[own].all()
    assert int(sick.sum()) == own.stop - own.start


@pytest.mark.parametrize("ill", [0, 1, 2])
def test_a_sequence_s_nan_stays_in_that_sequence(ill: int) -> None:
    lengths = [6, 9, 3]
    starts, of, rows = laid_out(lengths)
    view = AttentionView(starts, of, rows, "all", torch.device("cpu"))
    healthy, sick = random_qkv(rows, rows), random_qkv(rows, rows)
    own = slice(int(starts[ill]), int(starts[ill] + of[ill]))
    with torch.no_grad():
        for tensor in sick:
            tensor[own] = float("nan")
    others = [row for row in range(rows) if not own.start <= row < own.stop]
    outs = []
    for tensors in (healthy, sick):
        out = attention(*tensors, HEADS, view, None)
        out.sum().backward()
        outs.append(out)
    assert torch.isnan(outs[1][own]).all()
    assert torch.equal(outs[0][others], outs[1][others])
    for good, bad in zip(healthy, sick, strict=True):
        assert torch.equal(good.grad[others], bad.grad[others])  # type: ignore[index]


@pytest.mark.parametrize("first", [False, True])
def test_bfloat16_is_as_good_as_its_inputs(first: bool) -> None:
    lengths = [5, 30, 2]
    starts, of, rows = laid_out(lengths)
    view = AttentionView(starts, of, rows, "first" if first else "all", torch.device("cpu"))
    low = random_qkv(len(lengths) if first else rows, rows, torch.bfloat16)
    got = attention(*low, HEADS, view, None)
    wanted = naive(*(tensor.double() for tensor in low), lengths, first, None)
    assert got.dtype == torch.bfloat16
    assert (got.double() - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_rectangles_hold_every_sequence_once_in_few_cells() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        lengths = random.integers(1, 200, random.integers(1, 30)).tolist()
        starts, of, rows = laid_out(lengths)
        view = AttentionView(starts, of, rows, "all", torch.device("cpu"))
        rectangles = view.rectangles
        assert len(rectangles) <= 2
        assert sorted(np.concatenate([each.sequences for each in rectangles])) == list(range(len(lengths)))
        for each in rectangles:
            assert each.width % 16 == 0
            assert each.width - 16 < each.lengths.max() <= each.width
            assert (of[each.sequences] == each.lengths).all()
        cells = sum(len(each.sequences) * each.width**2 for each in rectangles)
        widest = max(each.width for each in rectangles)
        assert cells <= len(lengths) * widest**2
