"""PALs and low-rank functions beside the layers keep the contract in every form, place and sharing."""

from __future__ import annotations

from typing import Any

import pytest

from mtbert.bert import Backbone
from mtbert.configuration import Configuration
from mtbert.data.tokenise import TokenisedData
from mtbert.member import initial_state
from mtbert.schema import ConfigError
from mtbert.slots import State
from mtbert.techniques import PALForm
from tests.mtbert import toys
from tests.mtbert.adapters import test_bias, test_lora
from tests.mtbert.adapters.contract import (
    AdapterContract,
    Changes,
    assert_same_events,
    assert_same_state,
)

JOINT = {"schedule": {"kind": "joint"}}
LOW_RANK = {"form": "low_rank", "hidden": 5, "projections": "per_layer"}
OWN_RATES = {"dropout": 0.1, "task_dropout": {"sst": 0.3, "sts": 0.0}}


def pal(**fields: Any) -> dict[str, Any]:
    """The fields of a PAL of three heads of two, unless they say otherwise."""
    return {"hidden": 6, "heads": 3, **fields}


def joint(**fields: Any) -> Changes:
    """A PAL in a training of all tasks in every step."""
    return {"parallel": pal(**fields), "training": JOINT}


VARIANTS = {
    "shared projections": joint(),
    "a pair for each layer": joint(projections="per_layer"),
    "attention shared": joint(attention="shared"),
    "attention alone shared": joint(projections="per_layer", attention="shared"),
    "beside the attention": joint(place="attention"),
    "beside the attention, a pair for each layer": joint(place="attention", projections="per_layer"),
    "one head": joint(hidden=5, heads=1),
    "gelu": joint(activation="gelu"),
    "low-rank": joint(**LOW_RANK),
    "low-rank of one": joint(**{**LOW_RANK, "hidden": 1}),
    "low-rank shared": joint(form="low_rank"),
    "low-rank with gelu": joint(**LOW_RANK, activation="gelu"),
    "low-rank beside the attention": joint(**LOW_RANK, place="attention"),
    "first layer": joint(layers=[0]),
    "last layer": joint(layers=[1]),
    "last layer, low-rank": joint(**LOW_RANK, layers=[1]),
    "one task": joint(tasks=["para"]),
    "two tasks": joint(tasks=["sts", "sst"], place="attention"),
    "mixed": joint(upper={**LOW_RANK, "start": 1}),
    "mixed the other way": joint(
        **LOW_RANK, place="attention", upper=pal(start=1, activation="gelu"), tasks=["sst", "sts"]
    ),
    "one pair below, one above": joint(upper=pal(start=1)),
    "each task its dropout": joint(**OWN_RATES),
    "mean of tokens": {**joint(), "features": "mean"},
    "first token": {**joint(place="attention"), "features": "cls"},
    "separate sentences": {**joint(), "pairs": {"encoding": "separate"}},
    "heads frozen": {**joint(), "heads": {"trained": False}},
    "with biases": {**joint(), "biases": "trained"},
    "with a lora for each task": {**test_lora.VARIANTS["each task its own"], "parallel": pal(tasks=["sst"])},
    "low-rank with lora and biases": {
        **test_lora.VARIANTS["all linear"], "biases": "trained", "parallel": pal(**LOW_RANK)
    },
}  # fmt: skip


def of_form(form: PALForm, layers: int, hidden: int) -> int:
    """One task's parameters: a matrix and a bias for each linear layer."""
    small = form.hidden
    pair = (hidden * small + small) + (small * hidden + hidden)
    inner = 3 * (small * small + small) if form.form == "attention" else 0
    return (1 if form.projections == "shared" else layers) * pair + (
        1 if form.attention == "shared" else layers
    ) * inner


class TestPAL(AdapterContract):
    variants = VARIANTS
    mergeable = False

    def expected_parameters(self, configuration: Configuration) -> int:
        parallel = configuration.parallel
        assert parallel is not None
        hidden = toys.SMALL.hidden_size
        layers = toys.SMALL.num_hidden_layers if parallel.layers is None else len(parallel.layers)
        tasks = 3 if parallel.tasks is None else len(parallel.tasks)
        if parallel.upper is None:
            of_task = of_form(parallel, layers, hidden)
        else:
            of_task = of_form(parallel, 1, hidden) + of_form(parallel.upper, 1, hidden)
        others = 0
        if configuration.biases == "trained":
            others = test_bias.TestBiases().expected_parameters(configuration)
        elif configuration.low_rank is not None:
            others = test_lora.TestLoRA().expected_parameters(configuration)
        return tasks * of_task + others


