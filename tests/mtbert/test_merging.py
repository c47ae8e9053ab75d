"""Merged models: the formula with dense weights, and the parents' own predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from mtbert.adapters.orthogonal import fixed_factor
from mtbert.bert import Backbone
from mtbert.checkpoint import pack_tensors, unpack_tensors
from mtbert.configuration import parse
from mtbert.counts import count
from mtbert.data.tokenise import TokenisedData
from mtbert.inference import TrainedModel
from mtbert.member import initial_state
from mtbert.merging import Merged, evaluate_merged
from mtbert.run import Run
from mtbert.schema import ConfigError
from mtbert.slots import State
from mtbert.tasks import score
from tests.mtbert import toys
from tests.mtbert.adapters.contract import CLOSE, outputs
from tests.mtbert.merges import ALIKE, BASE, ORDER, Changes, Parents, merge, orthogonal, parent, parents_of

LAYER = ["query", "key", "value", "attention_out", "ffn_in", "ffn_out"]


def scale(adapter: Mapping[str, Any]) -> float:
    """The factor of B·A as each scaling has it."""
    alpha, rank = adapter.get("alpha", 8.0), adapter.get("rank", 4)
    factors = {"alpha_over_rank": alpha / rank, "alpha_over_sqrt_rank": alpha / rank**0.5}
    return {**factors, "alpha": alpha, "one": 1.0}[adapter.get("scaling", "alpha_over_rank")]


def products(task: str, run: Run, weights: bytes, adapter: Mapping[str, Any]) -> State:
    """s·B·A of a parent by site, from the names in its weights."""
    state, _ = unpack_tensors(weights)
    low_rank = run.configuration.low_rank
    assert low_rank is not None
    variant = "shared" if low_rank.sharing == "shared" else task
    prefix, found = f"low_rank.{variant}.", {}
    for name, b in state.items():
        if not (name.startswith(prefix) and name.endswith(".B")):
            continue
        site = name.removeprefix(prefix).removesuffix(".B")
        if low_rank.kind == "orthogonal":
            width = toys.SMALL.intermediate_size if site.endswith("ffn_out") else toys.SMALL.hidden_size
            a = fixed_factor(low_rank.basis, width, ORDER.index(task), 3, low_rank.rank).double()
        else:
            a = state[f"{prefix}{site}.A"]
        found[site] = scale(adapter) * b @ a
    return found


VARIANTS: dict[str, dict[str, Changes]] = {
    "alike": ALIKE,
    "each its own": {
        "sst": {"low_rank": toys.lora(rank=2, targets=["query", "pooler"])},
        "para": {"low_rank": toys.lora(rank=5, alpha=3.0, scaling="alpha", targets=["value", "ffn_out"])},
        "sts": {"low_rank": toys.lora(rank=4, scaling="one", targets=["all_linear"])},
    },
    "of some layers": {
        "sst": {"low_rank": toys.lora(layers=[0])},
        "para": {"low_rank": toys.lora(layers=[1], scaling="alpha_over_sqrt_rank")},
        "sts": {"low_rank": toys.lora(layers=[0, 1])},
    },
    "of one layer and of all": {
        "sst": {"low_rank": toys.lora(layers=[0])},
        "para": {"low_rank": toys.lora(layers=[0], rank=1)},
        "sts": {"low_rank": toys.lora(targets=["key", "value"])},
    },
    "at heads": {
        "sst": {"low_rank": toys.lora(targets=["query", "heads"], rank=3)},
        "para": {"low_rank": toys.lora(targets=["heads"])},
        "sts": {"low_rank": toys.lora(targets=["value"])},
    },
    "of runs with one for each task": {
        "sst": {"low_rank": toys.lora(sharing="per_task"), "tasks": ORDER},
        "para": {"low_rank": toys.lora(targets=LAYER)},
        "sts": {"low_rank": toys.lora(sharing="per_task", tasks={"sts": {"rank": 6, "alpha": 2.0}})},
    },
    "of separate sentences and mean features": {
        task: {"features": "mean", "pairs": {"encoding": "separate"}} for task in ORDER
    },
}


def adapter_of(task: str, changes: Changes) -> dict[str, Any]:
    """The fields of the task's own LoRA."""
    fields = changes.get("low_rank", toys.lora())
    return {**fields, **fields.get("tasks", {}).get(task, {})}


