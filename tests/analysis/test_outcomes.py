"""Predictions behind a ranking: taken where they come to its values, and what they say of the leader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from analysis.__main__ import main
from analysis.leader import Leader, leader_of
from analysis.outcomes import chosen_by_halves, in_words, outcomes, over_examples
from analysis.query import Sources
from analysis.ranking import ranked
from analysis.store import Writer
from tests.analysis.ledgers import ending, run_json

EXAMPLES = 60


def write(writer: Writer, name: str, seeds: int, right: float, off: float = 0.0) -> None:
    """A configuration whose runs get about so many of sst's examples right, and follow sts's labels somewhat.

    Args:
        off: by how much the recorded score is another than that of the predictions.
    """
    labels = np.arange(EXAMPLES) % 5.0
    for seed in range(seeds):
        random = np.random.default_rng([seed, len(name)])
        sst = np.where(random.uniform(size=EXAMPLES) < right, labels, (labels + 1) % 5)
        sts = labels + random.normal(0, 1, EXAMPLES)
        accuracy = float((sst == labels).mean())
        pearson = float(scipy.stats.pearsonr(sts, labels).statistic)
        score = (accuracy + (1 + pearson) / 2) / 2 + off
        run = run_json(name, seed, low_rank={"kind": "lora", "rank": len(name)})
        claim = writer.begin(run)
        assert claim.attempt is not None
        ids = [f"e{at}" for at in range(EXAMPLES)]
        table = {
            "task": ["sst"] * EXAMPLES + ["sts"] * EXAMPLES,
            "example_id": ids + ids[::-1],
            "prediction": [*sst, *sts[::-1]],
            "label": [*labels, *labels[::-1]],
        }
        metrics = {"sst.accuracy": accuracy, "sts.pearson": pearson, "sst.loss": 0.5}
        writer.end(run["run_id"], claim.attempt, ending(score=score, metrics=metrics), table, b"")


def leading(results: Path, by: str | None = None) -> tuple[Sources, Leader]:
    sources = Sources(results)
    found = leader_of(ranked(sources.state, by=by))
    assert found is not None
    return sources, found


def test_predictions_are_taken_by_task_run_and_example(writer: Writer, results: Path) -> None:
    write(writer, "a", 3, 0.8)
    writer.close()
    sources, leader = leading(results)
    found = outcomes(sources, leader.row, [2, 0])
    assert found is not None
    sst, sts = found
    assert (sst.task, sst.metric, sts.task, sts.metric) == ("sst", "accuracy", "sts", "half_up")
    assert list(sst.ids) == list(sts.ids) == sorted(f"e{at}" for at in range(EXAMPLES))
    assert sts.values.shape == (2, EXAMPLES)
    assert [float(label) for label in sst.labels] == [int(example[1:]) % 5 for example in sst.ids]
    assert (sst.values[1] == sst.labels).mean() == sources.state.runs["a-0"].ended["metrics"]["sst.accuracy"]  # type: ignore[index]


@pytest.mark.parametrize(("by", "tasks"), [("sst.accuracy", ["sst"]), ("sts.pearson", ["sts"])])
def test_of_a_single_metric_its_own_task_is_taken(
    by: str, tasks: list[str], writer: Writer, results: Path
) -> None:
    write(writer, "a", 2, 0.8)
    writer.close()
    sources, leader = leading(results, by)
    found = outcomes(sources, leader.row, [0, 1])
    assert found is not None
    assert [task.task for task in found] == tasks


@pytest.mark.parametrize("by", ["trainable", "sst.loss"])
def test_what_no_predictions_come_to_has_none(by: str, writer: Writer, results: Path) -> None:
    write(writer, "a", 2, 0.8)
    writer.close()
    sources, leader = leading(results, by)
    assert outcomes(sources, leader.row, [0, 1]) is None


def test_a_score_that_is_another_than_its_predictions_is_not_explained_by_them(
    writer: Writer, results: Path
) -> None:
    write(writer, "a", 3, 0.9, off=0.01)
    write(writer, "bb", 3, 0.5)
    writer.close()
    sources, leader = leading(results)
    assert outcomes(sources, leader.row, [0, 1]) is None
    assert in_words(sources, leader) == []


def test_the_lead_is_told_over_other_examples_and_halves(
    writer: Writer, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(writer, "a", 3, 0.95)
    write(writer, "bb", 3, 0.4)
    writer.close()
    sources, leader = leading(results)
    lead, halves = over_examples(sources, leader), chosen_by_halves(sources, leader)
    assert lead is not None
    assert halves is not None
    behind = leader.behind["bb"].difference
    assert behind is not None
    assert lead.value == pytest.approx(behind.value)
    assert halves.on_all == pytest.approx(leader.row.mean)
    assert halves.chosen == (1.0, 0.0)
    assert main(["best", str(results)]) == 0
    shown = capsys.readouterr().out
    assert f"a lead of {lead.value:.4f} ± {lead.half_width:.4f}, beyond chance" in shown
    assert f"the best has {halves.reported:.4f} on the other" in shown


def test_two_shared_seeds_are_too_few_to_speak_of_other_examples(writer: Writer, results: Path) -> None:
    write(writer, "a", 3, 0.9)
    write(writer, "bb", 2, 0.5)
    writer.close()
    sources, leader = leading(results)
    assert over_examples(sources, leader) is None
    assert chosen_by_halves(sources, leader) is not None
