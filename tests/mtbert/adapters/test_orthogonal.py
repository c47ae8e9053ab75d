"""Orthogonal adaptation keeps the contract; no two tasks' adapters share a direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.adapters.base import Admitted
from mtbert.adapters.orthogonal import OrthogonalBank, fixed_factor
from mtbert.bert import Backbone
from mtbert.configuration import Configuration
from mtbert.counts import count
from mtbert.data.tokenise import TokenisedData
from mtbert.draws import generator
from mtbert.member import initial_state
from mtbert.pack import Pack
from mtbert.run import Run
from mtbert.schema import ConfigError
from mtbert.slots import State
from mtbert.techniques import Orthogonal
from tests.mtbert import toys
from tests.mtbert.adapters.contract import AdapterContract, Changes, disturbed
from tests.mtbert.adapters.test_lora import LAYER, of_task, scale

TASKS = list(toys.TASKS)


def joint(**fields: Any) -> Changes:
    """Orthogonal adapters in a training of all tasks in every step."""
    low_rank = {"kind": "orthogonal", "rank": 4, **fields}
    return {"low_rank": low_rank, "training": {"schedule": {"kind": "joint"}}}


OWN = {
    "sst": {"rank": 2, "alpha": 3.0, "dropout": 0.3, "targets": ["value"]},
    "sts": {"rank": 5, "targets": ["all_linear", "heads"], "dropout": 0.0},
}
VARIANTS = {
    "query and value": joint(),
    "rank 1": joint(rank=1),
    "the highest rank": joint(rank=5),
    "another basis": joint(basis=7),
    "over its root": joint(alpha=3.0, scaling="alpha_over_sqrt_rank"),
    "scale of one": joint(alpha=3.0, scaling="one"),
    "feed-forward": joint(targets=["ffn_in", "ffn_out"]),
    "heads": joint(targets=["heads"]),
    "all linear": joint(targets=["all_linear"]),
    "all linear, frozen heads": {**joint(targets=["all_linear", "heads"]), "heads": {"trained": False}},
    "last layer": joint(layers=[1], targets=LAYER),
    "each task its own": joint(tasks=OWN, dropout=0.1),
    "with dropout": joint(dropout=0.2),
    "separate sentences": {**joint(targets=["query", "heads"]), "pairs": {"encoding": "separate"}},
    "mean of tokens": {**joint(targets=LAYER), "features": "mean"},
}


def basis_of(configuration: Configuration) -> int:
    assert isinstance(configuration.low_rank, Orthogonal)
    return configuration.low_rank.basis


def sites_of(state: State, task: str) -> list[str]:
    """The sites that a task's adapter has."""
    prefix = f"low_rank.{task}."
    return [name[len(prefix) : -len(".B")] for name in state if name.startswith(prefix)]


class TestOrthogonal(AdapterContract):
    variants = VARIANTS

    def expected_parameters(self, configuration: Configuration) -> int:
        hidden, wide = toys.SMALL.hidden_size, toys.SMALL.intermediate_size
        low_rank = configuration.low_rank
        assert low_rank is not None
        layers = toys.SMALL.num_hidden_layers if low_rank.layers is None else len(low_rank.layers)
        total = 0
        for task in TASKS:
            _, own = of_task(configuration, task)
            for target in own.targets:
                if target == "heads":
                    size = toys.TASKS[task].outputs
                elif target == "pooler":
                    size = hidden
                else:
                    size = layers * (wide if target == "ffn_in" else hidden)
                total += own.rank * size
        return total

    def merged_weights(
        self, configuration: Configuration, state: State, weights: State, task: str
    ) -> tuple[State, State]:
        _, own = of_task(configuration, task)
        basis, heads = basis_of(configuration), dict[str, Tensor]()
        for site in sites_of(state, task):
            weight = (state if site.startswith("heads.") else weights)[f"{site}.weight"]
            a = fixed_factor(basis, weight.shape[1], TASKS.index(task), len(TASKS), own.rank)
            merged = weight + scale(own) * state[f"low_rank.{task}.{site}.B"] @ a
            (heads if site.startswith("heads.") else weights)[f"{site}.weight"] = merged
        return weights, heads


@pytest.mark.parametrize("width", [16, 40])
def test_within_a_task_the_factors_are_orthonormal_and_between_tasks_orthogonal(width: int) -> None:
    ranks = [5, 2, 3]  # own ranks: the columns are disjoint all the same
    factors = [fixed_factor(0, width, task, 3, rank) for task, rank in enumerate(ranks)]
    for task, a in enumerate(factors):
        assert a.shape == (ranks[task], width)
        for other, b in enumerate(factors):
            wanted = torch.eye(len(a)) if task == other else torch.zeros(len(a), len(b))
            assert torch.allclose(a @ b.mT, wanted.double(), rtol=0, atol=1e-14)


def test_a_lower_rank_has_the_first_of_a_higher_one_s_rows() -> None:
    for task in range(3):
        high, low = fixed_factor(0, 40, task, 3, 13), fixed_factor(0, 40, task, 3, 2)
        assert torch.allclose(high[:2], low, rtol=0, atol=1e-14)


