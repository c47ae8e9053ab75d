"""Every row of every published table trains: a few steps on the embedded model, through the real trainer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.configuration import Configuration
from mtbert.counts import Counts, count
from mtbert.data.tokenise import TokenisedData
from mtbert.member import Member, initial_state
from mtbert.records import Ended
from mtbert.run import Run, digest
from mtbert.schema import plain
from mtbert.tasks import Task
from mtbert.weights import BaseModel, load_base
from sweeps.publish import Workload
from sweeps.tables import shorten
from sweeps.tables.plan import Options, TablePlan
from sweeps.tables.published import Table, read_tables
from tests.mtbert import toys

torch.set_num_threads(1)  # as for the model's own tests
TABLES = read_tables()
TASKS = {**toys.TASKS, "cfimdb": Task(name="cfimdb", kind="binary", sentences=1)}
FEWEST = 3
VALUES = {"training.batch_size": 4, "evaluation.keep": "last", "evaluation.train_limit": 4}
"""What is set of every row, so that few steps tell: small batches, and the last step kept, not the best."""


@cache
def base() -> BaseModel:
    return load_base("demo")


@cache
def backbone(precision: str) -> Backbone:
    return Backbone.from_arrays(base().config, base().arrays, precision)


@cache
def data(cfimdb: bool) -> TokenisedData:
    tasks = TASKS if cfimdb else toys.TASKS
    return toys.random_data([12] * len(tasks), dev=6, lengths=(2, 6), tasks=tasks)


class Material:
    """The embedded model over a few made-up sentences, as a plan sees it."""

    model, notices, inputs = "demo", (), {"model": "demo"}

    def __init__(self, cfimdb: bool) -> None:
        self.tokens = data(cfimdb)
        self.data = self.tokens.fingerprint
        self.sizes = {task: len(self.tokens.splits[task, "train"].ids) for task in self.tokens.tasks}

    def count(self, configuration: Configuration) -> Counts:
        return count(configuration, base().config, self.tokens.tasks)

    def workload(self, _: Configuration) -> Workload:
        return Workload(0, 0.0, 0.0, base().config.hidden_size, base().config.num_hidden_layers)


def trained(runs: Mapping[str, Run], tokens: TokenisedData) -> dict[str, Ended]:
    """How the runs end. Those over a frozen backbone are trained together."""
    trainer = toys.Trainer(backbone, tokens)
    ended: dict[str, Ended] = {}
    together = [run for run in runs.values() if run.configuration.backbone == "frozen"]
    alone = [[run] for run in runs.values() if run.configuration.backbone == "trained"]
    for group in (together, *alone):
        for run in group:
            trainer.admit(run)
        found = toys.finish(trainer)
        ended |= {run.run_id: toys.ended(found[run.run_id]) for run in group}
    return ended


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_row_trains_a_few_steps(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shorten, "FEWEST", FEWEST)
    material: Any = Material(table.cfimdb == "task")
    plan = TablePlan(table, Options(scale=1e-6, values=VALUES), material, pretrained=material)
    assert [plan.reasons(row) for row in table.rows] == [{}] * len(table.rows)
    runs = {run.run_id: run for run in plan.runs.values()}
    ended = trained(runs, material.tokens)
    for run_id, run in runs.items():
        check(run, ended[run_id], material.tokens)
    check_that_settings_tell(runs, ended)


def check_that_settings_tell(runs: Mapping[str, Run], ended: Mapping[str, Ended]) -> None:
    """Runs of different settings end with different weights.

    How they are evaluated moves nothing, and SMART's noise too little for so few steps in float32.
    """
    by_weights: dict[str, str] = {}
    for run_id, run in runs.items():
        weights, _ = unpack_tensors(ended[run_id].weights)
        told = digest([[name, value.tolist()] for name, value in sorted(weights.items())])
        configuration = plain(run.configuration)
        settings = digest({key: configuration[key] for key in configuration.keys() - {"evaluation", "smart"}})
        assert by_weights.setdefault(told, settings) == settings, configuration


def check(run: Run, ended: Ended, tokens: TokenisedData) -> None:
    """It has ended well, and each technique that the row names has tensors, and moved some of them."""
    configuration = run.configuration
    record = ended.record
    assert record["status"] == "completed"
    member = Member(run, tokens.tasks, dict.fromkeys(tokens.tasks, 12))
    assert record["step"] == member.total_steps
    assert all(value is None or np.isfinite(value) for value in record["metrics"].values())
    assert record["trainable"] == count(configuration, base().config, member.tasks).trainable
    weights, _ = unpack_tensors(ended.weights)
    start = initial_state(run, base().config, member.tasks)
    start |= {f"backbone.{name}": torch.from_numpy(array) for name, array in base().arrays.items()}
    moved = {name for name, value in weights.items() if not torch.equal(value, start[name].to(value.dtype))}
    parts = {
        "low_rank.": configuration.low_rank is not None,
        "parallel.": configuration.parallel is not None,
        "heads.": configuration.heads.trained and _has_head(configuration, member),
        "backbone.": configuration.backbone == "trained",
    }
    for prefix, expected in parts.items():
        assert any(name.startswith(prefix) for name in moved) == expected, (prefix, configuration)


def _has_head(configuration: Configuration, member: Member) -> bool:
    """Whether some trained task's head has parameters of its own: ReLU(cos)·5 has none."""
    return any(configuration.heads.of_task(task).kind != "relu_cosine" for task in member.tasks)
