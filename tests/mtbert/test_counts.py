"""Counts of parameters: those that the reports print, and those that training really moves."""

from __future__ import annotations

from typing import Any

import pytest

from mtbert.__main__ import main
from mtbert.adapters import bias
from mtbert.bert import BertConfig
from mtbert.checkpoint import unpack_tensors
from mtbert.configuration import parse
from mtbert.counts import Counts, count
from mtbert.schema import ConfigError
from tests.mtbert import toys

BASE = BertConfig(
    vocab_size=30522,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
)
BACKBONE = 109_482_240
HEADS = 5 * 769 + 769 + 769
REPORT_004 = ["query", "key", "value", "ffn_in", "ffn_out", "heads"]
"""What report 004 puts LoRA on, its heads' included."""


def counted(config: BertConfig = BASE, **changes: Any) -> Counts:
    return count(parse(changes), config, toys.TASKS)


def last_linear_layer(rank: int) -> Counts:
    """Report 004's LLL: LoRA on frozen random heads too, and nothing else trained."""
    return counted(low_rank={"rank": rank, "targets": REPORT_004}, heads={"trained": False})


def test_a_linear_probe_trains_the_heads_alone() -> None:
    probe = counted()
    assert (probe.trainable, probe.total) == (HEADS, BACKBONE + HEADS)
    assert probe.parts == {"backbone": (0, BACKBONE), "heads": (HEADS, HEADS)}


def test_full_fine_tuning_is_report_004_s_baseline() -> None:
    full = counted(backbone="trained")
    assert full.trainable == full.total == 109_487_623


@pytest.mark.parametrize(("rank", "printed"), [(1, 149_767), (4, 599_068), (8, 1_198_136), (16, 2_396_272)])
def test_lora_in_last_linear_layer_mode_counts_as_report_004_s_table_1(rank: int, printed: int) -> None:
    lora = last_linear_layer(rank)
    assert lora.trainable == printed
    assert lora.total == BACKBONE + HEADS + printed


def test_lora_in_full_model_mode_counts_as_report_004_s_table_1() -> None:
    """The layers that carry LoRA are frozen with their biases, the heads too; the rest is trained."""
    full = counted(backbone="trained", low_rank={"rank": 4, "targets": REPORT_004}, heads={"trained": False})
    assert full.trainable == 32_150_812
    assert full.total == BACKBONE + HEADS + 599_068


@pytest.mark.parametrize(
    ("targets", "rank", "printed"),
    [
        (["query", "key", "value"], 2, "0.10"),
        (["query", "key", "value"], 4, "0.20"),
        (["query", "key", "value"], 16, "0.80"),
        (["query", "key", "value"], 64, "3.13"),
        (["all_linear"], 64, "8.91"),
    ],
)
def test_lora_s_share_of_the_backbone_is_report_002_s(targets: list[str], rank: int, printed: str) -> None:
    """Table 2: of the total with what was added, the heads left out."""
    parts = counted(low_rank={"rank": rank, "targets": targets}).parts
    added, _ = parts["low_rank"]
    assert f"{100 * added / (BACKBONE + added):.2f}" == printed


def test_dora_s_share_of_the_backbone_is_report_002_s() -> None:
    """Table 2: the magnitudes are the difference to LoRA's 3.13%."""
    parts = counted(low_rank={"kind": "dora", "rank": 64, "targets": ["query", "key", "value"]}).parts
    added, _ = parts["low_rank"]
    assert f"{100 * added / (BACKBONE + added):.2f}" == "3.15"


def test_orthogonal_adapters_train_b_alone_and_add_what_lora_does() -> None:
    """Report 002's Table 3 gives OrthoAda LoRA's 8.91%: of the fixed A too, of the one task that is added."""
    lora = counted(low_rank={"rank": 64, "targets": ["all_linear"]}).parts["low_rank"][1]
    trainable, total = counted(low_rank={"kind": "orthogonal", "rank": 64, "targets": ["all_linear"]}).parts[
        "low_rank"
    ]
    assert total == 3 * lora
    assert trainable == 3 * 64 * (12 * (5 * 768 + 3072) + 768)


