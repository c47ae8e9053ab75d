"""The reports' heads: each its formula, and all that every part of a run must keep to."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtbert.batches import Request, assemble
from mtbert.bert import Backbone, BertConfig
from mtbert.checkpoint import unpack_tensors
from mtbert.configuration import Configuration, Dropout, parse
from mtbert.counts import count
from mtbert.data.tokenise import TokenisedData
from mtbert.dropout import step_key
from mtbert.head_functions import HeadInput, cosine, head_outputs
from mtbert.hooks import UNALTERED
from mtbert.inference import TrainedModel
from mtbert.member import initial_state
from mtbert.run import Run
from mtbert.schema import ConfigError
from mtbert.slots import State
from mtbert.techniques import ReLUCosineHead
from mtbert.tensor_draws import torch_generator
from mtbert.weights import BaseModel
from tests.mtbert import toys
from tests.mtbert.adapters.contract import (
    AdapterContract,
    Changes,
    assert_same_state,
    batch_of,
    disturbed,
    outputs,
    packed,
)
from tests.mtbert.test_pack import doctored, planted

SEPARATE = {"pairs": {"encoding": "separate"}}
COSINE = {"kind": "relu_cosine"}
PROJECTED = {"kind": "projected", "size": 5}
SCALED = {**PROJECTED, "aggregate": "scaled_cosine"}
COMPRESSED = {"kind": "compressed", "size": 7}
LINEAR_COSINE = {"kind": "linear_cosine"}


def headed(training: Changes | None = None, **tasks: Any) -> Changes:
    """A training of all tasks in every step, with these heads."""
    return {"heads": {"tasks": tasks}, "training": {"schedule": {"kind": "joint"}, **(training or {})}}


VARIANTS: dict[str, Changes] = {
    "linear, joint": headed(),
    "linear, separate": {**headed(), **SEPARATE},
    "projected, joint": headed(para=PROJECTED, sts=SCALED),
    "projected, separate": {**headed(para=PROJECTED, sts={**SCALED, "size": 3}), **SEPARATE},
    "projected otherwise": headed(sts={**SCALED, "shift": 0.5, "scale": 2.0}),
    "linear and cosine": {**headed(para=LINEAR_COSINE, sts={**LINEAR_COSINE, "product": "dot"}), **SEPARATE},
    "no cosine, no product": {
        **headed(para={**LINEAR_COSINE, "cosine": False}, sts={**LINEAR_COSINE, "product": "none"}),
        **SEPARATE,
    },
    "compressed, joint": headed(sst=COMPRESSED, para=COMPRESSED, sts={**COMPRESSED, "size": 2}),
    "compressed, separate": {**headed(sst=COMPRESSED, para=COMPRESSED), **SEPARATE},
    "cosine": {**headed(sts=COSINE), **SEPARATE},
    "cosine, first token": {**headed(sts={**COSINE, "scale": 3.0}), **SEPARATE, "features": "cls"},
    "untrained, biases trained": {
        "heads": {"trained": False, "tasks": {"sst": COMPRESSED, "para": LINEAR_COSINE, "sts": COSINE}},
        "training": {"schedule": {"kind": "joint"}},
        **SEPARATE,
        "biases": "trained",
    },
    "projected, biases trained": {**headed(para=PROJECTED, sts=SCALED), **SEPARATE, "biases": "trained"},
}


class TestHeads(AdapterContract):
    """Gradients, packs, saving and loading, as of every adapter, of which there is none but biases here."""

    variants = VARIANTS
    unchanged_at_first = False
    mergeable = False

    def expected_parameters(self, configuration: Configuration) -> int:
        hidden, wide = toys.SMALL.hidden_size, toys.SMALL.intermediate_size
        of_biases = toys.SMALL.num_hidden_layers * (5 * hidden + wide) + hidden
        return of_biases if configuration.biases == "trained" else 0


def sentence_vectors(
    run: Run, task: str, backbone: Backbone, data: TokenisedData, examples: int = 6
) -> list[np.ndarray]:
    """The vectors of the first examples: one array, or one for each of two sentences. [examples, hidden]"""
    split = data.splits[task, "train"]
    request = Request(0, task, split, np.arange(examples), run.configuration.pairs)
    batch = assemble([request], data.special, 64)
    hidden = backbone.encode(backbone.embed(batch, UNALTERED), batch, UNALTERED, "token")
    vectors = hidden[batch.first_rows]
    if run.configuration.features == "pooler":
        vectors = torch.tanh(vectors @ backbone.pooler.weight.T + backbone.pooler.bias)
    return np.split(vectors.numpy(), len(vectors) // examples)


def reference_cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    result: np.ndarray = (one * other).sum(axis=1) / norms
    return result[:, None]


def reference(run: Run, task: str, state: State, vectors: list[np.ndarray]) -> np.ndarray:
    """What a head gives, by the reports' formulas. [examples, outputs]"""
    head = plain_head(run, task)
    own = {name.removeprefix(f"heads.{task}."): value.numpy() for name, value in state.items()}
    first, second = vectors[0], vectors[-1]
    both = np.concatenate(vectors, axis=1)
    if head["kind"] == "relu_cosine":
        return np.maximum(reference_cosine(first, second), 0) * head.get("scale", 5.0)
    if head["kind"] == "projected":
        one = first @ own["first.weight"].T + own["first.bias"]
        other = second @ own["second.weight"].T + own["second.bias"]
        if head.get("aggregate") != "scaled_cosine":
            return np.einsum("ij,ij->i", one, other)[:, None]
        return (reference_cosine(one, other) + head.get("shift", 1.0)) * head.get("scale", 2.5)
    if head["kind"] == "compressed":
        both = both @ own["compression.weight"].T + own["compression.bias"]
    if head["kind"] == "linear_cosine" and head.get("product") != "none":
        product = first * second
        if head.get("product") == "dot":
            product = product.sum(axis=1, keepdims=True)
        both = np.concatenate([both, product], axis=1)
    result: np.ndarray = both @ own["weight"].T + own["bias"]
    if head["kind"] == "linear_cosine" and head.get("cosine", True):
        result = result + reference_cosine(first, second)
    return result


