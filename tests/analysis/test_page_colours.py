"""The page's colours: contrast in light, dark and print, and series that colour-blind people tell apart."""

from __future__ import annotations

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest

from analysis.page.drawing import VARIABLES
from analysis.plots.style import LOOKS

CSS = files("analysis.page").joinpath("page.css").read_text(encoding="utf-8")
SERIES = ("blue", "vermillion", "green", "purple", "orange")
# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB
SIGHTS = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "all colours": np.eye(3).tolist(),
}


def scheme(name: str) -> dict[str, str]:
    """The variables of a scheme: the first block is light's, which print has too, the second dark's."""
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
    found = re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if name == "light" else dark)
    return dict(found)


def linear(colour: str) -> np.ndarray:
    """Linear RGB of a colour as sRGB has it (IEC 61966-2-1)."""
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    found = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (one, other))
    return (found[1] + 0.05) / (found[0] + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB, white D65."""
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.clip(np.array(matrix) @ rgb, 0, None) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(name: str) -> None:
    colours = scheme(name)
    for text, behind in itertools.product(("ink", "muted", "link"), ("paper", "raised")):
        assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_lines_and_marks_stand_out_from_the_paper(name: str) -> None:
    colours = scheme(name)
    for each in (*SERIES, "muted"):
        assert contrast(colours[each], colours["paper"]) >= 3, each


@pytest.mark.parametrize("name", ["light", "dark"])
def test_a_cell_s_number_stands_out_at_the_darkest(name: str) -> None:
    from analysis.plots.errors import DARKEST

    colours = scheme(name)
    parts = [
        round(
            DARKEST * int(colours["blue"][at : at + 2], 16)
            + (1 - DARKEST) * int(colours["paper"][at : at + 2], 16)
        )
        for at in (1, 3, 5)
    ]
    assert contrast(colours["ink"], "#" + "".join(f"{part:02x}" for part in parts)) >= 4.5


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("name", ["light", "dark"])
def test_series_are_told_apart_by_every_sight(name: str, sight: str) -> None:
    """Colours at least 10 apart (four times what is just seen), and another line and mark anyway."""
    colours = scheme(name)
    seen = {each: lab(np.array(SIGHTS[sight]) @ linear(colours[each])) for each in SERIES}
    for one, other in itertools.combinations(SERIES, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 10, (one, other)
    assert len({look.marker for look in LOOKS}) == len({str(look.dashes) for look in LOOKS}) == len(LOOKS)


def test_both_schemes_have_every_variable_and_charts_use_no_other() -> None:
    assert scheme("light").keys() == scheme("dark").keys()
    used = {match[1] for value in VARIABLES.values() if (match := re.fullmatch(r"var\(--(\w+)\)", value))}
    assert used <= scheme("light").keys()
    assert set(re.findall(r"var\(--(\w+)\)", CSS)) <= scheme("light").keys()
    assert "@media screen and (prefers-color-scheme: dark)" in CSS  # so that print is light
