"""Stored features of probes: what the backbone gives, computed once, and never where it would differ."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert import features
from mtbert.batches import Request, assemble
from mtbert.bert import Backbone
from mtbert.configuration import Configuration, Pairs, parse
from mtbert.data.tokenise import TokenisedData
from mtbert.features import FeatureStore, depends_on_example_alone
from mtbert.hooks import UNALTERED
from mtbert.run import Run
from mtbert.trainer import Trainer
from tests.mtbert import toys
from tests.mtbert.adapters.contract import assert_same_events, assert_same_state

SEPARATE = Pairs(encoding="separate")
LONGEST = 64


def probes() -> list[Run]:
    """Probes that differ in heads, features, pair encodings, dropout, schedules and lengths."""
    dropped = {"dropout": {"backbone": 0.0, "heads": 0.3}}
    heads = {"tasks": {"para": {"kind": "projected"}, "sts": {"kind": "compressed", "size": 9}}}
    cosines = {"tasks": {"para": {"kind": "linear_cosine"}, "sts": {"kind": "relu_cosine"}}}
    return [
        toys.run(0),
        toys.run(1, heads=heads, training=dropped),
        toys.run(2, heads=cosines, pairs={"encoding": "separate"}, training={**dropped, "steps": 9}),
        toys.run(3, features="mean", training={"schedule": {"kind": "joint"}, "batch_size": 5}),
        toys.run(4, features="cls", pairs={"segment_ids": False}, training={"weight_decay": {"heads": 0.1}}),
        toys.run(5, stages=[{"steps": 4, "tasks": ["sst"]}, {"steps": 5, "optimizer": "fresh"}]),
        toys.run(6, max_length=8, evaluation={"dev_limit": 7}),
    ]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequences of every pass through the backbone's layers from here on."""
    found: list[int] = []
    encode = Backbone.encode

    def watched(self: Backbone, embedded: Tensor, batch: Any, *rest: Any) -> Tensor:
        found.append(batch.sequences)
        return encode(self, embedded, batch, *rest)

    monkeypatch.setattr(Backbone, "encode", watched)
    return found


