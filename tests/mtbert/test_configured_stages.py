"""Stages as a configuration writes them: changes to the common training, in one canonical form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.configuration import Configuration, Rates, Schedule, Training, merged, parse
from mtbert.schema import ConfigError, build, plain


def refused(**data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(data)
    return str(caught.value)


def test_a_stage_is_the_common_training_with_its_own_changes() -> None:
    configuration = parse(
        {
            "training": {"batch_size": 8, "learning_rate": {"heads": 0.5}, "schedule": {"kind": "joint"}},
            "stages": [
                {"steps": 4, "tasks": ["sst"], "learning_rate": {"adapters": 0.25}},
                {"epochs": 2, "schedule": {"kind": "random"}, "optimizer": "fresh"},
            ],
        }
    )
    first, second = configuration.stage_list()
    assert first == Training(
        tasks=("sst",),
        steps=4,
        batch_size=8,
        schedule=Schedule("joint"),
        learning_rate=Rates(adapters=0.25, heads=0.5),
    )
    assert second == Training(
        epochs=2,
        batch_size=8,
        schedule=Schedule("random"),
        learning_rate=Rates(heads=0.5),
        optimizer="fresh",
    )


def test_one_stage_is_the_same_configuration_as_a_training_without_stages() -> None:
    staged = parse({"training": {"batch_size": 8}, "stages": [{"steps": 4}]})
    assert staged == parse({"training": {"batch_size": 8, "steps": 4}})
    assert staged.stages == ()


def test_stages_that_say_what_holds_anyway_are_the_same_configuration() -> None:
    said = parse({"stages": [{"steps": 4, "optimizer": "keep", "batch_size": 16}, {"steps": 2}]})
    assert plain(said) == plain(parse({"stages": [{"steps": 4}, {"steps": 2}]}))
    text = parse({"stages": [{"steps": 4, "learning_rate": {"heads": "1e-4"}}, {"steps": 2}]})
    assert plain(text) == plain(
        parse({"stages": [{"steps": 4, "learning_rate": {"heads": 1e-4}}, {"steps": 2}]})
    )


@pytest.mark.parametrize(
    ("stage", "where"),
    [
        ({"stepz": 1}, "stages[1].stepz"),
        ({"batch_size": 0}, "stages[1].batch_size"),
        ({"learning_rate": {"head": 1}}, "stages[1].learning_rate.head"),
        ({"steps": 2, "epochs": 1}, "stages[1]"),
        ({"tasks": []}, "stages[1].tasks"),
        ([], "stages[1]"),
    ],
)
def test_a_stage_s_mistake_is_found_when_it_is_read(stage: Any, where: str) -> None:
    message = refused(stages=[{"steps": 1}, stage])
    assert message.startswith(f"configuration.{where}")


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "tasks": st.sampled_from([None, ["sst"], ["sst", "sts"]]),
        "steps": st.sampled_from([None, 3, 5]),
        "steps_per_epoch": st.sampled_from([None, 2]),
        "batch_size": st.sampled_from([8, 16, 32]),
        "clip": st.sampled_from([None, 1.0, 2, "5e-1"]),
        "warmup": st.sampled_from([0, 0.1, 0.5]),
        "decay": st.sampled_from(["linear", "constant"]),
        "optimizer": st.sampled_from(["keep", "fresh"]),
        "schedule": st.fixed_dictionaries(
            {"kind": st.sampled_from(["annealed", "random", "joint"])},
            optional={"constant": st.sampled_from([0.5, 0.8])},
        ),
        "learning_rate": st.fixed_dictionaries({}, optional={"heads": st.sampled_from([1e-3, "1e-2", 0])}),
        "dropout": st.fixed_dictionaries(
            {},
            optional={
                "backbone": st.sampled_from([0.0, 0.1, 0.3]),
                "attention": st.sampled_from([None, 0.2]),
                "heads": st.sampled_from([0.1, 0.5]),
            },
        ),
    },
)


@settings(deadline=None)
@given(training=CHANGES, stages=st.lists(CHANGES, max_size=3))
def test_any_stages_mean_what_is_written_and_survive_plain_data(
    training: dict[str, Any], stages: list[dict[str, Any]]
) -> None:
    configuration = parse({"training": training, "stages": stages})
    meant = [build(Training, merged(training, stage), "stage") for stage in stages] or [
        build(Training, training, "training")
    ]
    assert list(configuration.stage_list()) == meant
    again = parse(plain(configuration))
    assert again == configuration
    assert plain(again) == plain(configuration)
    assert list(again.stage_list()) == meant


@settings(deadline=None)
@given(training=CHANGES, stages=st.lists(CHANGES, min_size=1, max_size=3))
def test_stages_written_out_in_full_are_the_same_configuration(
    training: dict[str, Any], stages: list[dict[str, Any]]
) -> None:
    short = parse({"training": training, "stages": stages})
    full = [full_data(stage) for stage in short.stage_list()]
    assert plain(parse({"training": training, "stages": full})) == plain(short)


def full_data(stage: Training) -> dict[str, Any]:
    """Every field of a stage, at its default or not."""
    parts = {
        name: dict(vars(getattr(stage, name)).items())
        for name in ("schedule", "learning_rate", "weight_decay", "dropout")
    }
    return {**vars(stage), **parts}


def test_the_defaults_are_one_stage() -> None:
    assert Configuration().stage_list() == (Training(),)
