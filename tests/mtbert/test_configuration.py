"""A configuration: what it refuses and how, what it takes for the same thing, and its stages."""

from __future__ import annotations

from typing import Any

import pytest

from mtbert.configuration import Configuration, merged, parse, with_values
from mtbert.schema import ConfigError, plain
from mtbert.techniques import ALL_LINEAR, LoRA, TaskLowRank, expand_targets

BOUNDS: list[tuple[str, Any, str]] = [
    ("low_rank.rank", 0, "at least 1"),
    ("low_rank.alpha", 0, "above 0"),
    ("low_rank.dropout", -0.1, "at least 0"),
    ("low_rank.dropout", 1, "below 1"),
    ("weighting.weights", {"sst": -1}, "at least 0"),
    ("max_length", 7, "at least 8"),
    ("training.steps", 0, "at least 1"),
    ("training.epochs", 0, "at least 1"),
    ("training.steps_per_epoch", 0, "at least 1"),
    ("training.batch_size", 0, "at least 1"),
    ("training.schedule.constant", -0.01, "at least 0"),
    ("training.schedule.constant", 1.01, "at most 1"),
    ("training.warmup", -0.1, "at least 0"),
    ("training.warmup", 1, "below 1"),
    ("training.clip", 0, "above 0"),
    *(
        (f"training.{field}.{part}", -1e-9, "at least 0")
        for field in ("learning_rate", "weight_decay")
        for part in ("backbone", "adapters", "heads")
    ),
    *(
        (f"training.dropout.{part}", rate, bound)
        for part in ("backbone", "attention", "adapters", "heads")
        for rate, bound in ((-0.1, "at least 0"), (1.0, "below 1"))
    ),
    ("evaluation.every", 0, "at least 1"),
    ("evaluation.dev_limit", 0, "at least 1"),
    ("evaluation.train_limit", -1, "at least 0"),
    ("evaluation.patience", 0, "at least 1"),
]
CHOICES = [
    "backbone",
    "biases",
    "features",
    "precision",
    "pairs.encoding",
    "low_rank.kind",
    "low_rank.scaling",
    "low_rank.sharing",
    "weighting.kind",
    "training.schedule.kind",
    "training.decay",
    "training.optimizer",
    "evaluation.unit",
]


