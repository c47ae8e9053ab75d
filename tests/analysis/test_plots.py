"""Charts: what stands where, and how they come into a page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.page.drawing import svg
from analysis.plots.curves import best_of, history, learning_curves
from analysis.plots.errors import DARKEST, confusion, residuals
from analysis.plots.fields import importance, parallel_coordinates, slices
from analysis.plots.scores import front, intervals
from analysis.plots.style import LOOKS, MUTED, VERMILLION


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def drawn(axes: Axes, color: str | None = None) -> list[tuple[list[float], list[float]]]:
    """Points of each line, of one colour if given."""
    lines = [line for line in axes.lines if color is None or line.get_color() == color]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]


def test_a_chart_in_a_page_has_its_text_its_variables_and_ids_of_its_own() -> None:
    frame = pd.DataFrame({"label": ["$a$ <b>"], "mean": [0.5], "low": [0.4], "high": [0.6]})
    runs = pd.DataFrame({"label": ["$a$ <b>"] * 2, "value": [0.45, 0.55]})
    made = {name: svg(lambda a: intervals(frame, runs, a), name, "a < b", "c & d") for name in ("one", "two")}
    root = ElementTree.fromstring(made["one"])
    texts = [element.text for element in root.iter("text")]
    assert "$a$ <b>" in texts
    assert (root.findtext("title"), root.findtext("desc")) == ("a < b", "c & d")
    assert root.get("viewBox") == "0 0 360 260"
    assert not re.search(r"#[0-9a-f]{6}", made["one"])
    assert "var(--vermillion)" in made["one"]
    assert "<style" not in made["one"]
    ids = {name: re.findall(r' id="([^"]+)"', text) for name, text in made.items()}
    assert not set(ids["one"]) & set(ids["two"])
    for text in made.values():
        own = set(re.findall(r' id="([^"]+)"', text))
        assert set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text)) <= own
    assert made["one"] == svg(lambda a: intervals(frame, runs, a), "one", "a < b", "c & d")


def test_intervals_mark_the_best_and_leave_out_what_is_not_known(axes: Axes) -> None:
    nan = float("nan")
    frame = pd.DataFrame({"label": ["a", "b"], "mean": [0.7, 0.6], "low": [0.6, nan], "high": [0.8, nan]})
    runs = pd.DataFrame({"label": ["a", "a", "b"], "value": [0.65, 0.75, 0.6]})
    intervals(frame, runs, axes)
    assert ([0.7], [0.0]) in drawn(axes, VERMILLION)
    spans = [path.vertices[:, 0].tolist() for each in axes.collections for path in each.get_paths()]
    assert [0.6, 0.8] in spans
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the best on top


def test_curves_of_each_configuration_look_different(axes: Axes) -> None:
    frame = pd.DataFrame(
        [(label, step, step / 10, 0, 1) for label in "abcdef" for step in (1, 2)],
        columns=["label", "step", "mean", "low", "high"],
    )
    others = pd.DataFrame({"run": ["x", "x"], "step": [1, 2], "value": [0.1, 0.2]})
    learning_curves(frame, others, axes)
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    assert [line.get_marker() for line in named] == [look.marker for look in LOOKS]
    assert ([1, 2], [0.1, 0.2]) in drawn(axes, MUTED)
    assert ([2], [0.2]) in drawn(axes, MUTED)  # where the run ended


def test_a_search_s_points_say_whether_they_went_to_their_ends(axes: Axes) -> None:
    frame = pd.DataFrame(
        {"order": [1, 2, 3], "value": [0.5, 0.4, 0.6], "whole": [True, False, True], "best": [0.5, 0.5, 0.6]}
    )
    history(frame, axes)
    labels = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert labels == {"best so far": [0.5, 0.5, 0.6], "to its end": [0.5, 0.6], "stopped early": [0.4]}


def test_a_confusion_s_cells_are_as_dark_as_their_share_of_the_label(axes: Axes) -> None:
    confusion(np.array([[3.0, 1.0], [0.0, 0.0]]), ["0", "1"], axes)
    assert [patch.get_alpha() for patch in axes.patches] == [0.75 * DARKEST, 0.25 * DARKEST]
    assert [text.get_text() for text in axes.texts] == ["75%", "25%", "–", "–"]


def test_residuals_show_the_mean_at_each_label(axes: Axes) -> None:
    residuals(pd.DataFrame({"label": [0.0, 0.0, 5.0], "residual": [1.0, 0.0, -2.0]}), axes)
    (_, means) = drawn(axes, VERMILLION)[0]
    assert means == [0.5, -2.0]
    assert axes.get_ylim() == (-2.0, 2.0)


def test_the_front_is_joined_from_the_cheapest_on_and_wide_costs_are_logarithmic(axes: Axes) -> None:
    frame = pd.DataFrame(
        {
            "cost": [100.0, 1.0, 50.0],
            "value": [0.9, 0.5, 0.4],
            "front": [True, True, False],
            "label": ["#1", "#2", "#3"],
        }
    )
    front(frame, axes, "parameters")
    assert ([1.0, 100.0], [0.5, 0.9]) in drawn(axes)
    assert [text.get_text() for text in axes.texts] == ["#2", "#1"]
    assert axes.get_xscale() == "log"


def test_parallel_coordinates_place_numbers_text_and_absence(axes: Axes) -> None:
    frame = pd.DataFrame(
        {"rank": [1, 100, None], "kind": ["lora", "dora", "lora"], "score": [0.5, 0.7, 0.6]}, dtype=object
    )
    frame["score"] = frame["score"].astype(float)
    parallel_coordinates(frame, "score", 1, axes)
    ((places, rows),) = drawn(axes, VERMILLION)
    assert rows == [0, 1, 2]
    assert places == pytest.approx([5 / 6, 1 / 4, 1.0])  # of none, 1, 100; of dora, lora; of 0.5 to 0.7


def test_a_slice_of_numbers_is_by_size_and_of_names_by_place(axes: Axes) -> None:
    slices(pd.DataFrame({"field": [1e-4, 1e-2], "value": [0.5, 0.6]}), "rate", axes)
    assert axes.get_xscale() == "log"
    other = Figure().subplots()
    frame = pd.DataFrame({"field": ["b", None, "a", "a"], "value": [0.3, 0.5, 0.4, 0.6]})
    slices(frame, "kind", other)
    assert [label.get_text() for label in other.get_xticklabels()] == ["none", "a", "b"]
    ((places, means),) = drawn(other, VERMILLION)
    assert (places, means) == ([0, 1, 2], pytest.approx([0.5, 0.5, 0.3]))


def test_the_best_expected_is_drawn_by_the_number_of_points(axes: Axes) -> None:
    best_of([0.5, 0.6, 0.65], axes)
    assert drawn(axes) == [([1, 2, 3], [0.5, 0.6, 0.65])]


def test_importance_names_each_axis_with_its_share_and_interval(axes: Axes) -> None:
    frame = pd.DataFrame(
        {"label": ["rank", "alpha"], "value": [0.7, 0.2], "low": [0.5, 0.1], "high": [0.8, 0.4]}
    )
    importance(frame, axes)
    assert [text.get_text() for text in axes.texts] == ["rank: 70%", "alpha: 20%"]
    spans = [path.vertices[:, 0].tolist() for each in axes.collections for path in each.get_paths()]
    assert spans == [[0.5, 0.8], [0.1, 0.4]]
