"""Evaluations: when, on what, which metrics, and which step's weights are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from mtbert.evaluation import predict, subset
from mtbert.schedules import plan
from tests.mtbert import toys

RATES_OF_ZERO = {"learning_rate": {"adapters": 0, "heads": 0}}


def steps_of(events: list[toys.Event]) -> list[int]:
    return [record["step"] for record in toys.evaluations(events)]


def trained(data: TokenisedData, backbone: Backbone, **changes: Any) -> list[toys.Event]:
    return toys.train_alone(data, backbone, toys.run(**changes))


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        ({"every": None}, [10]),
        ({"every": 3}, [3, 6, 9, 10]),
        ({"every": 5}, [5, 10]),
        ({"every": 1, "unit": "epochs"}, [4, 8, 10]),
        ({"every": 2, "unit": "epochs"}, [8, 10]),
        ({"every": 50, "unit": "epochs"}, [10]),
    ],
)
def test_evaluations_come_every_so_many_steps_or_epochs_and_at_the_end(
    evaluation: dict[str, Any], expected: list[int], backbone: Backbone, data: TokenisedData
) -> None:
    events = trained(
        data,
        backbone,
        training={"steps": 10, "steps_per_epoch": 4},
        evaluation={"train_limit": 0, **evaluation},
    )
    assert steps_of(events) == expected
    assert [record["epoch"] for record in toys.evaluations(events)] == [step / 4 for step in expected]
    assert toys.ended(events).record["step"] == 10


def test_an_epoch_of_one_random_task_ends_where_its_pass_ends(
    backbone: Backbone, data: TokenisedData
) -> None:
    """Report 004's baseline evaluates after every epoch; its epochs have the lengths of their tasks."""
    training = {"steps": None, "epochs": 4, "batch_size": 10, "schedule": {"kind": "random_epoch"}}
    run = toys.run(training=training, evaluation={"every": 1, "unit": "epochs", "train_limit": 0})
    sizes = {name: len(data.splits[name, "train"].ids) for name in data.tasks}
    choice = plan(run.configuration.training, sizes, run.seed, 0).choice.tolist()
    passes = [-(-size // 10) for size in sizes.values()]
    ends, step = [], 0
    while step < len(choice):
        step += passes[choice[step]]
        ends.append(step)
    assert len(ends) == 4
    assert steps_of(toys.train_alone(data, backbone, run)) == ends


def reference_metrics(
    data: TokenisedData, events: list[toys.Event]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Predictions and labels by task, from the ending's columns."""
    columns = toys.ended(events).predictions
    found = {}
    for task in data.tasks:
        rows = [at for at, name in enumerate(columns["task"]) if name == task]
        ids = data.splits[task, "dev"].ids
        assert [columns["example_id"][at] for at in rows] == list(ids)
        labels = np.array([columns["label"][at] for at in rows])
        assert np.array_equal(labels, data.splits[task, "dev"].labels.astype(float))
        found[task] = np.array([columns["prediction"][at] for at in rows]), labels
    return found


def test_metrics_are_those_of_the_predictions(backbone: Backbone, data: TokenisedData) -> None:
    events = trained(data, backbone, low_rank=toys.lora(), evaluation={"every": None})
    (record,) = toys.evaluations(events)
    found = reference_metrics(data, events)
    accuracy = toys.values(record, "dev", "accuracy")
    assert accuracy == {task: float((x == y).mean()) for task, (x, y) in found.items() if task != "sts"}
    x, y = found["sts"]
    assert toys.values(record, "dev", "pearson")["sts"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert toys.values(record, "dev", "mse")["sts"] == pytest.approx(float(((x - y) ** 2).mean()))
    assert toys.values(record, "dev", "loss")["sts"] == toys.values(record, "dev", "mse")["sts"]
    parts = [accuracy["sst"], accuracy["para"], (1 + stats.pearsonr(x, y).statistic) / 2]
    assert record["score"] == pytest.approx(np.mean(parts))
    assert toys.values(record, "dev", "score") == {"": record["score"]}
    plain = [accuracy["sst"], accuracy["para"], stats.pearsonr(x, y).statistic]
    assert toys.values(record, "dev", "unscaled")[""] == pytest.approx(np.mean(plain))
    end = toys.ended(events).record
    assert end["score"] == record["score"]
    assert end["metrics"]["sst.accuracy"] == accuracy["sst"]
    names = {f"{name}.{metric}" for name, task in data.tasks.items() for metric in task.metrics}
    assert set(end["metrics"]) == names
    assert end["metrics"]["sts.mse"] == toys.values(record, "dev", "mse")["sts"]


def test_training_losses_are_the_means_since_the_last_evaluation(
    backbone: Backbone, data: TokenisedData
) -> None:
    common = {"low_rank": toys.lora(), "training": {"schedule": {"kind": "round_robin"}, "steps": 6}}
    single = toys.evaluations(trained(data, backbone, **common, evaluation={"every": 1, "train_limit": 0}))
    thrice = toys.evaluations(trained(data, backbone, **common, evaluation={"every": 6, "train_limit": 0}))
    (whole,) = thrice
    for task, loss in toys.values(whole, "train", "training_loss").items():
        found = [toys.values(record, "train", "training_loss").get(task) for record in single]
        known = [value for value in found if value is not None]
        assert len(known) == 2
        assert loss == pytest.approx(np.mean(known))


@pytest.mark.parametrize("limit", [0, 7, 10_000])
def test_the_metrics_of_train_are_of_a_fixed_subset(
    limit: int, backbone: Backbone, data: TokenisedData
) -> None:
    """With rates of zero nothing changes, so that only the subset could."""
    training = {**RATES_OF_ZERO, "steps": 4}
    records = []
    for rank in (1, 2):
        events = trained(
            data, backbone, low_rank=toys.lora(rank=rank), training=training,
            evaluation={"every": 2, "train_limit": limit},
        )  # fmt: skip
        records += toys.evaluations(events)
    found = [
        [row for row in record["rows"] if row[0] == "train" and row[2] != "training_loss"]
        for record in records
    ]
    assert all(rows == found[0] for rows in found)
    assert (found[0] == []) == (limit == 0)
    accuracy = toys.values(records[0], "train", "accuracy")
    for task, value in accuracy.items():
        assert value is not None
        size = min(limit, len(data.splits[task, "train"].ids))
        assert (value * size) == pytest.approx(round(value * size))


def test_a_subset_is_fixed_ascending_and_of_the_split() -> None:
    split = toys.random_data().splits["sst", "dev"]
    chosen = subset(split, "dev.sst", 11)
    assert (chosen == subset(split, "dev.sst", 11)).all()
    assert len(set(chosen.tolist())) == 11
    assert (np.diff(chosen) > 0).all()
    assert (subset(split, "dev.sst", 40) == np.arange(40)).all()
    assert (subset(split, "dev.sst", None) == np.arange(40)).all()
    assert set(subset(split, "dev.sst", 5)) <= set(chosen)  # a smaller one lies within
    assert (subset(split, "dev.para", 11) != chosen).any()


def test_a_limited_dev_set_is_the_same_at_each_evaluation_and_whole_at_the_last(
    backbone: Backbone, data: TokenisedData
) -> None:
    common = {"low_rank": toys.lora(), "training": {**RATES_OF_ZERO, "steps": 6}}
    limited = toys.evaluations(trained(data, backbone, **common, evaluation={"every": 2, "dev_limit": 10}))
    (whole,) = toys.evaluations(trained(data, backbone, **common, evaluation={"every": None}))
    losses = [toys.values(record, "dev", "loss") for record in limited]
    assert losses[0] == losses[1] != losses[2]
    assert losses[2] == toys.values(whole, "dev", "loss")
    for value in toys.values(limited[0], "dev", "accuracy").values():
        assert value is not None
        assert value * 10 == pytest.approx(round(value * 10))


@pytest.mark.parametrize("patience", [None, 1])
def test_what_is_kept_from_a_limited_evaluation_is_evaluated_on_all_of_dev_in_the_end(
    patience: int | None, backbone: Backbone, data: TokenisedData
) -> None:
    """With rates of zero the first evaluation is kept; its metrics must be those of the whole dev set."""
    common = {"low_rank": toys.lora(), "training": {**RATES_OF_ZERO, "steps": 6}}
    evaluation = {"every": 2, "dev_limit": 10, "patience": patience}
    events = trained(data, backbone, **common, evaluation=evaluation)
    whole = trained(data, backbone, **common, evaluation={"every": None})
    end, reference = toys.ended(events), toys.ended(whole)
    assert end.record["kept_step"] == 2
    assert end.record["metrics"] == reference.record["metrics"]
    assert end.record["score"] == reference.record["score"]
    assert end.predictions == reference.predictions
    assert len(end.predictions["task"]) == 3 * 40


def test_a_last_step_that_is_kept_has_its_score_on_all_of_dev(
    backbone: Backbone, data: TokenisedData
) -> None:
    evaluation = {"every": 2, "dev_limit": 10, "keep": "last"}
    changes = {"low_rank": toys.lora(), "training": {"steps": 6}}
    events = trained(data, backbone, **changes, evaluation=evaluation)
    whole = toys.ended(trained(data, backbone, **changes, evaluation={"every": None})).record
    end = toys.ended(events).record
    assert end["kept_step"] == 6
    assert end["score"] == whole["score"]
    assert end["score"] == toys.evaluations(events)[-1]["score"]


def constant(data: TokenisedData) -> TokenisedData:
    """The same with one label for all of STS's dev set."""
    splits = dict(data.splits)
    old = splits["sts", "dev"]
    splits["sts", "dev"] = type(old)(old.ids, old.first, old.second, np.full_like(old.labels, 2.5))
    return type(data)(data.tasks, data.fingerprint, splits, data.special)


def test_an_undefined_correlation_is_null_and_so_is_the_score(
    backbone: Backbone, data: TokenisedData
) -> None:
    events = trained(constant(data), backbone, low_rank=toys.lora())
    end = toys.ended(events).record
    assert end["status"] == "completed"
    assert (end["score"], end["metrics"]["sts.pearson"]) == (None, None)
    assert end["metrics"]["sts.mse"] is not None
    for record in toys.evaluations(events):
        assert record["score"] is None
        assert toys.values(record, "dev", "unscaled")[""] is None


@pytest.mark.parametrize("tasks", [["sst"], ["sts", "para"]])
def test_a_run_of_some_tasks_is_evaluated_on_those_and_has_no_score(
    tasks: list[str], backbone: Backbone, data: TokenisedData
) -> None:
    events = trained(
        data, backbone, low_rank=toys.lora(), training={"tasks": tasks}, evaluation={"keep": tasks[0]}
    )
    for record in toys.evaluations(events):
        assert set(toys.values(record, "dev", "loss")) == set(tasks)
        assert record["score"] is None
    end = toys.ended(events)
    assert end.record["status"] == "completed"
    assert end.record["score"] is None
    assert {name.split(".")[0] for name in end.record["metrics"]} == set(tasks)
    assert set(end.predictions["task"]) == set(tasks)
    heads = {name.split(".")[1] for name in toys.weights(end) if name.startswith("heads.")}
    assert heads == set(tasks)


@pytest.mark.parametrize("task", toys.TASKS)
def test_members_that_share_a_pass_predict_as_each_by_itself(
    task: str, backbone: Backbone, data: TokenisedData
) -> None:
    of = toys.trainer(data, backbone)
    runs = [
        toys.run(0, low_rank=toys.lora()),
        toys.run(1, low_rank=toys.lora(rank=2, sharing="per_task")),
        toys.run(2, parallel={"hidden": 8, "heads": 2}),
        toys.run(3, biases="trained"),
    ]
    for run in runs:
        of.admit(run)
    of.advance()
    (group,) = of._groups.values()
    split, indices = data.splits[task, "dev"], np.arange(1, 40, 2)

    def found(*members: int) -> list[tuple[np.ndarray, np.ndarray]]:
        seen = predict(group.pack, members, toys.TASKS[task], split, indices, data, 64, "cpu")
        return [(each.values, each.losses) for each in seen]

    together = found(0, 1, 2, 3)
    for member, mine in enumerate(together):
        for one, other in zip(mine, found(member)[0], strict=True):
            assert np.allclose(one, other, rtol=1e-10, atol=1e-10)
    assert not np.allclose(together[0][1], together[1][1])
