"""The page about a sweep: what it says, for sweeps of every kind and with parts missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.page.page import page
from analysis.page.subject import Subject
from analysis.page.tasks import TaskErrors, by_task, confusion_counts, regression_figures
from analysis.page.worst import worst_examples
from analysis.ranking import ranked
from analysis.store import StoreError, Writer, read
from tests.analysis.sweep_made_up import USUAL, Sweep, grid

GRID = grid({"low_rank.rank": [2, 8], "low_rank.alpha": [8, 16]})
SECTIONS = (
    "verdict",
    "ranking",
    "learning",
    "gap",
    "fields",
    "tradeoffs",
    "tasks",
    "worst",
    "cost",
    "failures",
    "reproduce",
)
VOID = ("meta", "link", "img", "br", "hr")


class Read(HTMLParser):
    """A page as read: its tags balanced, its ids, links, and words by section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()
        self.charts: Counter[str] = Counter()
        self.words: dict[str, str] = {}
        self._section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        self.links += [str(given[name]) for name in ("href", "src") if name in given]
        if tag == "section":
            self._section = str(given["id"])
        if tag == "svg":
            self.charts[self._section] += 1
        assert not [name for name in given if name.startswith("on")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words[self._section] = " ".join(f"{self.words.get(self._section, '')} {data}".split())


def read_page(results: Path, sweep: str | None = None) -> Read:
    """The page, which whatever the sweep is sound, self-contained, and has every section."""
    text = page(results, sweep)
    found = Read(text)
    sections = [name for name in found.ids if name in (*SECTIONS, "progress")]
    assert [name for name in sections if name != "progress"] == list(SECTIONS)
    assert len(set(found.ids)) == len(found.ids)
    inner = [link for link in found.links if link != "data:,"]
    assert all(link.startswith("#") and link[1:] in found.ids for link in inner)
    assert not found.tags.keys() & {"script", "img", "iframe", "object", "embed"}
    assert "url(http" not in text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text)
    return found


def test_a_whole_sweep_has_every_part_and_its_best_is_the_ranking_s(tmp_path: Path) -> None:
    results = Sweep(GRID).write(tmp_path)
    found = read_page(results)
    best = ranked(read(results), "made-up")[0]
    assert best.mean is not None
    verdict = found.words["verdict"]
    assert "rank 8 · alpha 16 is the best of 4: score " + f"{best.mean:.4f} ±" in verdict
    assert "clearly ahead of all 3 others" in verdict
    assert "low_rank.rank: the best has 8, the highest value tried" in verdict
    assert found.charts == {
        "ranking": 1,
        "learning": 1,
        "gap": 3,
        "fields": 3,
        "tradeoffs": 2,
        "tasks": 3,
    }
    assert "No run has failed" in found.words["failures"]


def test_texts_of_others_are_text_and_nothing_else(tmp_path: Path) -> None:
    hostile = "<script>alert('row')</script> $x$ \x00 \u202e"
    points = {"c0": {"row": hostile}, "c1": {"row": "</title></svg>&amp;"}}
    sweep = Sweep(points, kind="list", statuses={"c0-1": "failed"})
    found = read_page(sweep.write(tmp_path, "list"))
    assert "<script>alert('row')</script> $x$" in found.words["ranking"]
    assert "</title></svg>&amp;" in found.words["ranking"]
    assert "<script>alert('first')</script>" in found.words["worst"]
    assert "{{ 7 * 7 }} & more" in found.words["worst"]


def nothing(results: Path) -> None:
    with Writer(results) as writer:
        writer.declare({"sweep": "made-up", "kind": "grid", "axes": {}, "seeds": 3, "base": {}}, [])


def written(**given: Any) -> Callable[[Path], Any]:
    return lambda results: Sweep(**{"points": GRID, **given}).write(results)


def all_runs(status: str) -> dict[str, str]:
    return {f"{config_id}-{seed}": status for config_id in GRID for seed in range(3)}