def plain_head(run: Run, task: str) -> dict[str, Any]:
    head: dict[str, Any] = dict(run.as_json()["settings"]["heads"]["tasks"].get(task, {"kind": "linear"}))
    return head


FORMULAS = {name: changes for name, changes in VARIANTS.items() if "biases" not in changes}


@pytest.mark.parametrize("changes", FORMULAS.values(), ids=FORMULAS.keys())
def test_a_head_gives_what_its_report_s_formula_says(
    changes: Changes, backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.run(**changes)
    state = disturbed(run)
    (found,) = outputs([run], [state], backbone, data)
    for task in toys.TASKS:
        vectors = sentence_vectors(run, task, backbone, data)
        assert len(vectors) == (2 if task != "sst" and "pairs" in changes else 1)
        assert np.allclose(found[task].numpy(), reference(run, task, state, vectors), rtol=1e-9, atol=1e-9)


def test_both_projections_of_a_joined_pair_are_of_its_one_vector(
    backbone: Backbone, data: TokenisedData
) -> None:
    """Report 002, Eq. 3: with equal projections the scaled cosine is at its highest, (1 + 1)·2.5."""
    run = toys.run(**headed(sts=SCALED))
    state = disturbed(run)
    for name in ("weight", "bias"):
        state[f"heads.sts.second.{name}"] = state[f"heads.sts.first.{name}"]
    (found,) = outputs([run], [state], backbone, data)
    assert torch.allclose(found["sts"], torch.full_like(found["sts"], 5.0))


def test_the_cosine_is_torch_s_and_of_a_zero_vector_zero_with_a_finite_gradient() -> None:
    draw = torch_generator(0, "cosine")
    one, other = (torch.randn(3, 4, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    wanted = torch.nn.functional.cosine_similarity(one, other, dim=-1)
    assert torch.equal(cosine(one, other).squeeze(-1), wanted)
    for dtype in (torch.float32, torch.float64):
        zero = torch.zeros(2, 6, dtype=dtype, requires_grad=True)
        pair = torch.stack([torch.zeros(6), torch.ones(6)]).to(dtype).requires_grad_()
        found = cosine(zero, pair)
        assert (found == 0).all()
        found.sum().backward()  # type: ignore[no-untyped-call]
        for leaf in (zero, pair):
            assert leaf.grad is not None
            assert torch.isfinite(leaf.grad).all()


def test_sentences_that_point_apart_are_not_at_all_alike() -> None:
    """Report 003, section 4.2.2: negative cosines count as zero, and an equal direction as five."""
    pairs = [[1.0, 0, 2, 0], [1, 0, 0, 1], [1, 0, -3, 0], [1, 0, 1, 1], [1, 0, -1, 1]]
    x = torch.tensor([pairs], dtype=torch.float64)
    found = head_outputs(ReLUCosineHead(), HeadInput(x, 2, {}, drop=lambda _: x))
    assert torch.allclose(found[0, :, 0], torch.tensor([5, 0, 0, 5 / 2**0.5, 0], dtype=torch.float64))


def test_linear_heads_keep_their_names_and_first_values() -> None:
    """Report ids and stored results rest on them: small normal weights, a draw for each tensor."""
    for changes in ({}, headed(sts=SCALED)):
        state = initial_state(toys.run(3, **changes), toys.SMALL, toys.TASKS)
        for task, shape in {"sst": (5, 16), "para": (1, 16)}.items():
            name = f"heads.{task}.weight"
            drawn = torch.randn(shape, generator=torch_generator(3, "initial", name)) * 0.02
            assert torch.equal(state[name], drawn)
            assert (state[f"heads.{task}.bias"] == 0).all()


def test_other_heads_start_from_small_normal_weights_and_no_bias() -> None:
    run = toys.run(**headed(para={**PROJECTED, "size": 64}, sts={**COMPRESSED, "size": 128}))
    state = initial_state(run, toys.SMALL, toys.TASKS)
    for name, value in state.items():
        if name.endswith(".bias"):
            assert (value == 0).all()
        elif value.numel() > 500:
            assert float(value.std()) == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(state["heads.para.first.weight"], state["heads.para.second.weight"])


def test_a_compressed_head_drops_within_by_another_mask(backbone: Backbone, data: TokenisedData) -> None:
    """Through identities, at half and half a quarter is left, four times as large; by one mask, a half."""
    run = toys.run(**headed(sst={**COMPRESSED, "size": 16}))
    state = {name: torch.zeros_like(value).double() for name, value in disturbed(run).items()}
    state["heads.sst.compression.weight"] += torch.eye(16)
    state["heads.sst.weight"] += torch.eye(16)[:5]
    pack = packed([run], [state], backbone)
    batch = batch_of([run], data, examples=50)
    plain = next(of.outputs for of in pack.forward(batch, None, {}) if of.task.name == "sst")
    rates = Dropout(backbone=0.0, heads=0.5)
    found = pack.forward(batch, {0: rates}, {0: step_key(0, 0)})
    ratio = next(of.outputs for of in found if of.task.name == "sst") / plain
    assert plain.shape == (50, 5)
    kept = ratio != 0
    assert torch.allclose(ratio[kept], torch.full_like(ratio[kept], 4.0))
    assert float(kept.double().mean()) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 250))


@pytest.mark.parametrize(
    ("head", "encoding", "expected"),
    [
        ({"kind": "linear"}, "joint", 769),
        ({"kind": "linear"}, "separate", 2 * 768 + 1),  # report 002, Eq. 1
        ({"kind": "projected"}, "joint", 2 * (768 * 64 + 64)),  # Eq. 3
        ({"kind": "projected"}, "separate", 2 * (768 * 64 + 64)),  # Eq. 2
        ({"kind": "relu_cosine"}, "separate", 0),
        ({"kind": "linear_cosine"}, "separate", 3 * 768 + 1),
        ({"kind": "linear_cosine", "product": "dot"}, "separate", 2 * 768 + 2),
        ({"kind": "linear_cosine", "product": "none", "cosine": False}, "separate", 2 * 768 + 1),
        ({"kind": "compressed", "size": 100}, "separate", 100 * (2 * 768 + 1) + 101),
        ({"kind": "compressed", "size": 100}, "joint", 100 * 769 + 101),
    ],
)
def test_heads_have_as_many_parameters_as_their_formulas(
    head: dict[str, Any], encoding: str, expected: int
) -> None:
    config = BertConfig(30522, 768, 12, 12, 3072)
    configuration = parse({"heads": {"tasks": {"sts": head}}, "pairs": {"encoding": encoding}})
    assert count(configuration, config, {"sts": toys.TASKS["sts"]}).trainable == expected


def trained_models() -> dict[str, Changes]:
    lone = {"heads": {"tasks": {"sts": COSINE}}, "training": {"tasks": ["sts"]}, **SEPARATE}
    return {**VARIANTS, "cosine alone, with a lora": {**lone, "low_rank": toys.lora()}}


@pytest.mark.parametrize("changes", trained_models().values(), ids=trained_models().keys())
def test_a_trained_model_predicts_what_its_run_told(changes: Changes, data: TokenisedData) -> None:
    arrays = toys.arrays()
    run = toys.run(**changes)
    frozen = Backbone.from_arrays(toys.SMALL, arrays, "float64")
    end = toys.ended(toys.train_alone(data, frozen, run))
    base = BaseModel("toy", toys.SMALL, arrays, Path("/nowhere"), "toy model")
    model = TrainedModel(base, run, end.weights, data.tasks)
    predicted = [value for task in model.tasks for value in model.predict(data, task, "dev").values.tolist()]
    assert predicted == end.predictions["prediction"]
    assert set(model.tasks) == set(end.predictions["task"])


def test_heads_compute_in_float32_at_least(data: TokenisedData) -> None:
    backbone = toys.backbone("bfloat16")
    for name in ("projected, separate", "linear and cosine", "compressed, joint", "cosine"):
        run = toys.run(**VARIANTS[name], precision="bfloat16")
        for found in outputs([run], [None], backbone, data)[0].values():
            assert found.dtype == torch.float32


ILL = ("projected, separate", "linear and cosine", "compressed, separate", "cosine, with biases")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ILL)
def test_one_member_s_nan_leaves_the_others_bit_identical(
    name: str, value: float, backbone32: Backbone, data: TokenisedData
) -> None:
    changes = {**VARIANTS, "cosine, with biases": {**VARIANTS["cosine"], "biases": "trained"}}[name]
    common = {**changes, "precision": "float32", "evaluation": {"every": 5, "train_limit": 5}}
    common["training"] = {**changes["training"], "steps": 10, "dropout": {"heads": 0.2}}
    runs = [toys.run(seed, **common) for seed in range(3)]
    ill = runs[1].run_id
    lone = toys.trainer(data, backbone32)
    lone.admit(runs[1])
    sick = doctored(lone.checkpoint(ill), planted(value, "heads." if "cosine," not in name else "biases."))

    def first_evaluations(checkpoint: bytes | None) -> tuple[dict[str, toys.Event], dict[str, bytes]]:
        of = toys.trainer(data, backbone32)
        for run in runs:
            of.admit(run, checkpoint if run.run_id == ill else None)
        events = {event.run_id: event for event in of.advance()}
        return events, {run_id: of.checkpoint(run_id) for run_id in of.members}

    before, healthy = first_evaluations(None)
    after, beside_ill = first_evaluations(sick)
    assert after[ill].record["status"] == "diverged"  # type: ignore[union-attr]
    assert set(beside_ill) == set(healthy) - {ill}
    for run_id, checkpoint in beside_ill.items():
        one, other = unpack_tensors(healthy[run_id])[0], unpack_tensors(checkpoint)[0]
        assert_same_state(one, other, exactly=True)
        assert before[run_id].record["rows"] == after[run_id].record["rows"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (headed(sst=PROJECTED), r"heads\.tasks\.sst.*'projected'.*two"),
        ({**headed(sst=COSINE), **SEPARATE}, r"heads\.tasks\.sst.*'relu_cosine'"),
        ({**headed(sst=LINEAR_COSINE), **SEPARATE}, r"heads\.tasks\.sst.*'linear_cosine'"),
        (headed(sts=COSINE), r"pairs\.encoding.*separate.*heads\.tasks\.sts.*'joint'"),
        (headed(para=LINEAR_COSINE), r"pairs\.encoding.*separate.*heads\.tasks\.para.*'joint'"),
        ({**headed(para=COSINE), **SEPARATE}, r"heads\.tasks\.para.*'relu_cosine'.*linear_cosine"),
        (headed(cola=PROJECTED), r"heads\.tasks.*cola"),
        (
            {**headed(sts=PROJECTED), "low_rank": toys.lora(targets=["query", "heads"])},
            r"low_rank\.targets.*heads\.tasks\.sts.*'projected'",
        ),
        (
            {
                **headed(sst=COMPRESSED),
                "low_rank": toys.lora(sharing="per_task", tasks={"sst": {"targets": ["heads"]}}),
            },
            r"low_rank\.targets.*heads\.tasks\.sst.*'compressed'",
        ),
    ],
)
def test_heads_that_cannot_be_are_refused_with_field_value_and_way_out(
    changes: Changes, named: str, backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.run(**changes)
    with pytest.raises(ConfigError, match=named):
        toys.trainer(data, backbone).admit(run)


def test_several_classes_of_pairs_cannot_have_a_head_of_one_value(backbone: Backbone) -> None:
    tasks = {"nli": type(toys.TASKS["sst"])(name="nli", kind="classification", sentences=2, classes=3)}
    data = toys.random_data((9,), tasks=tasks)
    for head in (PROJECTED, LINEAR_COSINE, COSINE):
        run = toys.run(**headed(nli=head), **SEPARATE)
        with pytest.raises(ConfigError, match=r"heads\.tasks\.nli.*3 classes"):
            toys.trainer(data, backbone).admit(run)
    toys.trainer(data, backbone).admit(toys.run(**headed(nli=COMPRESSED), **SEPARATE))


def test_a_lora_on_linear_heads_stands_beside_other_heads(backbone: Backbone, data: TokenisedData) -> None:
    own = {"sts": {"targets": ["query"]}}
    run = toys.run(
        **headed(sts=PROJECTED),
        low_rank=toys.lora(targets=["heads"], sharing="per_task", tasks=own),
    )
    of = toys.trainer(data, backbone)
    of.admit(run)
    names = {name for name in toys.now(of.checkpoint(run.run_id)) if ".heads." in name}
    assert names == {f"low_rank.{t}.heads.{t}.{f}" for t in ("sst", "para") for f in "AB"}


ONLY_COSINE: Changes = {"heads": {"tasks": {"sts": COSINE}}, **SEPARATE}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"training": {"tasks": ["sts"]}}, r"training: nothing to train.*sts relu_cosine"),
        (
            {"training": {"tasks": ["sts"]}, "weighting": {"kind": "uncertainty"}},
            r"training: nothing to train",
        ),
        ({"stages": [{"tasks": ["sts"]}, {"tasks": ["sst"]}]}, r"stages\[0\]: nothing to train"),
        (
            {"low_rank": toys.lora(), "stages": [{}, {"tasks": ["sts"], "trains": ["heads"]}]},
            r"stages\[1\]: nothing to train",
        ),
    ],
)
def test_a_run_or_stage_with_nothing_to_train_is_refused(
    changes: Changes, where: str, backbone: Backbone, data: TokenisedData
) -> None:
    with pytest.raises(ConfigError, match=where):
        toys.trainer(data, backbone).admit(toys.run(**ONLY_COSINE, **changes))


