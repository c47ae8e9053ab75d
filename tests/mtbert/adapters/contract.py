"""What every adapter must keep to; each one's own test subclasses this.

A subclass names `variants`, configurations (as changes to a small training) in which the adapter is used,
and may say how it merges into the backbone's weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.adapters.base import Admitted
from mtbert.batches import Request, assemble
from mtbert.bert import Backbone
from mtbert.configuration import Configuration, Dropout
from mtbert.counts import count
from mtbert.data.tokenise import TokenisedData
from mtbert.dropout import step_key
from mtbert.losses import per_example
from mtbert.member import initial_state
from mtbert.optimizer import owned_by
from mtbert.pack import Pack
from mtbert.run import Run
from mtbert.slots import State
from mtbert.tensor_draws import torch_generator
from mtbert.tokens import TokenBatch
from tests.mtbert import toys

Changes = dict[str, Any]
NO_DROPOUT = Dropout(backbone=0.0, attention=0.0, adapters=0.0, heads=0.0)
CLOSE = 1e-9


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout")
class AdapterContract:
    """Tests in float64 over a small random backbone.

    Attributes:
        variants: by name, changes to a configuration that has the adapter.
        unchanged_at_first: whether the method starts from the unadapted function.
        mergeable: whether `merged_weights` says what weights give the same function.
    """

    variants: ClassVar[Mapping[str, Changes]]
    unchanged_at_first: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True

    def merged_weights(
        self, configuration: Configuration, state: State, weights: State, task: str
    ) -> tuple[State, State]:
        """The backbone's and the heads' weights into which the adapter was merged for a task."""
        raise NotImplementedError

    def expected_parameters(self, configuration: Configuration) -> int:
        """How many numbers the adapter trains over the three tasks, by the method's own formula."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "changes" in metafunc.fixturenames:
            metafunc.parametrize("changes", self.variants.values(), ids=self.variants.keys())

    def test_the_function_is_unchanged_at_first(
        self, changes: Changes, backbone: Backbone, data: TokenisedData
    ) -> None:
        if not self.unchanged_at_first:
            pytest.skip("the method does not start from the unadapted function")
        adapted = toys.run(**changes)
        probe = toys.run(**without_adapters(changes))
        assert not equal_outputs(
            outputs([adapted], [disturbed(adapted)], backbone, data)[0],
            outputs([probe], [None], backbone, data)[0],
        )
        for name, values in outputs([adapted], [None], backbone, data)[0].items():
            assert torch.equal(values, outputs([probe], [None], backbone, data)[0][name])

    def test_it_trains_as_many_parameters_as_the_method_says(
        self, changes: Changes, backbone: Backbone
    ) -> None:
        run = toys.run(**changes)
        counts = count(run.configuration, toys.SMALL, toys.TASKS)
        expected = self.expected_parameters(run.configuration)
        pack = packed([run], [None], backbone)
        leaves = [leaf for leaf in owned_by(0, pack, None) if leaf.part == "adapters"]
        real = sum(value.numel() for leaf in leaves for value in leaf.read(leaf.parameter).values())
        assert real == expected
        assert counts.trainable - counts.parts["heads"][0] == expected
        initial = initial_state(run, toys.SMALL, toys.TASKS)
        heads = {name for name in initial if is_head(name)}
        assert sum(initial[name].numel() for name in set(initial) - heads) == expected

    def test_only_what_is_trained_has_gradients(
        self, changes: Changes, backbone: Backbone, data: TokenisedData
    ) -> None:
        run = toys.run(**changes)
        pack = packed([run], [disturbed(run)], backbone)
        total_loss(pack, [run], data).backward()
        assert all(parameter.grad is None for parameter in backbone.parameters())
        found: State = {}
        for leaf in owned_by(0, pack, None):
            assert leaf.gradient is not None
            found |= leaf.read(leaf.gradient)
        frozen = set() if run.configuration.heads.trained else {n for n in pack.state_of(0) if is_head(n)}
        assert set(found) == set(pack.state_of(0)) - frozen
        for name, gradient in found.items():
            assert torch.isfinite(gradient).all(), name
            assert (gradient != 0).any(), name
        for bank in pack.banks:
            if bank.stack.gradients is not None:
                own = sum(value.numel() for value in found.values())
                assert (bank.stack.gradients != 0).sum() <= own

    def test_gradients_are_those_of_finite_differences(
        self, changes: Changes, backbone: Backbone, data: TokenisedData
    ) -> None:
        run = toys.run(**changes)
        pack = packed([run], [disturbed(run)], backbone)
        total_loss(pack, [run], data).backward()
        draw = torch.Generator().manual_seed(0)
        for leaf in owned_by(0, pack, None):
            assert leaf.gradient is not None
            direction = torch.randn(leaf.parameter.shape, generator=draw, dtype=torch.float64)
            direction *= leaf.gradient != 0  # stay within the slot's own part
            with torch.no_grad():
                losses = []
                for sign in (1, -2, 1):
                    leaf.parameter.add_(direction, alpha=sign * 1e-5)
                    losses.append(float(total_loss(pack, [run], data)))
            slope = (losses[0] - losses[1]) / 2e-5
            assert slope == pytest.approx(float((leaf.gradient * direction).sum()), rel=1e-5, abs=1e-6)

    def test_what_is_saved_is_loaded_and_trains_on_alike(
        self, changes: Changes, backbone: Backbone, data: TokenisedData
    ) -> None:
        run = toys.run(**{**changes, "evaluation": {"every": 3}})
        first = toys.trainer(data, backbone)
        first.admit(run)
        first.advance()
        saved = first.checkpoint(run.run_id)
        second = toys.trainer(data, backbone)
        second.admit(run, saved)
        assert second.step_of(run.run_id) == 3
        again = second.checkpoint(run.run_id)
        assert_same_state(toys.now(again), toys.now(saved), exactly=True)
        one, other = toys.finish(first)[run.run_id], toys.finish(second)[run.run_id]
        assert_same_state(toys.weights(toys.ended(one)), toys.weights(toys.ended(other)), exactly=True)

    @pytest.fixture(scope="class")
    @classmethod
    def together(cls, backbone: Backbone, data: TokenisedData) -> dict[str, list[toys.Event]]:
        """All variants trained in one pack."""
        return toys.train(data, backbone, *map(with_dropout, cls.variants.values()))

    def test_a_pack_of_many_equals_each_alone(
        self,
        changes: Changes,
        together: dict[str, list[toys.Event]],
        backbone: Backbone,
        data: TokenisedData,
    ) -> None:
        run = with_dropout(changes)
        assert_same_events(together[run.run_id], toys.train_alone(data, backbone, run))

    def test_merged_into_the_weights_it_is_the_same_function(
        self, changes: Changes, backbone: Backbone, data: TokenisedData
    ) -> None:
        if not self.mergeable:
            pytest.skip("the method cannot be merged")
        run = toys.run(**changes)
        state = disturbed(run)
        wanted = outputs([run], [state], backbone, data)[0]
        probe = toys.run(**without_adapters(changes))
        for task in toys.TASKS:
            weights = {name: value.clone() for name, value in backbone.state_dict().items()}
            weights, heads = self.merged_weights(run.configuration, state, weights, task)
            arrays = {name: value.numpy() for name, value in weights.items()}
            merged = Backbone.from_arrays(toys.SMALL, arrays, "float64")
            own = {name: value for name, value in state.items() if is_head(name)} | heads
            got = outputs([probe], [own], merged, data)[0][task]
            assert torch.allclose(got, wanted[task], rtol=CLOSE, atol=CLOSE)


