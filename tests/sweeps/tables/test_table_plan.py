"""What of a table is run here: fitted, shortened, changed, or not at all, and then why."""

from __future__ import annotations

from typing import Any

import pytest

from mtbert.configuration import Configuration
from mtbert.schema import ConfigError
from sweeps.publish import Workload
from sweeps.tables.plan import WITHOUT_PRETRAINED, Options, TablePlan
from sweeps.tables.published import read_tables
from tests.sweeps.fake import FakeMaterial

TABLES = read_tables()


class Sized(FakeMaterial):
    """Material of a model with so many layers and so wide, over data of these tasks."""

    def __init__(
        self, layers: int = 12, width: int = 768, tasks: tuple[str, ...] = ("sst", "para", "sts")
    ) -> None:
        super().__init__("", 0, {})
        self.layers, self.width = layers, width
        self.sizes = dict.fromkeys(tasks, 64)  # type: ignore[misc]

    def workload(self, _: Configuration) -> Workload:
        return Workload(0, 0, 0, self.width, self.layers)

    def count(self, configuration: Configuration) -> Any:
        if configuration.low_rank is not None and configuration.low_rank.rank == 128:
            raise ConfigError("low_rank.rank: expected at most 64")
        return super().count(configuration)


def planned(table_id: str, material: Sized | None = None, **options: Any) -> TablePlan:
    return TablePlan(TABLES[table_id], Options(**options), material or Sized())


@pytest.mark.parametrize("table_id", [name for name in TABLES if not name.startswith(("003/5.4", "002/2"))])
def test_every_table_is_one_sweep_of_all_its_runs(table_id: str) -> None:
    plan = planned(table_id, seeds=2)
    sweep = plan.sweep(pretrained=False)
    assert sweep is not None
    assert sweep.name == f"published-{table_id.replace('/', '-')}"
    declared = {each.run.run_id for each in sweep.runs("data0", "model0")}
    assert declared == {run.run_id for run in plan.runs.values()}
    assert len(plan.runs) == 2 * sum(len(row.runs) for row in TABLES[table_id].rows)
    assert {run.seed for run in plan.runs.values()} == {0, 1}


def test_a_shortened_table_is_a_sweep_of_its_own() -> None:
    sweep = planned("004/3", scale=0.02).sweep(pretrained=False)
    assert sweep is not None
    assert sweep.name == "published-004-3-scale-0.02"
    assert {of.training.steps_per_epoch for of in sweep.configurations.values()} == {6}


def test_what_is_set_is_set_of_every_row_and_after_shortening() -> None:
    values = {"features": "mean", "evaluation.dev_limit": 7}
    for each in planned("004/3", scale=0.02, values=values).planned:
        assert each.configuration is not None
        assert each.configuration.features == "mean"
        assert each.configuration.evaluation.dev_limit == 7


def test_a_row_that_a_set_value_makes_impossible_is_not_run_and_says_so() -> None:
    plan = planned("004/4", values={"precision": "bfloat16"})
    reasons = [plan.reasons(row).get("", "") for row in plan.table.rows]
    assert ["expected float32 with smart" in reason for reason in reasons] == [True, True, False]
    sweep = plan.sweep(pretrained=False)
    assert sweep is not None
    assert list(sweep.configurations) == ["Configuration 3"]


def test_a_value_that_no_row_can_have_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"--set: no row of 004/3 can be: .*features: expected one of"):
        planned("004/3", values={"features": "last"})


def test_rows_of_a_further_pretrained_model_wait_for_one() -> None:
    plan = planned("003/5.4.2")
    waiting = [row.label for row in plan.table.rows if plan.reasons(row) == {"": WITHOUT_PRETRAINED}]
    assert waiting == [row.label for row in plan.table.rows if row.pretrained]
    assert len(waiting) == 4
    assert plan.sweep(pretrained=True) is None
    further = Sized()
    further.model = "further"  # type: ignore[misc]
    both = TablePlan(TABLES["003/5.4.2"], Options(), Sized(), further)
    sweep = both.sweep(pretrained=True)
    assert sweep is not None
    assert (sweep.name, list(sweep.configurations)) == ("published-003-5.4.2-pretrained", waiting)
    assert {run.model for (row, _, _), run in both.runs.items() if row in (1, 5)} == {"model0"}
    assert {run.model for (row, _, _), run in both.runs.items() if row not in (1, 5)} == {"further"}


def test_runs_of_a_task_that_the_data_lacks_are_not_run() -> None:
    plan = planned("003/5.4.1")
    assert [plan.reasons(row) for row in plan.table.rows] == [{"cfimdb": "the data has no task cfimdb"}] * 3
    assert {name for _, name, _ in plan.runs} == {"sst"}
    whole = planned("003/5.4.1", Sized(tasks=("sst", "para", "sts", "cfimdb")))
    assert {name for _, name, _ in whole.runs} == {"sst", "cfimdb"}


def test_a_row_that_does_not_fit_the_model_is_not_run_and_says_so() -> None:
    plan = planned("002/2")
    *others, last = plan.table.rows
    assert set(plan.reasons(last).values()) == {"low_rank.rank: expected at most 64"}
    assert all(plan.reasons(row) == {} for row in others)


def test_layers_and_columns_are_fitted_to_a_smaller_model() -> None:
    whole, small = planned("004/2"), planned("004/2", Sized(layers=3))
    assert whole.notes == []
    assert [upper_start(plan) for plan in (whole, small)] == [6, 1]
    assert small.notes[0].startswith("Mixed Adaption (AA): its upper layers are those from 1 on")
    narrow = planned("002/3", Sized(width=128))
    ranks = {each.configuration.low_rank.rank for each in narrow.planned if each.row.label == "OrthoAda"}  # type: ignore[union-attr]
    assert ranks == {42}
    assert narrow.notes == ["OrthoAda: rank 42 for 64, as 3 tasks share 128 columns"]
    assert planned("002/3").notes == []


def upper_start(plan: TablePlan) -> int:
    """Where the upper layers of the mixed rows begin."""
    (start,) = {
        each.configuration.parallel.upper.start
        for each in plan.planned
        if each.configuration and each.configuration.parallel and each.configuration.parallel.upper
    }
    return start


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5])
def test_a_factor_that_does_not_shorten_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="--scale: expected a factor above 0 and at most 1"):
        Options(scale=scale)