def test_all_linear_includes_the_pooler() -> None:
    whole = counted(low_rank={"rank": 64, "targets": ["all_linear"]})
    layers = counted(
        low_rank={"rank": 64, "targets": ["query", "key", "value", "attention_out", "ffn_in", "ffn_out"]}
    )
    assert whole.trainable - layers.trainable == 64 * (768 + 768)


def test_a_lora_for_each_task_counts_once_for_each() -> None:
    shared = counted(low_rank={"rank": 4}).parts["low_rank"][0]
    assert counted(low_rank={"rank": 4, "sharing": "per_task"}).parts["low_rank"][0] == 3 * shared
    own = {"sst": {"rank": 1}, "sts": {"targets": ["query"]}}
    mixed = counted(low_rank={"rank": 4, "sharing": "per_task", "tasks": own}).parts["low_rank"][0]
    assert mixed == shared // 4 + shared + shared // 2


def test_heads_for_separate_sentences_are_twice_as_wide() -> None:
    separate = counted(pairs={"encoding": "separate"})
    assert separate.trainable == 5 * 769 + 2 * (2 * 768 + 1)


def test_trained_biases_count_once_and_add_nothing_to_the_total() -> None:
    of_layers = 12 * (4 * 768 + 3072 + 768)
    trained = counted(biases="trained")
    assert trained.trainable == HEADS + of_layers + 768
    assert trained.total == BACKBONE + HEADS
    assert len(bias.shapes(parse({"biases": "trained"}), BASE, toys.TASKS)) == 12 * 6 + 1


def test_counting_allocates_nothing() -> None:
    huge = BertConfig(10**9, 10**6, 100, 10, 10**7)
    assert counted(huge, low_rank={"rank": 1000}).trainable > 10**10


def test_layers_that_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"low_rank\.layers.*12"):
        counted(low_rank={"layers": [0, 12]})


LOW_RANK = {"form": "low_rank", "projections": "per_layer"}
REPORT_004_PARALLEL: dict[str, tuple[dict[str, Any], int]] = {
    "low-rank of 100": ({**LOW_RANK, "hidden": 100}, 115_048_471),
    "PALs": ({"projections": "per_layer"}, 125_319_559),
    "PALs, shared V": ({}, 114_947_131),
    "PALs, shared V and attention": ({"attention": "shared"}, 110_806_951),
    "PALs, shared V, SST alone": ({"tasks": ["sst"]}, 111_307_459),
}


@pytest.mark.parametrize("place", ["layer", "attention"])
@pytest.mark.parametrize(
    ("parallel", "printed"), REPORT_004_PARALLEL.values(), ids=REPORT_004_PARALLEL.keys()
)
def test_functions_beside_the_layers_count_as_report_004_s_table_2(
    parallel: dict[str, Any], printed: int, place: str
) -> None:
    """All of the backbone is trained with them; its architecture (place) changes no count."""
    counts = counted(backbone="trained", parallel={"hidden": 204, "place": place, **parallel})
    assert counts.trainable == counts.total == printed


def test_the_mixed_adaption_counts_as_it_is_described() -> None:
    """Shared PALs of 204 in six layers, low-rank ones of 100 in the six above: not what Table 2 prints."""
    upper = {**LOW_RANK, "hidden": 100, "start": 6}
    mixed = counted(backbone="trained", parallel={"hidden": 204, "upper": upper})
    assert mixed.trainable == mixed.total == 115_469_275


def test_the_mixed_adaption_s_printed_count_follows_from_a_part_made_three_times() -> None:
    """No configuration trains 124,748,995: with low-rank ones of 204, the PAL part would stand thrice.

    Its terms are counts of configurations: one PAL part, and 18 low-rank functions of 204.
    """
    full = counted(backbone="trained").trainable
    part = counted(parallel={"hidden": 204, "layers": list(range(6))}).parts["parallel"][0]
    upper = counted(parallel={**LOW_RANK, "hidden": 204, "layers": list(range(6, 12))}).parts["parallel"][0]
    pair, attention = 2 * 768 * 204 + 768 + 204, 3 * (204 * 204 + 204)
    assert (part, upper) == (3 * pair + 18 * attention, 18 * pair)
    assert full + 3 * part + upper == 124_748_995