@pytest.mark.parametrize("place", [{"low_rank": toys.lora()}, {"biases": "trained"}, {"backbone": "trained"}])
def test_what_is_below_a_head_without_parameters_trains_saves_and_loads(
    place: Changes, backbone: Backbone, data: TokenisedData
) -> None:
    run = toys.run(**ONLY_COSINE, **place, training={"tasks": ["sts"]}, evaluation={"every": 3})
    of = toys.trainer(data, backbone)
    of.admit(run)
    start = toys.now(of.checkpoint(run.run_id))
    of.advance()
    saved = of.checkpoint(run.run_id)
    assert not any(".heads." in f".{name}" for name in unpack_tensors(saved)[0])
    assert toys.moved(start, toys.now(saved))
    again = toys.trainer(data, backbone)
    again.admit(run, saved)
    one, other = (toys.ended(toys.finish(trainer)[run.run_id]) for trainer in (of, again))
    assert one.record["status"] == "completed"
    assert_same_state(toys.weights(one), toys.weights(other), exactly=True)


def test_steps_of_a_task_without_anything_to_train_leave_all_as_it_is(
    backbone: Backbone, data: TokenisedData
) -> None:
    """A probe of three tasks of which one's head has no parameters."""
    training = {"schedule": {"kind": "round_robin"}, "steps": 6, "warmup": 0.0}
    run = toys.stepwise(**ONLY_COSINE, training={**training, "weight_decay": {"heads": 0.1}})
    states, records = toys.after_each_step(run, data, backbone)
    moved = [toys.moved(before, after) for before, after in pairwise(states)]
    for names, (task,) in zip(moved, toys.trained_tasks(records), strict=True):
        assert {name.split(".")[1] for name in names} == ({task} - {"sts"})
    assert toys.values(records[-1], "dev", "pearson").keys() == {"sts"}


def test_a_step_gives_a_head_s_own_tensors_gradients_and_no_other_task_s(
    backbone: Backbone, data: TokenisedData
) -> None:
    training = {"schedule": {"kind": "round_robin"}, "steps": 6, "warmup": 0.0}
    heads = {"tasks": {"sst": COMPRESSED, "para": PROJECTED, "sts": SCALED}}
    states, records = toys.after_each_step(toys.stepwise(heads=heads, training=training), data, backbone)
    for (before, after), (task,) in zip(pairwise(states), toys.trained_tasks(records), strict=True):
        moved = toys.moved(before, after)
        assert {name.split(".")[1] for name in moved} == {task}
        assert {name for name in moved if name.endswith("weight")} == {
            name for name in before if name.startswith(f"heads.{task}.") and name.endswith("weight")
        }