def is_head(name: str) -> bool:
    """Whether a tensor is a task's own output layer."""
    return name.startswith("heads.")


def with_dropout(changes: Changes) -> Run:
    """A run of these changes that drops something everywhere."""
    rates = {"dropout": {"backbone": 0.1, "adapters": 0.2, "heads": 0.1}}
    return toys.run(1, **{**changes, "training": {**changes.get("training", {}), **rates}})


def without_adapters(changes: Changes) -> Changes:
    """The same training with the heads alone."""
    places = ("low_rank", "parallel", "biases", "backbone", "heads")
    return {name: value for name, value in changes.items() if name not in places}


def disturbed(run: Run, seed: int = 0) -> State:
    """A run's tensors moved away from their start, so that everything matters."""
    state = initial_state(run, toys.SMALL, toys.TASKS)
    return {
        name: value.double()
        + 0.3 * torch.randn(value.shape, generator=torch_generator(seed, name), dtype=torch.float64)
        for name, value in state.items()
    }


def packed(runs: Sequence[Run], states: Sequence[State | None], backbone: Backbone) -> Pack:
    """These runs in one pack over all three tasks; a state of None is the start."""
    admitted = [
        Admitted(
            at,
            run.configuration,
            tuple(toys.TASKS),
            initial_state(run, toys.SMALL, toys.TASKS) if state is None else state,
        )
        for at, (run, state) in enumerate(zip(runs, states, strict=True))
    ]
    return Pack(backbone, admitted, toys.TASKS, "cpu")


