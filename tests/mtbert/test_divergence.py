"""The divergence of two outputs against torch's distributions, and its gradient against smart-pytorch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence

from mtbert.losses import divergence
from tests.mtbert import toys

sym_kl_loss = pytest.importorskip("smart_pytorch").sym_kl_loss


def random_outputs(task: str, examples: int = 7, seed: int = 0, scale: float = 2.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(examples, toys.TASKS[task].outputs, generator=draw, dtype=torch.float64)


def two_logits(task: str, outputs: Tensor) -> Tensor:
    """Logits over all classes: a binary task has one, against zero."""
    return torch.cat([outputs, torch.zeros_like(outputs)], dim=1) if task == "para" else outputs


def test_of_classes_it_is_the_sum_of_both_directions() -> None:
    one, other = random_outputs("sst", seed=1), random_outputs("sst", seed=2)
    p, q = Categorical(logits=one), Categorical(logits=other)
    found = divergence(toys.TASKS["sst"], one, other)
    assert found.shape == (7,)
    assert torch.allclose(found, kl_divergence(p, q) + kl_divergence(q, p))
    assert torch.equal(found, divergence(toys.TASKS["sst"], other, one))


def test_of_a_binary_task_it_is_that_of_its_two_classes_and_not_zero() -> None:
    one, other = random_outputs("para", seed=1), random_outputs("para", seed=2)
    p, q = Bernoulli(logits=one.squeeze(-1)), Bernoulli(logits=other.squeeze(-1))
    found = divergence(toys.TASKS["para"], one, other)
    assert torch.allclose(found, kl_divergence(p, q) + kl_divergence(q, p))
    assert (found > 1e-3).all()
    assert float(sym_kl_loss(one, other)) == 0  # what a softmax over one logit would make of it


def test_of_a_regression_it_is_the_squared_difference() -> None:
    one, other = random_outputs("sts", seed=1), random_outputs("sts", seed=2)
    assert torch.equal(divergence(toys.TASKS["sts"], one, other), (one - other)[:, 0] ** 2)


@pytest.mark.parametrize("task", toys.TASKS)
def test_an_output_is_no_distance_from_itself(task: str) -> None:
    outputs = random_outputs(task).requires_grad_()
    found = divergence(toys.TASKS[task], outputs, outputs.detach())
    (gradient,) = torch.autograd.grad(found.sum(), outputs)
    assert torch.equal(found, torch.zeros(7, dtype=torch.float64))
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("task", ["sst", "para"])
def test_its_gradient_is_that_of_the_published_code(task: str) -> None:
    one, other = (random_outputs(task, seed=seed).requires_grad_() for seed in (1, 2))
    mine = divergence(toys.TASKS[task], one, other).sum()
    theirs = sym_kl_loss(two_logits(task, one), two_logits(task, other), reduction="sum")
    assert torch.allclose(mine, theirs)
    for found, wanted in zip(
        torch.autograd.grad(mine, (one, other)), torch.autograd.grad(theirs, (one, other)), strict=True
    ):
        assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-12)
        assert (wanted != 0).all()


def test_near_equal_outputs_its_gradient_is_half_the_whole_one() -> None:
    other = random_outputs("sst", seed=2)
    one = (other + random_outputs("sst", seed=1, scale=1e-5)).requires_grad_()
    p, q = Categorical(logits=one), Categorical(logits=other)
    (whole,) = torch.autograd.grad((kl_divergence(p, q) + kl_divergence(q, p)).sum(), one)
    (found,) = torch.autograd.grad(divergence(toys.TASKS["sst"], one, other).sum(), one)
    assert torch.allclose(2 * found, whole, rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("task", ["sst", "para"])
def test_it_loses_no_digits_in_float32_where_outputs_nearly_agree(task: str) -> None:
    one = random_outputs(task, examples=200, seed=1).float()
    other = one + random_outputs(task, examples=200, seed=2, scale=1e-3).float()
    exact = divergence(toys.TASKS[task], one.double(), other.double())
    found = divergence(toys.TASKS[task], one, other)
    assert (found >= 0).all()
    assert float(found.sum()) == pytest.approx(float(exact.sum()), rel=1e-2)
    naive = sym_kl_loss(two_logits(task, one), two_logits(task, other), reduction="none").sum(-1)
    assert (found - exact).abs().mean() < 0.1 * (naive - exact).abs().mean()


@pytest.mark.parametrize("task", ["sst", "para"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_finite_for_the_surest_outputs(task: str, dtype: torch.dtype) -> None:
    width = toys.TASKS[task].outputs
    one = torch.zeros(2, width, dtype=dtype)
    one[:, 0] = torch.tensor([1e4, -1e4])
    other = -one
    one.requires_grad_()
    found = divergence(toys.TASKS[task], one, other)
    (gradient,) = torch.autograd.grad(found.sum(), one)
    assert torch.isfinite(found).all()
    assert (found > 1e3).all()
    assert torch.isfinite(gradient).all()