def test_v_d_starts_at_zero_and_the_rest_as_bert_s_weights() -> None:
    run = toys.run(parallel=pal(hidden=30, projections="per_layer"))
    for name, value in initial_state(run, toys.SMALL, toys.TASKS).items():
        if not name.startswith("parallel."):
            continue
        if name.endswith((".bias", "decoder.weight")):
            assert (value == 0).all(), name
        else:
            assert float(value.std()) == pytest.approx(0.02, rel=0.2), name


TRAINED = {
    "alone": joint(),
    "mixed beside the attention": joint(place="attention", upper={**LOW_RANK, "start": 1}, **OWN_RATES),
    "with lora": {**joint(**LOW_RANK), "low_rank": toys.lora(targets=["query", "ffn_in"])},
}


@pytest.mark.parametrize("changes", TRAINED.values(), ids=TRAINED.keys())
def test_with_a_trained_backbone_all_move_and_a_resume_is_exact(
    changes: Changes, backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.run(**changes, backbone="trained", evaluation={"every": 3})
    first = toys.trainer(data, backbone)
    first.admit(run)
    start = toys.now(first.checkpoint(run.run_id))
    first.advance()
    saved = first.checkpoint(run.run_id)
    tensors = toys.now(saved)
    assert all((start[name] != tensors[name]).any() for name in tensors)
    assert {name.split(".")[0] for name in tensors} >= {"backbone", "parallel", "heads"}
    second = toys.trainer(data, backbone)
    second.admit(run, saved)
    ends = [toys.ended(toys.finish(of)[run.run_id]) for of in (first, second)]
    assert_same_state(toys.weights(ends[0]), toys.weights(ends[1]), exactly=True)


def test_with_a_trained_backbone_it_trains_alone(backbone: Backbone, data: TokenisedData) -> None:
    trained = toys.run(0, parallel=pal(), backbone="trained")
    frozen = toys.run(0, parallel=pal())
    together = toys.train(data, backbone, trained, frozen)
    for run in (trained, frozen):
        assert_same_events(together[run.run_id], toys.train_alone(data, backbone, run))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": [0, 2]}, r"parallel\.layers: expected layers from 0 to 1, got 2"),
        ({"upper": {**LOW_RANK, "start": 2}}, r"parallel\.upper\.start: expected a layer from 1 to 1, got 2"),
        ({"upper": {"start": 0}}, r"parallel\.upper\.start: .*got 0"),
        ({"layers": [1], "upper": {"start": 1}}, r"parallel\.upper\.start: .*\[1\] below it.*got 1"),
        ({"layers": [0], "upper": {"start": 1}}, r"parallel\.upper\.start: .*\[0\] below it.*got 1"),
        ({"hidden": 7}, r"parallel\.hidden: expected a multiple of heads \(3\), got 7"),
        ({"upper": {"hidden": 7, "heads": 2}}, r"parallel\.upper\.hidden: expected a multiple of heads"),
        ({"tasks": []}, r"parallel\.tasks: expected at least one task"),
        ({"tasks": ["cola"]}, r"parallel\.tasks: 'cola'"),
        ({"task_dropout": {"cola": 0.1}}, r"parallel\.task_dropout: 'cola'"),
        ({"tasks": ["sst"], "task_dropout": {"sts": 0.1}}, r"parallel\.task_dropout: .*sst; got 'sts'"),
    ],
)
def test_what_cannot_be_is_refused(
    fields: dict[str, Any], message: str, backbone: Backbone, data: TokenisedData
) -> None:
    of = toys.trainer(data, backbone)
    with pytest.raises(ConfigError, match=message):
        of.admit(toys.run(parallel=pal(**fields)))


def test_what_says_nothing_of_a_low_rank_form_makes_no_other_run() -> None:
    plain = toys.run(parallel=LOW_RANK)
    said = toys.run(parallel={**LOW_RANK, "heads": 4, "attention": "shared"})
    assert said.run_id == plain.run_id
    assert toys.run(parallel={**LOW_RANK, "activation": "gelu"}).run_id != plain.run_id


def test_a_saved_state_names_every_tensor_once() -> None:
    """A shared pair has one name whatever the number of layers; lower and upper ones have each their own."""
    state: State = initial_state(
        toys.run(parallel=pal(tasks=["sst"], upper={"form": "low_rank", "hidden": 3, "start": 1})),
        toys.SMALL,
        toys.TASKS,
    )
    linears = {name.removesuffix(".weight") for name in state if name.endswith(".weight")}
    assert {name for name in linears if name.startswith("parallel.")} == {
        "parallel.sst.shared.encoder",
        "parallel.sst.shared.decoder",
        "parallel.sst.layer.0.query",
        "parallel.sst.layer.0.key",
        "parallel.sst.layer.0.value",
        "parallel.sst.upper.encoder",
        "parallel.sst.upper.decoder",
    }