def refused(**data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(data)
    return str(caught.value)


@pytest.mark.parametrize(("field", "value", "bound"), BOUNDS)
def test_every_bound_holds_and_says_so(field: str, value: Any, bound: str) -> None:
    message = refused(**with_values({}, {field: value}))
    assert message.startswith(f"configuration.{field}")
    assert bound in message
    given = next(iter(value.values())) if isinstance(value, dict) else value
    assert repr(given) in message or repr(float(given)) in message


@pytest.mark.parametrize("field", CHOICES)
def test_a_choice_that_is_none_is_refused_with_those_there_are(field: str) -> None:
    message = refused(**with_values({}, {field: "nonsense"}))
    assert message.startswith(f"configuration.{field}: expected one of ")
    assert "'nonsense'" in message


@pytest.mark.parametrize(
    ("field", "near"),
    [
        ("low_rnak", "low_rank"),
        ("training.learning_rates", "learning_rate"),
        ("training.dropout.backbones", "backbone"),
        ("evaluation.evry", "every"),
        ("low_rank.target", "targets"),
        ("heads.train", "trained"),
        ("pairs.separators", "separator"),
    ],
)
def test_an_unknown_field_is_refused_with_the_one_that_may_be_meant(field: str, near: str) -> None:
    message = refused(**with_values({}, {field: 1}))
    assert message == f"configuration.{field}: no such field; did you mean {near!r}?"


def test_steps_and_epochs_together_are_refused() -> None:
    message = refused(training={"steps": 10, "epochs": 2})
    assert message == "configuration.training: give steps or epochs, got both (10 and 2)"


@pytest.mark.parametrize("field", ["tasks", "trains"])
def test_an_empty_choice_of_tasks_or_parts_is_refused(field: str) -> None:
    assert f"configuration.training.{field}: expected at least one" in refused(training={field: []})


def test_no_targets_are_refused_with_how_to_have_no_lora() -> None:
    assert "low_rank: none" in refused(low_rank={"targets": []})


def test_no_layers_are_refused() -> None:
    assert "configuration.low_rank.layers" in refused(low_rank={"layers": []})


def test_a_task_s_own_lora_needs_one_lora_for_each_task() -> None:
    message = refused(low_rank={"tasks": {"sst": {"rank": 2}}})
    assert message.startswith("configuration.low_rank.tasks: ")
    assert "per_task" in message


@pytest.mark.parametrize(
    ("own", "where"),
    [
        ({"rank": 0}, "low_rank.tasks.sst.rank"),
        ({"alpha": 0}, "low_rank.tasks.sst.alpha"),
        ({"dropout": 1}, "low_rank.tasks.sst.dropout"),
        ({"targets": ["quarry"]}, "low_rank.tasks.sst.targets[0]"),
        ({"targets": []}, "low_rank.tasks.sst.targets"),
        ({"layers": [1]}, "low_rank.tasks.sst.layers"),
    ],
)
def test_what_a_task_has_of_its_own_is_checked_when_it_is_read(own: dict[str, Any], where: str) -> None:
    assert f"configuration.{where}" in refused(low_rank={"sharing": "per_task", "tasks": {"sst": own}})


def test_a_configuration_that_trains_nothing_is_refused() -> None:
    assert "heads" in refused(heads={"trained": False})


@pytest.mark.parametrize("trains", [["backbone"], ["adapters"]])
def test_a_stage_that_moves_no_part_the_configuration_has_is_refused(trains: list[str]) -> None:
    assert "trains" in refused(training={"trains": trains})


def test_waiting_for_a_better_evaluation_needs_something_to_compare() -> None:
    assert "patience" in refused(evaluation={"keep": "last", "patience": 2, "every": 1})


def test_all_linear_is_the_layers_and_the_pooler_in_the_model_s_order() -> None:
    layers = ("query", "key", "value", "attention_out", "ffn_in", "ffn_out")
    assert expand_targets(("all_linear",)) == (*layers, "pooler") == ALL_LINEAR
    assert expand_targets(("heads", "ffn_in", "query", "ffn_in")) == ("query", "ffn_in", "heads")
    assert expand_targets(("heads", "all_linear", "key")) == (*ALL_LINEAR, "heads")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"targets": ["value", "query"]}, {"targets": ["query", "value", "query"]}),
        ({"targets": ["all_linear"]}, {"targets": list(ALL_LINEAR)}),
        ({"targets": ["heads", "all_linear"]}, {"targets": ["all_linear", "query", "heads"]}),
        ({"layers": [3, 1, 3]}, {"layers": [1, 3]}),
        ({"alpha": 8}, {"alpha": 8.0}),
        (
            {"sharing": "per_task", "tasks": {"sst": {"targets": ["value", "query"]}, "sts": {"rank": 2}}},
            {"sharing": "per_task", "tasks": {"sts": {"rank": 2}, "sst": {"targets": ["query", "value"]}}},
        ),
        (
            {"sharing": "per_task", "tasks": {"sst": {"targets": ["all_linear"]}}},
            {"sharing": "per_task", "tasks": {"sst": {"targets": list(ALL_LINEAR)}}},
        ),
    ],
)
def test_two_ways_of_writing_one_lora_are_one(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert plain(parse({"low_rank": one})) == plain(parse({"low_rank": other}))


def test_a_task_s_own_lora_takes_the_place_of_the_common_one() -> None:
    lora = LoRA(
        rank=8,
        alpha=16.0,
        dropout=0.1,
        sharing="per_task",
        tasks={"sst": TaskLowRank(rank=2, targets=("key",))},
    )
    own, common = lora.of_task("sst"), lora.of_task("sts")
    assert (own.rank, own.alpha, own.dropout, own.targets) == (2, 16.0, 0.1, ("key",))
    assert (common.rank, common.targets) == (8, ("query", "value"))


def test_plain_data_holds_what_differs_from_the_defaults_and_parses_back() -> None:
    assert plain(Configuration()) == {}
    data = {
        "low_rank": {"kind": "lora", "rank": 2, "sharing": "per_task", "tasks": {"sst": {"rank": 1}}},
        "training": {"steps": 10, "schedule": {"kind": "joint"}, "learning_rate": {"heads": 0.5}},
        "evaluation": {"keep": "sst"},
        "precision": "bfloat16",
    }
    configuration = parse({**data, "features": "pooler", "biases": "frozen"})
    assert plain(configuration) == data
    assert parse(plain(configuration)) == configuration


def test_laying_changes_over_a_mapping_keeps_what_they_do_not_name() -> None:
    base = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
    assert merged(base, {"a": {"y": {"w": 4}}, "c": 5}) == {
        "a": {"x": 1, "y": {"z": 2, "w": 4}},
        "b": 3,
        "c": 5,
    }
    assert merged(base, {"a": {"kind": "other"}}) == {"a": {"kind": "other"}, "b": 3}
    assert base == {"a": {"x": 1, "y": {"z": 2}}, "b": 3}


def test_a_dotted_name_sets_that_field_alone() -> None:
    base = {"low_rank": {"kind": "lora", "rank": 8, "alpha": 4}}
    assert with_values(base, {"low_rank.rank": 2, "training.dropout.heads": 0.5}) == {
        "low_rank": {"kind": "lora", "rank": 2, "alpha": 4},
        "training": {"dropout": {"heads": 0.5}},
    }
    assert base == {"low_rank": {"kind": "lora", "rank": 8, "alpha": 4}}
    assert parse(with_values({"low_rank": "none"}, {"low_rank.rank": 2})).low_rank == LoRA(rank=2)


def test_attention_s_dropout_is_the_backbone_s_unless_it_has_its_own() -> None:
    common = parse({"training": {"dropout": {"backbone": 0.3}}}).training.dropout
    own = parse({"training": {"dropout": {"backbone": 0.3, "attention": 0.0}}}).training.dropout
    assert common.attention_rate == 0.3
    assert own.attention_rate == 0.0