def test_the_basis_is_the_gram_schmidt_one_of_a_gaussian_for_seed_and_width() -> None:
    """Column by column, each less its projections on those before it, over its length: one sign alone."""
    for seed, width, tasks, rank in ((0, 16, 3, 5), (4, 33, 2, 3)):
        columns: list[np.ndarray] = []
        for at in range(tasks * rank):
            column = generator("orthogonal", seed, width, at).standard_normal(width)
            for _ in range(2):  # twice is enough (Kahan)
                for known in columns:
                    column = column - (known @ column) * known
            columns.append(column / np.linalg.norm(column))
        for task in range(tasks):
            wanted = np.stack(columns[task::tasks])
            assert np.allclose(fixed_factor(seed, width, task, tasks, rank).numpy(), wanted, atol=1e-12)


def test_bases_of_other_seeds_differ() -> None:
    one, other = fixed_factor(0, 16, 0, 3, 2), fixed_factor(1, 16, 0, 3, 2)
    assert (one - other).abs().max() > 0.1


def test_what_is_handed_out_is_the_caller_s_own() -> None:
    before = fixed_factor(0, 16, 1, 3, 2).clone()
    fixed_factor(0, 16, 1, 3, 2).zero_()
    assert torch.equal(fixed_factor(0, 16, 1, 3, 2), before)


def test_a_rank_for_which_the_basis_has_too_few_columns_is_refused() -> None:
    assert fixed_factor(0, 16, 2, 3, 5).shape == (5, 16)
    with pytest.raises(ConfigError, match=r"low_rank\.rank.*at most 5 .*3 tasks.*16.*got 6"):
        fixed_factor(0, 16, 2, 3, 6)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"low_rank": {"kind": "orthogonal", "rank": 6}}, True),
        ({"low_rank": {"kind": "orthogonal", "rank": 6}, "training": {"tasks": ["sst"]}}, True),
        ({"low_rank": {"kind": "orthogonal", "rank": 6, "targets": ["ffn_out"]}}, False),
        ({"low_rank": {"kind": "orthogonal", "rank": 2, "tasks": {"sts": {"rank": 6}}}}, True),
        (
            {
                "low_rank": {"kind": "orthogonal", "rank": 6, "tasks": {"sst": {"rank": 2}}},
                "training": {"tasks": ["sst"]},
            },
            False,
        ),
    ],
    ids=["of all tasks", "of one task", "of wide layers", "of a task's own", "that no task has"],
)
def test_a_run_of_too_high_a_rank_is_refused_and_its_pack_goes_on(
    changes: Changes, refused: bool, backbone: Backbone, data: TokenisedData
) -> None:
    """The tasks of the data count, whether the run trains them or not."""
    of = toys.trainer(data, backbone)
    healthy = toys.run(0, low_rank={"kind": "orthogonal", "rank": 2})
    of.admit(healthy)
    if refused:
        with pytest.raises(ConfigError, match=r"low_rank\.rank.*got 6"):
            of.admit(toys.run(1, **changes))
        assert of.members == (healthy.run_id,)
    else:
        of.admit(toys.run(1, **changes))
    assert toys.ended(toys.finish(of)[healthy.run_id]).record["status"] == "completed"


def lone_factor(run: Run, task: str, site: str, backbone: Backbone) -> Tensor:
    """A at a site as a run that trains one task has it."""
    state = initial_state(run, toys.SMALL, {task: toys.TASKS[task]})
    pack = Pack(backbone, [Admitted(0, run.configuration, (task,), state)], toys.TASKS, "cpu")
    bank = next(bank for bank in pack.adapters if site in bank.sites)
    assert isinstance(bank, OrthogonalBank)
    return bank.first_factor(site)[0]


def test_runs_that_train_a_task_each_use_the_columns_that_one_run_of_all_would(backbone: Backbone) -> None:
    for number, task in enumerate(TASKS):
        run = toys.run(number, **joint(targets=["query", "key", "ffn_out", "heads"]))
        for site in ("layer.0.query", "layer.1.key", f"heads.{task}"):
            wanted = fixed_factor(0, 16, number, 3, 4)
            assert torch.equal(lone_factor(run, task, site, backbone), wanted)
        assert torch.equal(
            lone_factor(run, task, "layer.1.ffn_out", backbone), fixed_factor(0, 32, number, 3, 4)
        )


def test_changes_of_runs_trained_apart_are_orthogonal(backbone: Backbone, data: TokenisedData) -> None:
    changes = []
    for number, task in enumerate(TASKS):
        run = toys.run(number, low_rank=joint()["low_rank"], training={"tasks": [task], "steps": 3})
        weights = toys.weights(toys.ended(toys.train_alone(data, backbone, run)))
        change = weights[f"low_rank.{task}.layer.0.query.B"] @ fixed_factor(0, 16, number, 3, 4)
        assert change.abs().max() > 1e-3
        changes.append(change)
    for at, one in enumerate(changes):
        for other in changes[at + 1 :]:
            assert (one @ other.mT).abs().max() < 1e-12 * one.norm() * other.norm() + 1e-15


def test_the_fixed_factors_count_in_the_total_alone_and_are_in_no_checkpoint() -> None:
    run = toys.run(**joint(targets=["query", "ffn_out"]))
    trainable, total = count(run.configuration, toys.SMALL, toys.TASKS).parts["low_rank"]
    assert trainable == 3 * 2 * 4 * (16 + 16)
    assert total == trainable + 3 * 2 * 4 * (16 + 32)
    assert all(name.endswith(".B") for name in disturbed(run) if name.startswith("low_rank."))