@pytest.fixture(scope="module")
def ordinary(backbone: Backbone, data: TokenisedData) -> dict[str, list[toys.Event]]:
    """The probes' events with the backbone run in every step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtbert.grouping.depends_on_example_alone", lambda _: False)
        return {run.run_id: toys.train_alone(data, backbone, run) for run in probes()}


def test_probes_train_as_if_the_backbone_ran_in_every_step(
    ordinary: dict[str, list[toys.Event]], backbone: Backbone, data: TokenisedData
) -> None:
    for run in probes():
        assert_same_events(toys.train_alone(data, backbone, run), ordinary[run.run_id])


def test_a_pack_of_probes_beside_ordinary_members_equals_each_alone(
    ordinary: dict[str, list[toys.Event]], backbone: Backbone, data: TokenisedData
) -> None:
    others = [
        toys.run(0, low_rank=toys.lora()),
        toys.run(7, training={"dropout": {"backbone": 0.1}}),
        toys.run(8, backbone="trained"),
    ]
    together = toys.train(data, backbone, *probes(), *others)
    for run in probes():
        assert_same_events(together[run.run_id], ordinary[run.run_id])
    for run in others:
        assert_same_events(together[run.run_id], toys.train_alone(data, backbone, run))


@pytest.mark.parametrize("heads", [{}, {"tasks": {"sts": {"kind": "relu_cosine"}}}])
def test_after_the_first_epoch_the_backbone_does_not_run(
    heads: dict[str, Any], encoded: list[int], backbone: Backbone, data: TokenisedData
) -> None:
    """In training nor evaluation; and in the first, each sentence passes through it once."""
    run = toys.run(
        heads=heads,
        pairs={"encoding": "separate"},
        training={"steps": None, "epochs": 3, "batch_size": 10, "schedule": {"kind": "sequential"}},
        evaluation={"every": 1, "unit": "epochs", "train_limit": 20},
    )
    of = toys.trainer(data, backbone)
    of.admit(run)
    of.advance()
    sentences = sum(len(split.ids) * data.tasks[task].sentences for (task, _), split in data.splits.items())
    assert sum(encoded) == sentences
    encoded.clear()
    again = toys.run(1, training={"steps": 3}, pairs={"encoding": "separate"})
    of.admit(again)
    events = toys.finish(of)
    assert encoded == []
    assert len(toys.evaluations(events[run.run_id])) == 2
    assert toys.ended(events[again.run_id]).record["status"] == "completed"


def test_only_blocks_of_examples_that_are_used_are_computed(
    encoded: list[int], backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK_TOKENS", 40)
    data = toys.random_data((2000, 2000, 2000), dev=6)
    toys.train_alone(data, backbone, toys.run(evaluation={"every": None, "train_limit": 0}))
    blocks = 6 * 4 + 3 * 6  # of six steps of four examples, and of dev
    assert len(encoded) <= blocks
    assert sum(encoded) <= blocks * 40 / 5


def test_resuming_a_probe_is_bit_identical(backbone32: Backbone, data: TokenisedData) -> None:
    training = {"steps": 12, "dropout": {"backbone": 0.0, "heads": 0.2}}
    run = toys.run(precision="float32", training=training, evaluation={"every": 4})
    first = toys.trainer(data, backbone32)
    first.admit(run)
    first.advance()
    saved = first.checkpoint(run.run_id)
    second = toys.trainer(data, backbone32)
    busy = toys.run(1, precision="float32", training={"steps": 7}, evaluation={"train_limit": 0})
    toys.finish(second)
    second.admit(busy)
    toys.finish(second)  # its store has been filled in another order
    second.admit(run, saved)
    one, other = toys.finish(first)[run.run_id], toys.finish(second)[run.run_id]
    assert_same_state(toys.weights(toys.ended(one)), toys.weights(toys.ended(other)), exactly=True)
    mine, theirs = toys.evaluations(one)[-1], toys.evaluations(other)[-1]
    assert mine["rows"] == theirs["rows"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"training": {"dropout": {"heads": 0.5, "adapters": 0.5}}}, True),
        ({"features": "mean", "weighting": {"weights": {"sst": 2}}, "max_length": 20}, True),
        ({"stages": [{"steps": 2}, {"batch_size": 2}]}, True),
        ({"training": {"dropout": {"backbone": 0.1}}}, False),
        ({"training": {"dropout": {"attention": 0.1}}}, False),
        ({"stages": [{"steps": 2}, {"dropout": {"backbone": 0.1}}]}, False),
        ({"low_rank": {"rank": 1}}, False),
        ({"biases": "trained"}, False),
        ({"backbone": "trained"}, False),
        ({"parallel": {}}, False),
        ({"smart": {}}, False),
        ({"merge": {"parents": {"sst": "a-0"}}}, False),
    ],
)
def test_only_plain_probes_without_dropout_below_the_heads_read_stored_features(
    changes: dict[str, Any], expected: bool
) -> None:
    assert depends_on_example_alone(toys.configuration(**changes)) is expected


def test_by_default_the_backbone_drops_and_a_probe_must_run_it() -> None:
    assert not depends_on_example_alone(Configuration())
    assert depends_on_example_alone(parse({"training": {"dropout": {"backbone": 0}}}))


def request_of(data: TokenisedData, task: str, indices: Any, pairs: Pairs, split: str = "train") -> Request:
    return Request(0, task, data.splits[task, split], np.asarray(indices), pairs)


def computed(backbone: Backbone, data: TokenisedData, request: Request, read: str) -> Tensor:
    """The features of a request's examples from one batch of them all. [examples, features]"""
    batch = assemble([request], data.special, LONGEST)
    embedded = backbone.embed(batch, UNALTERED)
    if read == "mean":
        hidden = backbone.encode(embedded, batch, UNALTERED, "token")
        parts = hidden[: batch.tokens].split(batch.lengths.tolist())
        found = torch.stack([part.mean(0) for part in parts])
    else:
        found = backbone.encode(embedded, batch, UNALTERED, "sequence")
    if read == "pooler":
        found = torch.tanh(backbone.pooler(found))
    return torch.cat(found.split(len(request.indices)), dim=1)


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
@pytest.mark.parametrize("read", ["pooler", "cls", "mean"])
@pytest.mark.parametrize("pairs", [Pairs(), Pairs(separator=False), SEPARATE])
def test_stored_features_are_the_backbone_s(
    pairs: Pairs, read: str, precision: str, tolerance: float, data: TokenisedData
) -> None:
    backbone = toys.backbone(precision)
    store = FeatureStore(data, "cpu")
    for task in data.tasks:
        request = request_of(data, task, [7, 3, 3, 40, 0, 11], pairs)
        for _ in range(2):
            found = store.read(backbone, LONGEST, [request], {0: read})[0, task]
            assert found.dtype == backbone.dtype
            wanted = computed(backbone, data, request, read)
            assert torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)