def batch_of(runs: Sequence[Run], data: TokenisedData, examples: int = 6) -> TokenBatch:
    """Every run's first examples of every task."""
    requests = [
        Request(at, task, data.splits[task, "train"], np.arange(examples), run.configuration.pairs)
        for at, run in enumerate(runs)
        for task in toys.TASKS
    ]
    return assemble(requests, data.special, 64)


def outputs(
    runs: Sequence[Run], states: Sequence[State | None], backbone: Backbone, data: TokenisedData
) -> list[dict[str, Tensor]]:
    """Each run's outputs by task, without dropout."""
    found: list[dict[str, Tensor]] = [{} for _ in runs]
    with torch.no_grad():
        for of in packed(runs, states, backbone).forward(batch_of(runs, data), None, {}):
            for at, start, stop in of.members:
                found[at][of.task.name] = of.outputs[start:stop]
    return found


def total_loss(pack: Pack, runs: Sequence[Run], data: TokenisedData) -> Tensor:
    """The sum of all losses over `batch_of`."""
    dropouts = dict.fromkeys(range(len(runs)), NO_DROPOUT)
    keys = {at: step_key(run.seed, 0) for at, run in enumerate(runs)}
    total = torch.zeros((), dtype=torch.float64)
    for of in pack.forward(batch_of(runs, data), dropouts, keys):
        labels = torch.from_numpy(data.splits[of.task.name, "train"].labels[:6])
        for _, start, stop in of.members:
            total = total + per_example(of.task, of.outputs[start:stop], labels).mean()
    return total


def equal_outputs(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether every task's outputs are alike."""
    return all(torch.allclose(one[task], other[task], rtol=CLOSE, atol=CLOSE) for task in one)


def assert_same_state(one: State, other: State, exactly: bool = False) -> None:
    """Equal names, equal tensors."""
    assert set(one) == set(other)
    for name, value in one.items():
        if exactly:
            assert torch.equal(value, other[name]), name
        else:
            assert torch.allclose(value, other[name], rtol=CLOSE, atol=CLOSE), name


def assert_same_events(one: Sequence[toys.Event], other: Sequence[toys.Event]) -> None:
    """The same evaluations and the same ending, to rounding in float64."""
    mine, theirs = toys.evaluations(one), toys.evaluations(other)
    assert [record["step"] for record in mine] == [record["step"] for record in theirs]
    for record, reference in zip(mine, theirs, strict=True):
        for row, wanted in zip(record["rows"], reference["rows"], strict=True):
            assert row[:3] == wanted[:3]
            assert (row[3] is None) == (wanted[3] is None)
            if wanted[3] is not None:
                assert row[3] == pytest.approx(wanted[3], rel=1e-7, abs=CLOSE)
        assert record["tokens"] == reference["tokens"]
    end, reference_end = toys.ended(one), toys.ended(other)
    assert end.record["kept_step"] == reference_end.record["kept_step"]
    assert_same_state(toys.weights(end), toys.weights(reference_end))
    assert end.predictions["example_id"] == reference_end.predictions["example_id"]
