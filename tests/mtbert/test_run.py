"""A run's identity: the same thing has the same id, another thing another, for as long as methods stay."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from mtbert import configuration, techniques
from mtbert.configuration import Configuration, parse
from mtbert.run import METHOD_VERSION, Run, digest
from mtbert.schema import default_of, plain


def config_id(data: str = "d", model: str = "m", **changes: Any) -> str:
    return Run(parse(changes), 0, data, model).config_id


def test_an_id_depends_on_configuration_data_and_model_and_a_run_s_on_the_seed_too() -> None:
    ids = {
        config_id(),
        config_id(data="e"),
        config_id(model="n"),
        config_id(data="m", model="d"),
        config_id(low_rank={"rank": 2}),
        config_id(low_rank={"rank": 4}),
        config_id(training={"steps": 8}),
    }
    assert len(ids) == 7
    one, other = Run(Configuration(), 0, "d", "m"), Run(Configuration(), 12, "d", "m")
    assert one.config_id == other.config_id
    assert one.run_id == f"{one.config_id}-0"
    assert other.run_id == f"{one.config_id}-12"


def test_an_id_does_not_depend_on_the_order_of_keys_or_targets() -> None:
    one = {
        "low_rank": {"targets": ["value", "query"], "rank": 2, "sharing": "per_task",
                     "tasks": {"sst": {"rank": 1}, "sts": {"alpha": 2}}},
        "weighting": {"weights": {"sst": 2, "sts": 3}},
    }  # fmt: skip
    other = {
        "weighting": {"weights": {"sts": 3.0, "sst": 2.0}},
        "low_rank": {"tasks": {"sts": {"alpha": 2.0}, "sst": {"rank": 1}}, "sharing": "per_task",
                     "rank": 2, "targets": ["query", "value"]},
    }  # fmt: skip
    assert config_id(**one) == config_id(**other)


def test_an_id_does_not_depend_on_whether_a_default_is_spelt_out() -> None:
    assert config_id() == config_id(backbone="frozen", training={"batch_size": 16, "clip": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"training": {"tasks": ["sst", "para"]}}, {"training": {"tasks": ["para", "sst", "para"]}}),
        ({"training": {"trains": ["heads", "adapters"]}}, {"training": {"trains": ["adapters", "heads"]}}),
        ({"weighting": {"weights": {"sst": 1, "sts": 2}}}, {"weighting": {"weights": {"sts": 2}}}),
        (
            {"low_rank": {"sharing": "per_task", "tasks": {"sst": {}}}},
            {"low_rank": {"sharing": "per_task"}},
        ),
    ],
)
def test_an_id_does_not_depend_on_how_the_same_training_is_written(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    low_rank = {"low_rank": {"rank": 2}}
    assert config_id(**{**low_rank, **one}) == config_id(**{**low_rank, **other})


def test_an_id_rests_on_the_canonical_json_of_its_parts() -> None:
    content = {
        "configuration": {"low_rank": {"kind": "lora", "rank": 2}},
        "data": "d",
        "model": "m",
        "method": METHOD_VERSION,
    }
    assert config_id(low_rank={"rank": 2}) == digest(content)


def test_a_raised_method_version_changes_every_id(monkeypatch: pytest.MonkeyPatch) -> None:
    before = config_id()
    monkeypatch.setattr("mtbert.run.METHOD_VERSION", METHOD_VERSION + 1)
    assert config_id() != before


def test_a_run_survives_json() -> None:
    run = Run(
        parse({"low_rank": {"rank": 2}, "stages": [{"steps": 2}, {"epochs": 1, "tasks": ["sst"]}]}),
        3, "d", "m",
    )  # fmt: skip
    record = json.loads(json.dumps(run.as_json()))
    again = Run.from_json({**record, "more": "than a run's own"})
    assert again == run
    assert again.run_id == record["run_id"] == run.run_id
    assert record["config_id"] == run.config_id


def test_a_digest_is_short_and_of_the_content() -> None:
    assert digest({"b": 1, "a": [2, "é"]}) == digest({"a": [2, "é"], "b": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    assert len(digest(None)) == 12
    assert int(digest(None), 16) >= 0
    with pytest.raises(ValueError, match="Out of range"):
        digest(float("nan"))


def test_a_default_is_not_changed_without_raising_the_method_version() -> None:
    """Ids leave defaults out: a changed default would give old results' ids to other trainings.

    If this fails because a default changed: raise `METHOD_VERSION` in `mtbert/run.py`, and write the new
    version and default below. If a field is new, write its default below; ids stay as they are.
    """
    found = dict(defaults())
    changed = {name: found.get(name) for name in DEFAULTS if found.get(name) != DEFAULTS[name]}
    assert not changed, "a default changed: raise METHOD_VERSION"
    assert found == DEFAULTS, "a new field: write its default down"
    assert METHOD_VERSION == DEFAULTS_OF_VERSION, "write down the version that these defaults belong to"


def defaults() -> Iterator[tuple[str, Any]]:
    """Every field of every part of a configuration, and its default as JSON has it."""
    found = vars(techniques) | vars(configuration)
    own = (techniques.__name__, configuration.__name__)
    for name, cls in found.items():
        if dataclasses.is_dataclass(cls) and getattr(cls, "__module__", "") in own and name[0] != "_":
            for field in dataclasses.fields(cls):
                yield f"{name}.{field.name}", plain(default_of(field))


DEFAULTS_OF_VERSION = 2
DEFAULTS = {
    "TaskLowRank.rank": None,
    "TaskLowRank.alpha": None,
    "TaskLowRank.dropout": None,
    "TaskLowRank.targets": None,
    "LowRank.rank": 8,
    "LowRank.alpha": 8.0,
    "LowRank.dropout": 0.0,
    "LowRank.targets": ["query", "value"],
    "LowRank.layers": None,
    "LowRank.scaling": "alpha_over_rank",
    "LowRank.tasks": {},
    "LoRA.rank": 8,
    "LoRA.alpha": 8.0,
    "LoRA.dropout": 0.0,
    "LoRA.targets": ["query", "value"],
    "LoRA.layers": None,
    "LoRA.scaling": "alpha_over_rank",
    "LoRA.tasks": {},
    "LoRA.sharing": "shared",
    "LoRA.kind": "lora",
    "DoRA.rank": 8,
    "DoRA.alpha": 8.0,
    "DoRA.dropout": 0.0,
    "DoRA.targets": ["query", "value"],
    "DoRA.layers": None,
    "DoRA.scaling": "alpha_over_rank",
    "DoRA.tasks": {},
    "DoRA.sharing": "shared",
    "DoRA.kind": "dora",
    "Orthogonal.rank": 8,
    "Orthogonal.alpha": 8.0,
    "Orthogonal.dropout": 0.0,
    "Orthogonal.targets": ["query", "value"],
    "Orthogonal.layers": None,
    "Orthogonal.scaling": "alpha_over_rank",
    "Orthogonal.tasks": {},
    "Orthogonal.basis": 0,
    "Orthogonal.kind": "orthogonal",
    "PALForm.form": "attention",
    "PALForm.hidden": 204,
    "PALForm.heads": 12,
    "PALForm.activation": "none",
    "PALForm.projections": "shared",
    "PALForm.attention": "per_layer",
    "UpperPAL.form": "attention",
    "UpperPAL.hidden": 204,
    "UpperPAL.heads": 12,
    "UpperPAL.activation": "none",
    "UpperPAL.projections": "shared",
    "UpperPAL.attention": "per_layer",
    "UpperPAL.start": 6,
    "PAL.form": "attention",
    "PAL.hidden": 204,
    "PAL.heads": 12,
    "PAL.activation": "none",
    "PAL.projections": "shared",
    "PAL.attention": "per_layer",
    "PAL.place": "layer",
    "PAL.layers": None,
    "PAL.tasks": None,
    "PAL.dropout": 0.0,
    "PAL.task_dropout": {},
    "PAL.upper": None,
    "Bregman.weight": 1.0,
    "Bregman.momentum": 0.99,
    "SMART.weight": 1.0,
    "SMART.weights": {},
    "SMART.noise": 1e-05,
    "SMART.noises": {},
    "SMART.ascent_steps": 1,
    "SMART.step_size": 0.001,
    "SMART.radius": 1e-05,
    "SMART.projection": "clip",
    "SMART.perturb": "one",
    "SMART.bregman": None,
    "StaticWeights.weights": {},
    "StaticWeights.kind": "static",
    "Uncertainty.kind": "uncertainty",
    "HuqPervin.kind": "huq_pervin",
    "GradientSurgery.kind": "gradient_surgery",
    "LinearHead.kind": "linear",
    "ProjectedHead.size": 64,
    "ProjectedHead.aggregate": "inner_product",
    "ProjectedHead.shift": 1.0,
    "ProjectedHead.scale": 2.5,
    "ProjectedHead.kind": "projected",
    "ReLUCosineHead.scale": 5.0,
    "ReLUCosineHead.kind": "relu_cosine",
    "LinearCosineHead.product": "elementwise",
    "LinearCosineHead.cosine": True,
    "LinearCosineHead.kind": "linear_cosine",
    "CompressedHead.size": 128,
    "CompressedHead.kind": "compressed",
    "Heads.trained": True,
    "Heads.tasks": {},
    "Merge.kind": "ensemble",
    "Merge.parents": {},
    "Merge.weights": {},
    "Pairs.encoding": "joint",
    "Pairs.segment_ids": True,
    "Pairs.separator": True,
    "Schedule.kind": "annealed",
    "Schedule.constant": 0.8,
    "Schedule.order": None,
    "Rates.backbone": 3e-05,
    "Rates.adapters": 0.001,
    "Rates.heads": 0.001,
    "Decay.backbone": 0.0,
    "Decay.adapters": 0.0,
    "Decay.heads": 0.0,
    "Dropout.backbone": 0.1,
    "Dropout.attention": None,
    "Dropout.adapters": None,
    "Dropout.heads": 0.1,
    "Training.tasks": None,
    "Training.trains": None,
    "Training.steps": None,
    "Training.epochs": None,
    "Training.steps_per_epoch": None,
    "Training.batch_size": 16,
    "Training.schedule": {"kind": "annealed"},
    "Training.learning_rate": {},
    "Training.weight_decay": {},
    "Training.warmup": 0.1,
    "Training.decay": "linear",
    "Training.clip": 1.0,
    "Training.dropout": {},
    "Training.optimizer": "keep",
    "Evaluation.every": None,
    "Evaluation.unit": "steps",
    "Evaluation.dev_limit": None,
    "Evaluation.train_limit": 256,
    "Evaluation.keep": "score",
    "Evaluation.patience": None,
    "Configuration.backbone": "frozen",
    "Configuration.low_rank": None,
    "Configuration.parallel": None,
    "Configuration.biases": "frozen",
    "Configuration.heads": {},
    "Configuration.weighting": {"kind": "static"},
    "Configuration.smart": None,
    "Configuration.features": "pooler",
    "Configuration.pairs": {},
    "Configuration.max_length": None,
    "Configuration.precision": "float32",
    "Configuration.training": {},
    "Configuration.stages": [],
    "Configuration.evaluation": {},
    "Configuration.merge": None,
}