def test_bfloat16_features_keep_their_bits(data: TokenisedData) -> None:
    backbone = toys.backbone("bfloat16")
    request = request_of(data, "sst", [5], Pairs())
    store = FeatureStore(data, "cpu")
    found = store.read(backbone, LONGEST, [request], {0: "cls"})[0, "sst"]
    assert found.dtype == torch.bfloat16
    (shelf,) = store._shelves.values()
    block = shelf.examples(int(shelf.block[shelf.row[5]]))
    wanted = computed(backbone, data, request_of(data, "sst", block, Pairs()), "cls")
    assert torch.equal(found[0], wanted[list(block).index(5)])


def test_features_are_the_same_bits_in_whatever_order_they_are_asked_for(
    backbone32: Backbone, data: TokenisedData
) -> None:
    size = len(data.splits["para", "train"].ids)
    found = []
    for order in (np.arange(size), np.random.default_rng(0).permutation(size)):
        store = FeatureStore(data, "cpu")
        table = torch.empty(size, 32)
        for at in np.array_split(order, 13):
            request = request_of(data, "para", at, SEPARATE)
            table[at] = store.read(backbone32, LONGEST, [request], {0: "pooler"})[0, "para"]
        found.append(table)
    assert torch.equal(found[0], found[1])


def test_what_differs_is_kept_apart_and_what_does_not_is_shared(
    encoded: list[int], backbone: Backbone, data: TokenisedData
) -> None:
    store = FeatureStore(data, "cpu")
    asked = [(task, pairs) for task in data.tasks for pairs in (Pairs(), Pairs(segment_ids=False), SEPARATE)]
    kinds: list[tuple[str, Pairs, str, int, str]] = [
        (task, pairs, read, length, split)
        for task, pairs in asked
        for read in ("cls", "mean")
        for length in (10, LONGEST)
        for split in ("train", "dev")
    ]
    for task, pairs, read, length, split in kinds:
        store.read(backbone, length, [request_of(data, task, [0], pairs, split)], {0: read})
    of_pairs, of_single = 2 * 3, 1  # segment ids and encodings say nothing of a single sentence
    assert len(store._shelves) == len(encoded) == (of_pairs + of_single) * 2 * 2 * 2
    for pairs in (Pairs("separate", segment_ids=False), Pairs("separate", separator=False)):
        store.read(backbone, LONGEST, [request_of(data, "sts", [0], pairs)], {0: "cls"})
    assert len(store._shelves) == (of_pairs + of_single) * 2 * 2 * 2


def whole(store: FeatureStore, backbone: Backbone, data: TokenisedData) -> dict[str, Tensor]:
    """All training examples' features by task."""
    found = {}
    for task in data.tasks:
        request = request_of(data, task, np.arange(len(data.splits[task, "train"].ids)), Pairs())
        found[task] = store.read(backbone, LONGEST, [request], {0: "pooler"})[0, task]
    return found