def dense(
    by_task: Mapping[str, Changes], parents: Parents, weights: Mapping[str, float], backbone: Backbone
) -> tuple[Backbone, State]:
    """The backbone with Σ λ·s·B·A added to its weights, and each parent's head with its own adapter added."""
    arrays = {name: value.clone() for name, value in backbone.state_dict().items()}
    heads: State = {}
    for task, (run, blob) in parents.items():
        own = unpack_tensors(blob)[0]
        heads |= {name: value for name, value in own.items() if name.startswith(f"heads.{task}.")}
        for site, change in products(task, run, blob, adapter_of(task, by_task[task])).items():
            if site == f"heads.{task}":
                heads[f"{site}.weight"] = heads[f"{site}.weight"] + change
            elif not site.startswith("heads."):
                arrays[f"{site}.weight"] = arrays[f"{site}.weight"] + weights[task] * change
    numpy = {name: value.numpy() for name, value in arrays.items()}
    return Backbone.from_arrays(toys.SMALL, numpy, "float64"), heads


def assert_same_function(
    by_task: Mapping[str, Changes],
    kind: str,
    weights: Mapping[str, float] | None,
    factors: Mapping[str, float],
    backbone: Backbone,
    data: TokenisedData,
) -> None:
    """The merged model gives what the backbone with these factors' sum of products gives."""
    parents = parents_of(by_task)
    found = merge(kind, parents, weights)
    plain, heads = dense(by_task, parents, factors, backbone)
    common = {name: by_task["sst"][name] for name in ("features", "pairs") if name in by_task["sst"]}
    wanted = outputs([toys.run(**common)], [heads], plain, data)[0]
    got = outputs([found.run], [found.state], backbone, data)[0]
    for task in ORDER:
        assert torch.allclose(got[task], wanted[task], rtol=CLOSE, atol=CLOSE), task


