"""A trained run in use: the predictions that its ending told, on any split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from mtbert.inference import TrainedModel, write_student_file
from mtbert.run import Run
from mtbert.schema import ConfigError
from mtbert.weights import BaseModel
from tests.mtbert import toys

ARRAYS = toys.arrays()
BASE = BaseModel("toy", toys.SMALL, ARRAYS, Path("/nowhere"), "toy model")
CASES: dict[str, dict[str, Any]] = {
    "probe": {},
    "lora": {"low_rank": toys.lora(targets=["all_linear", "heads"]), "biases": "trained"},
    "lora per task": {
        "low_rank": toys.lora(sharing="per_task", tasks={"sst": {"rank": 1, "targets": ["key"]}})
    },
    "dora": {"low_rank": toys.lora(kind="dora", targets=["all_linear", "heads"]), "biases": "trained"},
    "dora, bfloat16": {"low_rank": toys.lora(kind="dora"), "precision": "bfloat16"},
    "full with dora": {"backbone": "trained", "low_rank": toys.lora(kind="dora", targets=["query"])},
    "orthogonal": {"low_rank": {"kind": "orthogonal", "rank": 4, "targets": ["all_linear", "heads"]}},
    "orthogonal on the last task alone": {
        "low_rank": {"kind": "orthogonal", "rank": 4},
        "training": {"tasks": ["sts"]},
    },
    "full": {"backbone": "trained"},
    "full with lora": {"backbone": "trained", "low_rank": toys.lora(targets=["query"])},
    "pairs alone": {"training": {"tasks": ["para", "sts"]}, "pairs": {"encoding": "separate"}},
    "short": {"max_length": 8},
    "mean, bfloat16": {"features": "mean", "precision": "bfloat16"},
    "full, bfloat16": {"backbone": "trained", "precision": "bfloat16"},
    "full with lora, bfloat16": {
        "backbone": "trained",
        "low_rank": toys.lora(targets=["query"]),
        "precision": "bfloat16",
    },
}


def model_of(run: Run, data: TokenisedData) -> tuple[TrainedModel, Any]:
    """The model that a run left behind, and its ending."""
    frozen = Backbone.from_arrays(toys.SMALL, ARRAYS, run.configuration.precision)
    end = toys.ended(toys.train_alone(data, frozen, run))
    return TrainedModel(BASE, run, end.weights, data.tasks), end


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_a_trained_model_predicts_what_its_run_told(changes: dict[str, Any], data: TokenisedData) -> None:
    model, end = model_of(toys.run(**changes), data)
    predicted = [value for task in model.tasks for value in model.predict(data, task, "dev").values.tolist()]
    assert predicted == end.predictions["prediction"]
    found = model.evaluate(data, "dev")
    assert {f"{t}.{m}": v for t, of in found.items() for m, v in of.items()} == end.record["metrics"]
    assert set(model.tasks) == set(end.predictions["task"])


def test_another_base_model_is_refused_by_both_fingerprints(data: TokenisedData) -> None:
    run = toys.run()
    end = toys.ended(toys.train_alone(data, toys.backbone(), run))
    other = BaseModel("other", toys.SMALL, ARRAYS, Path("/nowhere"), "another model")
    with pytest.raises(ConfigError, match="another model") as caught:
        TrainedModel(other, run, end.weights, data.tasks)
    assert "toy model" in str(caught.value)


@pytest.mark.parametrize("name", ["orthogonal", "orthogonal on the last task alone"])
def test_orthogonal_adapters_stay_with_their_tasks_whatever_the_data_s_order(
    name: str, data: TokenisedData
) -> None:
    run = toys.run(**CASES[name])
    model, end = model_of(run, data)
    more = {"more": data.tasks["sst"], **dict(reversed(data.tasks.items()))}
    again = TrainedModel(BASE, run, end.weights, more)
    for task in model.tasks:
        found = again.predict(data, task, "dev").values
        assert np.array_equal(found, model.predict(data, task, "dev").values)
    fewer = {task: of for task, of in data.tasks.items() if task != "para"}
    with pytest.raises(ConfigError, match=r"tasks sst, para, sts; expected all of them, got .* para"):
        TrainedModel(BASE, run, end.weights, fewer)


def test_a_trained_backbone_is_whole_on_data_of_fewer_tasks(data: TokenisedData) -> None:
    of_sst = toys.lora(sharing="per_task", targets=["query"], tasks={"sst": {"targets": ["key"]}})
    run = toys.run(backbone="trained", low_rank=of_sst)
    model, end = model_of(run, data)
    fewer = TrainedModel(BASE, run, end.weights, {"para": data.tasks["para"]})
    found = fewer.predict(data, "para", "dev").values
    assert np.array_equal(found, model.predict(data, "para", "dev").values)


def test_examples_without_labels_are_predicted_and_not_evaluated(data: TokenisedData) -> None:
    model, _ = model_of(toys.run(), data)
    splits = dict(data.splits)
    for task in data.tasks:
        old = splits[task, "dev"]
        labels = np.full_like(old.labels, np.nan)
        splits[task, "test"] = type(old)(old.ids, old.first, old.second, labels)
    unlabelled = type(data)(data.tasks, data.fingerprint, splits, data.special)
    assert model.evaluate(unlabelled, "test") == {}
    for task in data.tasks:
        assert (
            model.predict(unlabelled, task, "test").values == model.predict(data, task, "dev").values
        ).all()


def test_files_of_predictions_are_those_of_the_cs_224n_project(tmp_path: Path) -> None:
    ids = ["a1", "b2"]
    files = {"sst": "Predicted_Sentiment", "para": "Predicted_Is_Paraphrase", "sts": "Predicted_Similiary"}
    for task, header in files.items():
        path = tmp_path / f"{task}.csv"
        write_student_file(path, ids, np.array([3.0, 1.0]), toys.TASKS[task])
        first = "3" if task == "sst" else "3.0"
        assert path.read_text().splitlines()[:2] == [f"id \t {header} ", f"a1 , {first} "]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["para.csv", "sst.csv", "sts.csv"]
