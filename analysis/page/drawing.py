"""A chart as SVG within a page: text as text, colours as the page's variables, names of its own."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from analysis.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 360  # pixels: what a phone shows without scaling
HEIGHT = 260
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_POINTS_PER_INCH = 72
VARIABLES = {
    style.INK: "var(--ink)",
    style.MUTED: "var(--muted)",
    style.RULE: "var(--rule)",
    style.PAPER: "var(--paper)",
    style.BLUE: "var(--blue)",
    style.VERMILLION: "var(--vermillion)",
    style.GREEN: "var(--green)",
    style.PURPLE: "var(--purple)",
    style.ORANGE: "var(--orange)",
}


def svg(
    draw: Callable[[Axes], object],
    name: str,
    title: str,
    description: str,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> str:
    """The chart that `draw` puts on the axes it is given, as an `<svg>` element.

    Args:
        name: unique on the page; the chart's own ids begin with it.
        title, description: for those who do not see it.
        width, height: pixels at which text has its own size.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    text = io.StringIO()
    settings: Any = dict(style.SETTINGS)  # whose keys matplotlib spells out as literals
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's browser has others
        size = (width / _POINTS_PER_INCH, height / _POINTS_PER_INCH)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None})
    return _inline(text.getvalue(), name, title, description)


def _inline(text: str, name: str, title: str, description: str) -> str:
    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        _restyle(element)
    _thin(root)
    _rename(root, name)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-description")
    for at, (tag, said) in enumerate((("title", title), ("desc", description))):
        told = ElementTree.Element(tag, id=f"{name}-{'title' if tag == 'title' else 'description'}")
        told.text = said
        root.insert(at, told)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _thin(element: ElementTree.Element) -> None:
    """Takes out what shows nothing, and a style sheet that would rule the whole page."""
    for child in list(element):
        _thin(child)
        hollow = child.tag == "g" and len(child) == 0
        unseen = child.tag == "path" and child.get("style") == "fill: none"
        if hollow or unseen or child.tag in ("metadata", "style"):
            element.remove(child)


def _rename(root: ElementTree.Element, name: str) -> None:
    """Ids that something refers to get the chart's name, so that a page may hold many charts; others go."""
    used = {text for element in root.iter() for text in _references(element)}
    names = {old: f"{name}-{at}" for at, old in enumerate(sorted(used))}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in names:
            element.set("id", names[own])
        link = element.attrib.pop(f"{{{_XLINK}}}href", None)
        if link is not None:
            element.set("href", f"#{names[link[1:]]}")
        clip = element.get("clip-path")
        if clip is not None:
            element.set("clip-path", f"url(#{names[clip[5:-1]]})")


def _references(element: ElementTree.Element) -> Iterator[str]:
    link, clip = element.get(f"{{{_XLINK}}}href"), element.get("clip-path")
    if link is not None:
        yield link[1:]
    if clip is not None:
        yield clip[5:-1]


def _restyle(element: ElementTree.Element) -> None:
    """Variables for colours, the page's font, and no more decimals than a screen shows."""
    found = element.get("style")
    if found is not None:
        found = re.sub(r"#[0-9a-f]{6}", lambda match: VARIABLES.get(match[0], match[0]), found)
        found = re.sub(r"font: (?:(bold|\d+) )?([\d.]+)px [^;]+", _font, found)
        found = re.sub(r"font-family: [^;]+; ", "", found)
        element.set("style", found)
    for coordinates in ("d", "x", "y", "transform", "width", "height", "points"):
        numbers = element.get(coordinates)
        if numbers is not None:
            shorter = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.1f}", numbers)
            element.set(coordinates, " ".join(shorter.split()))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for text in ("text", "tail"):
        if not (getattr(element, text) or "").strip():
            setattr(element, text, None)


def _font(match: re.Match[str]) -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px"