def test_the_command_prints_report_004_s_count(capsys: pytest.CaptureFixture[str]) -> None:
    said = ["--set", "parallel.hidden=204", "--set", "backbone=trained"]
    assert main(["params", "--model", "bert-base-uncased", *said]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["parallel", "5,459,508", "5,459,508"] in rows
    assert ["all", "114,947,131", "114,947,131"] in rows


SMALL_CASES: dict[str, dict[str, Any]] = {
    "probe": {},
    "separate pairs": {"pairs": {"encoding": "separate"}},
    "lora": {"low_rank": toys.lora()},
    "lora of one layer": {"low_rank": toys.lora(layers=[1])},
    "lora everywhere": {"low_rank": toys.lora(targets=["all_linear", "heads"]), "heads": {"trained": False}},
    "lora per task": {
        "low_rank": toys.lora(
            sharing="per_task", tasks={"sst": {"rank": 2}, "sts": {"targets": ["ffn_in", "pooler", "heads"]}}
        )
    },
    "pal": {"parallel": {"hidden": 6, "heads": 3}},
    "pal of one task, biases and lora": {
        "parallel": {"hidden": 6, "heads": 3, "tasks": ["sst"], "projections": "per_layer"},
        "biases": "trained",
        "low_rank": toys.lora(),
    },
    "full with mixed pal": {
        "backbone": "trained",
        "parallel": {"hidden": 6, "heads": 3, "upper": {"form": "low_rank", "hidden": 5, "start": 1}},
    },
    "biases": {"biases": "trained"},
    "biases and lora": {"biases": "trained", "low_rank": toys.lora(targets=["all_linear"])},
    "full": {"backbone": "trained"},
    "full with lora": {
        "backbone": "trained",
        "low_rank": toys.lora(targets=REPORT_004),
        "heads": {"trained": False},
    },
    "full with biases": {"backbone": "trained", "biases": "trained"},
    "full with lora and biases": {
        "backbone": "trained",
        "biases": "trained",
        "low_rank": toys.lora(targets=["query", "value"]),
    },
    "dora": {"low_rank": toys.lora(kind="dora", targets=["all_linear", "heads"])},
    "dora per task": {
        "low_rank": toys.lora(kind="dora", sharing="per_task", tasks={"sst": {"rank": 2}}),
        "biases": "trained",
    },
    "orthogonal": {"low_rank": {"kind": "orthogonal", "rank": 4, "tasks": {"sts": {"targets": ["heads"]}}}},
    "orthogonal on one task": {
        "low_rank": {"kind": "orthogonal", "rank": 4},
        "training": {"tasks": ["sst"]},
    },
    "lora on pairs alone": {"low_rank": toys.lora(), "training": {"tasks": ["para", "sts"]}},
}


@pytest.mark.parametrize("changes", SMALL_CASES.values(), ids=SMALL_CASES.keys())
def test_what_is_counted_is_what_adamw_moves(changes: dict[str, Any]) -> None:
    training = {"schedule": {"kind": "joint"}, "steps": 2, **changes.get("training", {})}
    run = toys.run(**{**changes, "training": training, "evaluation": {"every": 1}})
    of = toys.trainer(toys.random_data(), toys.backbone())
    of.admit(run)
    of.advance()
    tensors, _ = unpack_tensors(of.checkpoint(run.run_id))
    moved = sum(value.numel() for name, value in tensors.items() if name.startswith("adam.exp_avg."))
    ended = toys.ended(toys.finish(of)[run.run_id]).record
    assert ended["trainable"] == moved
    tasks = {name: toys.TASKS[name] for name in training.get("tasks", toys.TASKS)}
    expected = count(run.configuration, toys.SMALL, tasks)
    assert (ended["trainable"], ended["total"]) == (expected.trainable, expected.total)
