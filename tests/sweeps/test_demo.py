"""The real command with the real trainer, on the demo. (That nobody writes into the shared weights is
checked by every sweep at its end, and ends it with 2; `test_kills` has the trainer that does.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.query import query
from analysis.store import State, read
from tests.sweeps.conftest import ROOT, Started, Workplace

FLAGS = "--ranks 1,4 --alphas 8 --seeds 2 --steps 6 --limit 48 --address local"


def grid(place: Workplace, *more: str) -> Started:
    started = place.run(str(ROOT / "sweeps" / "lora_grid.py"), *FLAGS.split(), *more)
    assert started.process.returncode == 0, started.output
    return started


@pytest.fixture(scope="module")
def place(shared_workplace: Workplace) -> Workplace:
    """Where the grid has run to its end."""
    grid(shared_workplace)
    return shared_workplace


def scores(state: State) -> dict[str, float]:
    ended = {run_id: run.ended or {} for run_id, run in state.runs.items()}
    return {run_id: record["score"] for run_id, record in ended.items()}


def test_a_grid_on_the_demo_ends_in_rows_that_sql_can_ask(place: Workplace) -> None:
    asked = "select status, count(*) as runs, count(distinct trainable) as sizes from runs group by status"
    assert query(place.results, asked).to_pylist() == [{"status": "completed", "runs": 4, "sizes": 2}]
    asked = "select distinct task from predictions order by task"
    assert [row["task"] for row in query(place.results, asked).to_pylist()] == ["para", "sst", "sts"]
    (run, *_) = place.state().runs.values()
    assert run.run["inputs"] == {
        "model": "demo",
        "data": "demo",
        "limit": {"all": 48},
        "holdout": 0.0,
        "cfimdb": "leave",
    }


def test_running_it_again_trains_nothing_and_shows_the_same_table(place: Workplace) -> None:
    again = grid(place)
    assert "nothing to train" in again.output
    table = again.output[again.output.index("#") :]
    assert table in place.started[0].output


@pytest.mark.slow
def test_packs_give_the_scores_that_lone_runs_give(place: Workplace) -> None:
    grid(place, "--pack", "4", "--results", "packed")
    packed = scores(read(place.folder / "packed"))
    assert packed == pytest.approx(scores(place.state()), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fine_tuning_leaves_the_shared_weights_alone(workplace: Workplace, precision: str) -> None:
    config = Path(workplace.folder) / "trained.yaml"
    config.write_text("backbone: trained\nlow_rank: {kind: lora, targets: [pooler]}\n")
    grid(workplace, "--config", str(config), "--precision", precision)
    assert len(scores(workplace.state())) == 4
