"""What the reports say of their rows, typed from the reports and not from the file under test."""

from __future__ import annotations

from typing import Any

QKV = ["query", "key", "value"]
LLL = [*QKV, "ffn_in", "ffn_out", "heads"]
ORDERS = ["sst para sts", "sst sts para", "para sst sts", "para sts sst", "sts sst para", "sts para sst"]
LLL_LORA = {"low_rank.scaling": "alpha", "low_rank.targets": LLL, "heads.trained": False}
PALS = {"parallel.form": "attention", "parallel.hidden": 204}
V, V_SA = (
    {"parallel.projections": "shared"},
    {"parallel.projections": "shared", "parallel.attention": "shared"},
)
AA, BESIDE = {"parallel.place": "attention"}, {"parallel.place": "layer"}
OWN = {"parallel.projections": "per_layer"}
UPPER = {"parallel.upper.form": "low_rank", "parallel.upper.hidden": 100, "parallel.upper.start": 6}
AT_16 = {"training.epochs": 100, "training.steps_per_epoch": 300, "training.batch_size": 16}
LONG = {"training.epochs": 100, "training.steps_per_epoch": 1000}

EXPECTED: dict[str, list[dict[str, Any]]] = {
    "000/1": [
        {"backbone": "frozen", "low_rank": None, "weighting.weights": {}},
        {"backbone": "trained", "low_rank": None, "weighting.weights": {}},
        {"backbone": "trained", "weighting.weights": {"sts": 10, "sst": 4}},
        {"backbone": "frozen", "low_rank": None, "weighting.weights": {"sts": 10, "sst": 4}},
        {
            "low_rank.rank": 4,
            "training.learning_rate.adapters": 1e-3,
            "weighting.weights": {"sts": 10, "sst": 4},
        },
        {"low_rank.rank": 4, "training.learning_rate.adapters": 1e-3, "weighting.weights": {}},
        {"low_rank.rank": 4, "training.learning_rate.adapters": 1e-5, "weighting.weights": {}},
        {"low_rank.rank": 8, "training.learning_rate.adapters": 1e-5, "weighting.weights": {}},
    ],
    "001/1": [
        {"backbone": "frozen", "low_rank": None},
        {"backbone": "trained", "training.epochs": 10, "training.learning_rate.backbone": 1e-5},
    ],
    "001/2": [
        {"low_rank.rank": rank, "low_rank.alpha": alpha, "low_rank.dropout": 0.1, "training.epochs": 1}
        for rank, alpha in ((2, 16), (4, 16), (8, 16), (16, 16), (32, 16), (32, 32), (64, 32))
    ],
    "001/3": [
        {"low_rank.sharing": "per_task", "low_rank.tasks.sst.targets": targets}
        for targets in (["query", "value"], ["value"], ["query", "value"], ["query", "value"])
    ],
    "001/4": [
        {"low_rank.sharing": "per_task", "low_rank.tasks.para.targets": targets}
        for targets in (["query", "value"], ["value"], ["query", "value"], ["query", "value"])
    ],
    "001/5": [{"low_rank.tasks.sts.rank": 32}] * 4,
    "002/1": [{"backbone": "trained", "features": "cls", "training.dropout.heads": 0.3}],
    "002/2": [
        {"low_rank.kind": kind, "low_rank.rank": rank, "low_rank.targets": targets, "biases": biases}
        for kind, rank, targets, biases in (
            *(("lora", rank, QKV, "frozen") for rank in (2, 4, 16, 64)),
            ("dora", 64, QKV, "frozen"),
            ("lora", 64, [*QKV, "attention_out", "ffn_in", "ffn_out", "pooler"], "frozen"),
            ("lora", 64, [*QKV, "attention_out", "ffn_in", "ffn_out", "pooler"], "trained"),
            ("lora", 128, [*QKV, "attention_out", "ffn_in", "ffn_out", "pooler"], "trained"),
        )
    ],
    "002/3": [
        *({"low_rank.rank": 64, "training.schedule.order": order.split()} for order in ORDERS),
        *({"low_rank.rank": 64, "low_rank.kind": kind} for kind in ("lora", "lora", "orthogonal")),
    ],
    "002/figure2": [
        {"pairs.encoding": pairs, "training.schedule.order": order.split(), "training.batch_size": 32}
        for pairs in ("separate", "separate", "joint")
        for order in ORDERS
    ],
    "003/5.4.1": [{"backbone": "trained"}, {"backbone": "frozen", "parallel": None}, {"parallel.hidden": 1}],
    "003/5.4.2": [
        {"backbone": "trained", "heads.tasks.sts.kind": "relu_cosine"},
        {"backbone": "trained", "heads.tasks.sts.kind": "relu_cosine"},
        {"backbone": "trained", "heads.tasks": {}},
        {"backbone": "trained", "parallel.hidden": 2, "heads.tasks.sts.kind": "relu_cosine"},
        *[{"backbone": "frozen", "parallel.hidden": 2, "training.learning_rate.adapters": 1e-3}] * 2,
    ],
    "003/5.4.3": [
        {"backbone": "trained", "heads.tasks.para.cosine": True, "training.epochs": 1},
        {"parallel.hidden": 2, "heads.tasks.para.cosine": True, "training.epochs": 1},
        {"parallel.hidden": 2, "heads.tasks.para.cosine": False, "training.epochs": 1},
    ],
    "003/rank": [{"parallel.hidden": rank, "parallel.form": "low_rank"} for rank in (2, 10, 100)],
    "003/rate": [
        {"parallel.hidden": 2, "training.learning_rate.adapters": 1e-3},
        {"parallel.hidden": 2, "training.learning_rate.adapters": 1e-5},
        {"backbone": "trained", "training.learning_rate.backbone": 1e-3},
        {"backbone": "trained", "training.learning_rate.backbone": 1e-5},
    ],
    "003/dropout": [{"parallel.dropout": rate} for rate in (0.05, 0.1, 0.2, 0.3)],
    "004/1": [
        {"backbone": "trained", "low_rank": None, "heads.trained": True, **AT_16},
        *(
            {"backbone": "frozen", "low_rank.rank": rank, "low_rank.alpha": alpha, **LLL_LORA, **AT_16}
            for rank, alpha in ((1, 1), (4, 1), (8, 1), (16, 1), (1, 8), (4, 8), (8, 8), (16, 8), (16, 16))
        ),
        {"backbone": "trained", "low_rank.rank": 4, "low_rank.alpha": 8, **LLL_LORA, **AT_16},
    ],
    "004/2": [
        {"parallel.form": "low_rank", "parallel.hidden": 100, **OWN, **AA},
        {"parallel.form": "low_rank", "parallel.hidden": 100, **OWN, **BESIDE},
        {**PALS, **OWN, **AA},
        {**PALS, **OWN, **BESIDE},
        {**PALS, **V, **AA},
        {**PALS, **V, **BESIDE},
        {**PALS, **V, **UPPER, **AA},
        {**PALS, **V, **UPPER, **BESIDE},
        {**PALS, **V_SA, **AA},
        {**PALS, **V_SA, **BESIDE},
        {**PALS, **V, **BESIDE, "parallel.tasks": ["sst"]},
    ],
    "004/3": [
        {"smart.noise": noise, "smart.weight": weight, "smart.ascent_steps": 0, "evaluation.every": 4}
        for noise, weight in (
            (1e-5, 1e-4),
            (1e-5, 1e-3),
            (1e-5, 1e-2),
            (1e-2, 1e-3),
            (1e-2, 1e-2),
            (1e-2, 1e-1),
        )
    ],
    "004/4": [
        {**PALS, **V, **LONG, "training.batch_size": 16, "smart.weight": 1e-5, "smart.noise": 1e-2},
        {**PALS, **V, **LONG, "training.batch_size": 16, "smart.weight": 1e-5, "low_rank.rank": 4},
        {**PALS, **V, **LONG, "training.batch_size": 64, "smart": None, "low_rank": None},
    ],
    "004/5": [
        *[{"backbone": "trained", "training.batch_size": 16}] * 3,
        {"training.schedule.kind": "random_epoch", "training.epochs": 30, "training.steps_per_epoch": None},
    ],
    "004/6": [
        {"training.schedule.kind": kind, "evaluation.every": every, **AT_16}
        for kind, every in (("random", 1), ("round_robin", 1), ("annealed", 1), ("annealed", 5))
    ],
}
"""By table, what each row says of itself, by dotted field."""