MISSING: list[tuple[Callable[[Path], Any], dict[str, str]]] = [
    (nothing, {"verdict": "No verdict yet: nothing has been run.", "reproduce": "Nothing has been run yet"}),
    (
        written(statuses=all_runs("waiting")),
        {"verdict": "of 12 runs, none has completed", "learning": "No run has been evaluated yet"},
    ),
    (written(statuses=all_runs("running")), {"verdict": "12 runs of 12 have not ended"}),
    (
        written(statuses=all_runs("failed")),
        {"verdict": "none of the 12 runs came to anything", "failures": "error: it broke"},
    ),
    (written(statuses=all_runs("diverged")), {"failures": "a loss or a metric was not finite"}),
    (
        written(seeds=1, predictions=False),
        {
            "verdict": "every configuration has one seed",
            "ranking": "without an interval",
            "tasks": "no predictions of rank 8 · alpha 16",
            "worst": "There are no predictions",
        },
    ),
    (
        written(points={"c0": {"low_rank.rank": 2}}),
        {"verdict": "is the only configuration with a result", "fields": "takes two configurations"},
    ),
    (
        written(declaration={"objective": "sst.accuracy"}, statuses={"c3-0": "diverged"}),
        {"ranking": "1 of its runs diverged or have no value", "learning": "sst.accuracy"},
    ),
    (written(gain=0.0, scatter=0.01), {"verdict": "may be as good"}),
    (
        written(kind="search", seeds=1, statuses=all_runs("stopped")),
        {"verdict": "Go on: 4 runs held at a rung", "progress": "4 points tried, 0 to their ends"},
    ),
    (
        written(declaration={"constraints": ["trainable<=1%", "para.accuracy>=0.99"]}),
        {"verdict": "none of 4 configurations may be chosen (breaks para.accuracy>=0.99)"},
    ),
    (
        written(declaration={"constraints": ["trainable<=0.35%"]}),
        {
            "verdict": "rank 8 · alpha 8 is the best of 3",
            "ranking": "rank 8 · alpha 16 (breaks trainable<=0.35%)",
        },
    ),
]


@pytest.mark.parametrize(("make", "expected"), MISSING)
def test_what_is_missing_is_said_in_its_place(
    make: Callable[[Path], Any], expected: dict[str, str], tmp_path: Path
) -> None:
    make(tmp_path)
    words = read_page(tmp_path).words
    for section, text in expected.items():
        assert text in words[section]


def test_the_best_is_called_so_where_none_may_be_as_good(tmp_path: Path) -> None:
    fewer = {"c0-2": "waiting"}  # the lowest, far behind, has a seed too few to be told apart
    verdict = read_page(Sweep(GRID, statuses=fewer, scatter=0.002).write(tmp_path)).words["verdict"]
    assert "rank 8 · alpha 16 scores highest of 4" in verdict
    assert "It is clearly ahead of 2 of 3, but rank 2 · alpha 8 may be as good." in verdict
    assert "More seeds are not needed" not in verdict
    assert "each of rank 8 · alpha 16 and rank 2 · alpha 8 would settle it" in verdict


def test_a_lead_is_of_the_seeds_that_its_interval_is_of(tmp_path: Path) -> None:
    fewer = {"c2-2": "waiting"}
    verdict = read_page(Sweep(GRID, statuses=fewer, gain=0.0, scatter=0.05).write(tmp_path)).words["verdict"]
    assert "over the 2 seeds that both have)" in verdict


def test_what_random_search_finds_is_not_reckoned_from_survivors(tmp_path: Path) -> None:
    points = grid({"low_rank.rank": [2, 4, 8, 16]})
    random = {"sampler": {"name": "random"}}
    whole = Sweep(points, kind="search", seeds=1, declaration=random)
    assert read_page(whole.write(tmp_path / "whole")).charts["progress"] == 2
    diverged = Sweep(points, kind="search", seeds=1, declaration=random, statuses={"c1-0": "diverged"})
    assert read_page(diverged.write(tmp_path / "diverged")).charts["progress"] == 1


def test_a_point_of_a_search_with_one_seed_is_not_called_the_best(tmp_path: Path) -> None:
    points = grid({"low_rank.rank": [2, 4, 8, 16], "low_rank.alpha": [1.0, 2.0]})
    stopped = {f"c{at}-0": "stopped" for at in range(2)}
    absent = {f"c{at}-{seed}": "waiting" for at in (*range(2), *range(5, 8)) for seed in (1, 2)}
    sweep = Sweep(points, kind="search", statuses=stopped | absent)
    found = read_page(sweep.write(tmp_path))
    assert "rank 8 · alpha 1 is the best of 3" in found.words["verdict"]
    assert "rank 16 · alpha 2 (one seed alone)" in found.words["ranking"]
    assert "8 points tried, 6 to their ends" in found.words["progress"]
    assert found.charts["progress"] == 1


def test_a_winner_that_has_nothing_beside_it_is_said_to_have_nothing(tmp_path: Path) -> None:
    absent = {f"c{at}-{seed}": "waiting" for at in range(3) for seed in (1, 2)}
    verdict = read_page(Sweep(GRID, kind="search", statuses=absent).write(tmp_path)).words["verdict"]
    assert "is the only one of 4 that can be called the best" in verdict
    assert "Nothing to compare it with (the rest: one seed alone)." in verdict
    assert "Give another configuration 3 seeds too, to compare rank 8 · alpha 16 with." in verdict