def test_a_second_process_s_store_over_the_same_folder_computes_nothing(
    encoded: list[int], tmp_path: Path, data: TokenisedData
) -> None:
    for precision in ("float32", "bfloat16"):
        backbone = toys.backbone(precision)
        first = whole(FeatureStore(data, "cpu", tmp_path), backbone, data)
        encoded.clear()
        second = whole(FeatureStore(data, "cpu", tmp_path), backbone, data)
        assert encoded == []
        alone = whole(FeatureStore(data, "cpu"), backbone, data)
        for task in data.tasks:
            assert torch.equal(first[task], second[task])
            assert torch.equal(first[task], alone[task])


def test_what_another_process_fills_is_seen_by_one_that_is_there_already(
    encoded: list[int], tmp_path: Path, backbone: Backbone, data: TokenisedData
) -> None:
    early, late = (FeatureStore(data, "cpu", tmp_path) for _ in range(2))
    request = request_of(data, "sst", [0], Pairs())
    early.read(backbone, LONGEST, [request], {0: "pooler"})
    wanted = whole(late, backbone, data)
    encoded.clear()
    found = whole(early, backbone, data)
    assert encoded == []
    for task in data.tasks:
        assert torch.equal(found[task], wanted[task])


def test_a_block_that_was_not_written_to_its_end_is_computed_again(
    encoded: list[int],
    tmp_path: Path,
    backbone: Backbone,
    data: TokenisedData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process may die at any instant: after half of a block, or before it said that it is there."""
    write = features._write

    def half(path: Path, offset: int, content: bytes) -> None:
        write(path, offset, content[: max(1, len(content) // 2)])
        raise KeyboardInterrupt

    request = request_of(data, "sst", [0, 1], Pairs())
    with monkeypatch.context() as patch:
        patch.setattr(features, "_write", half)
        with pytest.raises(KeyboardInterrupt):
            FeatureStore(data, "cpu", tmp_path).read(backbone, LONGEST, [request], {0: "pooler"})
    encoded.clear()
    found = FeatureStore(data, "cpu", tmp_path).read(backbone, LONGEST, [request], {0: "pooler"})
    assert encoded
    wanted = computed(backbone, data, request, "pooler")
    assert torch.allclose(found[0, "sst"], wanted, rtol=1e-9, atol=1e-9)


def test_another_data_set_s_features_are_not_taken_for_this_one_s(tmp_path: Path, backbone: Backbone) -> None:
    one, other = toys.random_data(seed=0), toys.random_data(seed=1)
    other = TokenisedData(other.tasks, "other data", other.splits, other.special)
    whole(FeatureStore(one, "cpu", tmp_path), backbone, one)
    found = whole(FeatureStore(other, "cpu", tmp_path), backbone, other)
    wanted = whole(FeatureStore(other, "cpu"), backbone, other)
    assert all(torch.equal(found[task], wanted[task]) for task in other.tasks)


def train_in_folder(folder: str, seed: int) -> bytes:
    """A probe trained by a process of its own over shared files; the weights it kept."""
    torch.set_num_threads(1)
    backbone = toys.backbone()
    of = Trainer(lambda _: backbone, toys.random_data(), folder=Path(folder))
    run = probes()[seed]
    of.admit(run)
    return toys.ended(toys.finish(of)[run.run_id]).weights


@pytest.fixture
def processes() -> Iterator[Any]:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield pool


def test_two_processes_over_one_folder_train_as_each_alone(
    processes: Any, ordinary: dict[str, list[toys.Event]], tmp_path: Path
) -> None:
    seeds = [0, 0, 1, 2, 3, 4]
    found = processes.starmap(train_in_folder, [(str(tmp_path), seed) for seed in seeds], chunksize=1)
    assert found[0] == found[1]
    for seed, weights in zip(seeds, found, strict=True):
        alone = toys.ended(ordinary[probes()[seed].run_id])
        mine = toys.Ended(alone.run_id, alone.record, alone.predictions, weights)
        assert_same_state(toys.weights(mine), toys.weights(alone))
