"""Which runs can be merged, what says why others cannot, and what makes a merge the same run."""

from __future__ import annotations

from typing import Any

import pytest

from mtbert.checkpoint import CheckpointError
from mtbert.configuration import parse
from mtbert.data.tokenise import TokenisedData
from mtbert.run import Run
from mtbert.schema import ConfigError
from tests.mtbert import toys
from tests.mtbert.merges import ALIKE, ORDER, Changes, merge, orthogonal, parent, parents_of


def test_a_merge_over_seeds_is_one_configuration_and_of_mixed_seeds_another() -> None:
    runs = [merge("ensemble", {task: parent(task, seed) for task in ORDER}).run for seed in (0, 1)]
    assert runs[0].config_id == runs[1].config_id
    assert [run.seed for run in runs] == [0, 1]
    assert runs[0].configuration.merge is not None
    assert runs[0].configuration.merge.parents == {task: parent(task)[0].config_id for task in ORDER}
    mixed = merge("ensemble", {task: parent(task, seed) for seed, task in enumerate(ORDER, 1)}).run
    assert mixed.seed == 0
    assert mixed.configuration.merge is not None
    assert mixed.configuration.merge.parents == {
        task: parent(task, seed)[0].run_id for seed, task in enumerate(ORDER, 1)
    }


def test_a_merge_is_another_run_by_its_kind_its_parents_and_its_weights() -> None:
    parents = parents_of(ALIKE)
    others = {**parents, "sst": parent("sst", low_rank=toys.lora(rank=3))}
    runs = [
        merge("ensemble", parents).run,
        merge("average", parents).run,
        merge("average", others).run,
        merge("average", parents, {"sst": 1.0, "para": 1.0, "sts": 0.0}).run,
    ]
    assert len({run.run_id for run in runs}) == 4
    usual = merge("average", parents, dict.fromkeys(ORDER, 1 / 3)).run
    assert usual.run_id == runs[1].run_id
    reordered = merge("average", dict(reversed(parents.items()))).run
    assert reordered.run_id == runs[1].run_id


REFUSED: dict[str, tuple[str, Changes, str]] = {
    "another base model": ("average", {"model": "other"}, "model: expected 'toy model'"),
    "other data": ("average", {"data": "other"}, "data: expected 'toy data'"),
    "a trained backbone": ("average", {"backbone": "trained"}, "backbone: expected frozen"),
    "trained biases": ("ensemble", {"biases": "trained"}, "biases: expected frozen"),
    "a PAL": ("ensemble", {"parallel": {"form": "low_rank"}}, "parallel: expected none"),
    "no adapter": ("average", {"low_rank": None}, "low_rank.kind: expected lora for this merge, got none"),
    "DoRA": ("average", {"low_rank": {"kind": "dora"}}, "expected lora for this merge, got dora"),
    "a LoRA in an orthogonal merge": ("orthogonal", {}, "expected orthogonal for this merge, got lora"),
    "orthogonal in an ensemble": ("ensemble", orthogonal(), "expected lora for this merge, got orthogonal"),
    "other features": ("average", {"features": "cls"}, "features: expected 'pooler'"),
    "another encoding": ("average", {"pairs": {"encoding": "separate"}}, "pairs: expected Pairs("),
    "another length": ("average", {"max_length": 20}, "max_length: expected None"),
    "another precision": ("average", {"precision": "float32"}, "precision: expected 'float64'"),
    "untrained heads": ("average", {"heads": {"trained": False}}, "heads.trained: expected True"),
    "another task": ("average", {"training": {"tasks": ["sst"]}}, "was trained on sst, not on sts"),
}


@pytest.mark.parametrize(("kind", "changes", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_merged_is_refused_by_parent_and_field(kind: str, changes: Changes, said: str) -> None:
    identity = {name: changes[name] for name in ("data", "model") if name in changes}
    fields: Changes = {"low_rank": toys.lora(), "training": {"tasks": ["sts"]}}
    fields |= {name: value for name, value in changes.items() if name not in identity}
    made = toys.run(**fields)
    run = Run(made.configuration, 0, identity.get("data", made.data), identity.get("model", made.model))
    parents = {**parents_of(ALIKE), "sts": (run, b"")}
    if kind == "orthogonal":
        parents |= {task: parent(task, **orthogonal()) for task in ("sst", "para")}
    with pytest.raises(ConfigError) as caught:
        merge(kind, parents)
    assert str(caught.value).startswith(f"merge.parents.sts: run {run.run_id}: ")
    assert said in str(caught.value)


def test_orthogonal_parents_of_another_basis_are_refused() -> None:
    by_task = {task: orthogonal(basis=at // 2) for at, task in enumerate(ORDER)}
    with pytest.raises(ConfigError, match=r"sts.*\.basis: expected 0 as in the parent of sst, got 1"):
        merge("orthogonal", parents_of(by_task))


def test_a_merged_model_is_no_parent_and_is_not_trained(data: TokenisedData) -> None:
    average = merge("average", parents_of(ALIKE))
    parents = {**parents_of(ALIKE), "sst": (average.run, average.weights)}
    with pytest.raises(ConfigError, match=r"merge: expected none"):
        merge("average", parents)
    with pytest.raises(ConfigError, match=r"configuration\.merge: a merged model has no steps to train"):
        toys.trainer(data, toys.backbone()).admit(average.run)


def test_another_run_s_weights_are_refused() -> None:
    parents = parents_of(ALIKE)
    wrong = {**parents, "sst": (parents["sst"][0], parents["para"][1])}
    with pytest.raises(CheckpointError, match=f"expected those of run {parents['sst'][0].run_id}"):
        merge("average", wrong)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "average"}, "merge.parents: expected a trained run for each task, got none"),
        (
            {"kind": "average", "parents": {"sst": "a", "sts": "b"}, "weights": {"sst": 1.0}},
            "merge.weights: expected one for each of sst, sts, or none at all; got sst",
        ),
        ({"parents": {"sst": "a"}, "weights": {"sst": 1.0}}, "merge.weights: an ensemble keeps"),
        (
            {"kind": "average", "parents": {"sst": "a"}, "weights": {"sst": -1}},
            "merge.weights.sst: expected a number at least 0, got -1",
        ),
    ],
)
def test_a_merge_that_cannot_be_is_refused_by_field(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"low_rank": {}, "merge": fields})
    assert said in str(caught.value)


def test_tasks_that_the_data_lacks_and_weights_of_some_are_refused() -> None:
    parents = parents_of(ALIKE)
    with pytest.raises(ConfigError, match="the data has no task 'nli'; it has sst, para, sts"):
        merge("average", {**parents, "nli": parents["sst"]})
    with pytest.raises(ConfigError, match=r"merge\.weights: expected one for each of para, sst, sts"):
        merge("average", parents, {"sst": 1.0})
    with pytest.raises(ConfigError, match="expected a trained run for each task, got none"):
        merge("average", {})