@pytest.mark.parametrize("by_task", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("weights", [None, {"sst": 0.5, "para": 2.0, "sts": 0.0}], ids=["mean", "weighted"])
def test_an_average_is_the_weighted_sum_of_the_products(
    by_task: dict[str, Changes], weights: dict[str, float] | None, backbone: Backbone, data: TokenisedData
) -> None:
    factors = weights or dict.fromkeys(ORDER, 1 / 3)
    assert_same_function(by_task, "average", weights, factors, backbone, data)


@pytest.mark.parametrize("weights", [None, {"sst": 0.5, "para": 2.0, "sts": 0.25}], ids=["sum", "weighted"])
def test_an_orthogonal_merge_is_the_sum_of_the_products_with_the_fixed_factors(
    weights: dict[str, float] | None, backbone: Backbone, data: TokenisedData
) -> None:
    by_task = {
        "sst": orthogonal(rank=2, targets=["query", "ffn_out"]),
        "para": orthogonal(alpha=2.0, targets=["query", "pooler"]),
        "sts": orthogonal(scaling="one", targets=LAYER),
    }
    factors = weights or dict.fromkeys(ORDER, 1.0)
    assert_same_function(by_task, "orthogonal", weights, factors, backbone, data)


def test_products_of_an_orthogonal_merge_do_not_overlap() -> None:
    """A_i A_jᵀ = 0: what one task's product reads of a layer's input no other one reads."""
    found = merge("orthogonal", parents_of({task: orthogonal(rank=3) for task in ORDER}))
    a = found.state["low_rank.shared.layer.0.query.A"]
    assert a.shape == (9, toys.SMALL.hidden_size)
    common = (a @ a.T).view(3, 3, 3, 3)  # [task, rank, task, rank]
    for one in range(3):
        for other in range(3):
            assert (common[one, :, other].abs().max() < 1e-6) == (one != other)


@pytest.mark.parametrize("by_task", VARIANTS.values(), ids=VARIANTS.keys())
def test_an_ensemble_is_each_parent_on_its_own_task(
    by_task: dict[str, Changes], backbone: Backbone, data: TokenisedData
) -> None:
    if any("layers" in adapter_of(task, changes) for task, changes in by_task.items()):
        with pytest.raises(ConfigError, match=r"low_rank\.layers"):
            merge("ensemble", parents_of(by_task))
        return
    parents = parents_of(by_task)
    found = merge("ensemble", parents)
    got = outputs([found.run], [found.state], backbone, data)[0]
    common = {name: by_task["sst"][name] for name in ("features", "pairs") if name in by_task["sst"]}
    for task in ORDER:
        alone = {other: 1.0 if other == task else 0.0 for other in ORDER}
        plain, heads = dense(by_task, parents, alone, backbone)
        wanted = outputs([toys.run(**common)], [heads], plain, data)[0][task]
        assert torch.allclose(got[task], wanted, rtol=CLOSE, atol=CLOSE), task


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_an_ensemble_predicts_what_its_parents_told_to_the_last_bit(
    precision: str, data: TokenisedData
) -> None:
    frozen = Backbone.from_arrays(toys.SMALL, toys.arrays(), precision)
    parents, told = {}, {}
    for at, task in enumerate(ORDER):
        adapter = toys.lora(alpha=3.0 + at, scaling="alpha_over_sqrt_rank" if at else "alpha_over_rank")
        run = toys.run(low_rank=adapter, precision=precision, training={"tasks": [task]})
        end = toys.ended(toys.train_alone(data, frozen, run))
        parents[task], told[task] = (run, end.weights), end
    found = merge("ensemble", parents)
    end = evaluate_merged(found, BASE, data)
    for column in ("task", "example_id", "prediction", "label"):
        assert end.predictions[column] == [value for of in told.values() for value in of.predictions[column]]
    assert end.record["metrics"] == {
        name: value for of in told.values() for name, value in of.record["metrics"].items()
    }


@pytest.fixture
def average() -> Merged:
    return merge("average", parents_of(ALIKE))


def test_a_merged_run_ends_like_any_other(average: Merged, data: TokenisedData) -> None:
    end = evaluate_merged(average, BASE, data)
    trained = toys.ended(toys.train_alone(data, toys.backbone(), toys.run(training={"steps": 1})))
    assert set(end.record) == set(trained.record)
    assert end.run_id == average.run.run_id
    assert (end.record["status"], end.record["step"], end.record["kept_step"]) == ("completed", 0, 0)
    assert end.record["tokens"] == end.record["seconds_training"] == 0
    metrics = {"sst": "accuracy", "para": "accuracy", "sts": "pearson"}
    values = {task: end.record["metrics"][f"{task}.{metric}"] for task, metric in metrics.items()}
    assert end.record["score"] == pytest.approx(score(toys.TASKS, values))
    model = TrainedModel(BASE, average.run, end.weights, data.tasks)
    assert [
        value for task in model.tasks for value in model.predict(data, task, "dev").values.tolist()
    ] == end.predictions["prediction"]


def test_a_merged_run_survives_json_and_its_stored_weights(average: Merged) -> None:
    record = json.loads(json.dumps(average.run.as_json()))
    assert Run.from_json(record) == average.run
    assert Run.from_json(record).run_id == average.run.run_id
    assert set(average.state) == set(initial_state(average.run, toys.SMALL, toys.TASKS))


def test_a_merge_counts_what_was_trained_for_it() -> None:
    by_task = VARIANTS["each its own"]
    found = merge("average", parents_of(by_task))
    alone = [
        count(run.configuration, toys.SMALL, {task: toys.TASKS[task]}).trainable
        for task, (run, _) in parents_of(by_task).items()
    ]
    assert found.trainable == sum(alone)
    one = parent("sst", tasks=ORDER)
    shared = merge("average", dict.fromkeys(ORDER, one))
    assert shared.trainable == count(one[0].configuration, toys.SMALL, toys.TASKS).trainable


def test_a_merge_of_some_tasks_has_these_tasks_and_no_score(data: TokenisedData) -> None:
    found = merge("average", {task: parent(task) for task in ("sst", "sts")})
    assert found.run.configuration.training.tasks == ("sst", "sts")
    end = evaluate_merged(found, BASE, data)
    assert set(end.predictions["task"]) == {"sst", "sts"}
    assert end.record["score"] is None
    assert set(found.state) == set(
        initial_state(found.run, toys.SMALL, {task: toys.TASKS[task] for task in ("sst", "sts")})
    )


def test_each_task_keeps_the_kind_of_head_that_its_run_has() -> None:
    heads = {"para": {"kind": "projected", "size": 5}, "sts": {"kind": "compressed", "size": 3}}
    parents = {**parents_of(ALIKE), "sts": parent("sts", heads={"tasks": heads}, tasks=ORDER)}
    found = merge("average", parents).run.configuration.heads
    assert found == parse({"heads": {"tasks": {"sts": heads["sts"]}}}).heads


def test_one_run_may_serve_several_tasks(backbone: Backbone, data: TokenisedData) -> None:
    one = parent("sst", tasks=ORDER)
    found = merge("average", dict.fromkeys(ORDER, one))
    got = outputs([found.run], [found.state], backbone, data)[0]
    wanted = outputs([one[0]], [unpack_tensors(one[1])[0]], backbone, data)[0]
    assert all(torch.allclose(got[task], wanted[task], rtol=CLOSE, atol=CLOSE) for task in ORDER)


def test_outputs_that_are_not_finite_are_a_diverged_run(data: TokenisedData) -> None:
    run, blob = parent("sst")
    state = unpack_tensors(blob)[0]
    state["heads.sst.bias"] = torch.full_like(state["heads.sst.bias"], float("inf"))
    parents = {**parents_of(ALIKE), "sst": (run, pack_tensors(state, {"run": run.as_json()}))}
    end = evaluate_merged(merge("average", parents), BASE, data)
    assert (end.record["status"], end.record["score"], end.weights) == ("diverged", None, b"")


def test_other_data_than_the_parents_is_not_evaluated_on(average: Merged, data: TokenisedData) -> None:
    other = TokenisedData(data.tasks, "other", data.splits, data.special)
    with pytest.raises(ConfigError, match="trained on the data toy data, got other"):
        evaluate_merged(average, BASE, other)