def test_a_point_that_is_called_by_its_place_is_said_in_words_too(tmp_path: Path) -> None:
    fields = [f"training.{letter}" for letter in "abcde"]
    points = {f"c{at}": dict.fromkeys(fields, at) for at in range(2)}
    found = read_page(Sweep(points).write(tmp_path))
    assert "What it is" in found.words["verdict"]
    assert "a 1 · b 1 · c 1 · d 1 · e 1" in found.words["verdict"]
    assert "a 0 · b 0 · c 0 · d 0 · e 0" in found.words["ranking"]


def test_tasks_of_any_declaration_are_told_apart_by_what_the_tables_say(tmp_path: Path) -> None:
    tasks = {**USUAL, "topic": 12, "price": None}
    results = Sweep(GRID, tasks=tasks).write(tmp_path)
    found = read_page(results)
    assert found.charts["tasks"] == 5
    subject = Subject(results)
    kinds = {each.task: each.regression for each in by_task(subject, subject.candidates[0])}
    assert kinds == {"para": False, "price": True, "sst": False, "sts": True, "topic": False}


def test_an_ablation_s_configurations_are_called_by_their_changes(tmp_path: Path) -> None:
    points = {"c0": {"change": "without smart"}, "c1": {"change": "base"}}
    found = read_page(Sweep(points, kind="ablation").write(tmp_path))
    assert "base is the best of 2" in found.words["verdict"]
    assert "kind: list" in found.words["reproduce"]


def test_runs_of_no_sweep_have_a_page_too(tmp_path: Path) -> None:
    from tests.analysis.ledgers import ending, run_json, train

    with Writer(tmp_path) as writer:
        for rank in (2, 4):
            train(writer, run_json(f"c{rank}", low_rank={"rank": rank}), ending(score=rank / 10))
    found = read_page(tmp_path)
    assert "rank 4 scores highest of 2" in found.words["verdict"]
    assert "in no sweep" in found.words["reproduce"]


def test_several_sweeps_want_one_named(tmp_path: Path) -> None:
    Sweep(GRID, predictions=False).write(tmp_path, "one")
    Sweep(GRID, predictions=False).write(tmp_path, "two")
    with pytest.raises(StoreError, match="--sweep: expected one of one, two, got none"):
        page(tmp_path)
    assert "one" in page(tmp_path, "one")


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Sweep(GRID, seeds=1, predictions=False).write(tmp_path / "results")
    output = tmp_path / "page.html"
    assert main(["report", str(results), "-o", str(output)]) == 0
    assert capsys.readouterr().out.startswith(f"{output} (")
    assert output.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_large_sweep_s_page_is_small_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    points = grid({"low_rank.rank": list(range(1, 21)), "low_rank.alpha": list(range(10))})
    sweep = Sweep(points, seeds=1, predictions=False, scatter=0.01)
    text = page(sweep.write(tmp_path))
    assert len(text.encode()) < 1_000_000
    words = Read(text).words
    assert "The 180 below these are not drawn" in words["ranking"]
    assert "150 more are not listed" in words["ranking"]
    assert "of 194 other runs" in words["learning"]
    assert "Of 200 points, python -m analysis importance tells it" in words["fields"]


def test_regression_figures_are_those_of_their_definitions() -> None:
    label, prediction = np.array([0.0, 1.0, 2.0, 5.0]), np.array([0.5, 1.0, 1.0, 4.0])
    found = regression_figures(prediction, label)
    assert found["MSE"] == pytest.approx((0.25 + 0 + 1 + 1) / 4)
    assert found["RMSE"] == pytest.approx(0.75)
    assert found["MAE"] == pytest.approx(2.5 / 4)
    assert found["R²"] == pytest.approx(1 - 2.25 / ((4 + 1 + 0 + 9) / 1))
    assert found["Pearson"] == pytest.approx(pd.Series(label).corr(pd.Series(prediction)))


def test_a_confusion_matrix_has_labels_down_and_predictions_across() -> None:
    found = pd.DataFrame({"label": [0, 0, 2, 2, 2], "prediction": [0, 1, 2, 2, 0]})
    assert confusion_counts(found, 3).tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 2]]


def test_the_worst_errors_are_wrong_with_the_most_seeds_then_by_the_most() -> None:
    rows = [
        ("a", "always", 4.0, 0.0),
        ("b", "always", 3.0, 0.0),
        ("a", "always-far", 4.0, 0.0),
        ("b", "always-far", 4.0, 0.0),
        ("a", "once", 4.0, 0.0),
        ("b", "once", 0.0, 0.0),
        ("a", "never", 1.0, 1.0),
        ("b", "never", 1.0, 1.0),
    ]
    frame = pd.DataFrame(rows, columns=["run_id", "example_id", "prediction", "label"])
    ordered = [each.id for each in worst_examples(TaskErrors("sst", False, frame))]
    assert ordered == ["always-far", "always", "once"]
    first = worst_examples(TaskErrors("sst", True, frame))[0]
    assert (first.id, first.label, first.predictions) == ("always-far", 0.0, [4.0, 4.0])
