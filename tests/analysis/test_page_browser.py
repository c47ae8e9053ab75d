"""The page in a real browser: on a phone, in the dark, in print, without a request and without an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.page.page import page
from tests.analysis.browser import Browser, installed
from tests.analysis.sweep_made_up import USUAL, Sweep, grid

CHROMIUM = installed()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")

OUTSIDE = """[...document.querySelectorAll('main *')].filter(each => {
  const box = each.getBoundingClientRect();
  return !each.closest('.scroll, pre, svg') && box.width > 0 && box.right > innerWidth + 1;
}).map(each => each.tagName + '.' + each.className)"""
COLOURS = """(() => {
  const body = getComputedStyle(document.body), line = document.querySelector('#ranking svg use');
  return [body.backgroundColor, body.color, getComputedStyle(line).fill];
})()"""
CLIPPED = """[...document.querySelectorAll('svg text')].filter(each => {
  const box = each.getBoundingClientRect(), all = each.ownerSVGElement.getBoundingClientRect();
  return box.left < all.left - 2 || box.right > all.right + 2;
}).map(each => each.textContent)"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    axes = {
        "low_rank.rank": [2, 8],
        "training.learning_rate.adapters": [1e-4, 1e-2],
        "low_rank.targets": [["query"], ["query", "key", "value", "attention_out"]],
    }
    statuses = {"c0-1": "failed", "c1-0": "stopped"}
    sweep = Sweep(grid(axes), tasks={**USUAL, "topic": 12}, statuses=statuses)
    path = folder / "report.html"
    path.write_text(page(sweep.write(folder / "results")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(made: Path, browser: Browser, width: int) -> None:
    browser.show(made, width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(OUTSIDE) == []
    assert browser.value(CLIPPED) == []


def test_it_asks_for_nothing_and_says_nothing(made: Path, browser: Browser) -> None:
    browser.show(made, 1280)
    asked = [
        each["params"]["request"]["url"]
        for each in browser.told
        if each.get("method") == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [made.resolve().as_uri()]
    said = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert [each for each in browser.told if each.get("method") in said] == []


def test_charts_on_a_phone_have_text_of_a_size_to_read(made: Path, browser: Browser) -> None:
    browser.show(made, 390)
    heights = "[...document.querySelectorAll('svg text')].map(each => each.getBoundingClientRect().height)"
    assert min(browser.value(heights)) >= 8


def test_one_chart_is_light_dark_and_light_again_in_print(made: Path, browser: Browser) -> None:
    browser.show(made, 390, "light")
    light = browser.value(COLOURS)
    browser.show(made, 390, "dark")
    dark = browser.value(COLOURS)
    assert light[0] == "rgb(255, 255, 255)"
    assert all(one != other for one, other in zip(light, dark, strict=True))
    browser.show(made, 794, "dark", media="print")
    assert browser.value(COLOURS) == light
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.printed().startswith(b"%PDF")


def test_every_link_leads_somewhere_on_the_page(made: Path, browser: Browser) -> None:
    browser.show(made, 1280)
    dead = "[...document.querySelectorAll('a')].filter(each => !document.querySelector(each.hash)).length"
    assert browser.value(dead) == 0
    assert browser.value("document.querySelectorAll('nav a').length") == 10
