"""The pieces of a page. What is put into them is escaped: labels and texts come from files of others."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

NOTHING = Markup("")


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading that the table of contents names."""

    id: str
    title: str
    body: Markup


def joined(parts: Iterable[Markup | str]) -> Markup:
    """The parts one after the other; plain text is escaped."""
    return NOTHING.join(parts)


def paragraph(text: str | Markup, kind: str | None = None) -> Markup:
    if kind is None:
        return Markup("<p>{}</p>").format(text)
    return Markup('<p class="{}">{}</p>').format(kind, text)


def note(text: str | Markup) -> Markup:
    """What is missing, in words, where something would stand."""
    return paragraph(text, "note")


def plain_list(items: Iterable[str | Markup]) -> Markup:
    return Markup("<ul>{}</ul>").format(joined(Markup("<li>{}</li>").format(item) for item in items))


def details(summary: str | Markup, body: Markup) -> Markup:
    """A part that is folded away; in print it is open."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, body)


def code(text: str) -> Markup:
    return Markup('<pre tabindex="0"><code>{}</code></pre>').format(visible(text, lines=True))


def figure(svg: str, caption: str | Markup, wide: bool = False) -> Markup:
    """A chart, as `analysis.page.drawing` makes them, and what it shows."""
    kind = "wide" if wide else "chart"
    return Markup('<figure class="{}">{}<figcaption>{}</figcaption></figure>').format(
        kind, Markup(svg), caption
    )


def figures(parts: Iterable[Markup]) -> Markup:
    """Charts side by side, as many as there is room for."""
    return Markup('<div class="charts">{}</div>').format(joined(parts))


def table(
    caption: str, headers: Sequence[str], rows: Iterable[Sequence[Any]], text: Sequence[int] = (0,)
) -> Markup:
    """A table that scrolls within itself where it is wider than the screen.

    Args:
        text: the columns that are words, not numbers.
    """
    sides = ["text" if at in text else "number" for at in range(len(headers))]
    head = joined(
        Markup('<th scope="col" class="{}">{}</th>').format(side, header)
        for side, header in zip(sides, headers, strict=True)
    )
    body = joined(
        Markup("<tr>{}</tr>").format(
            joined(
                Markup('<td class="{}">{}</td>').format(side, cell)
                for side, cell in zip(sides, row, strict=True)
            )
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="{0}"><table><caption>{0}</caption>'
        "<thead><tr>{1}</tr></thead><tbody>{2}</tbody></table></div>"
    ).format(caption, head, body)


def quotation(text: str | None, longest: int) -> Markup:
    """Somebody's text: isolated, whatever its direction, and cut where it is long."""
    if text is None:
        return NOTHING
    shown = visible(text)
    if len(shown) > longest:
        shown = shown[: longest - 1].rstrip() + "…"
    return Markup('<bdi class="quote">{}</bdi>').format(shown)


def visible(text: str, lines: bool = False) -> str:
    """The text with a sign in place of what a page cannot hold; spaces and line ends as one space.

    Args:
        lines: keeps line ends and indents.
    """
    kept = text if lines else " ".join(text.split())
    return "".join(
        each if each == "\n" or unicodedata.category(each) not in ("Cc", "Cs") else "�" for each in kept
    )


def count(number: int, noun: str) -> str:
    """The number with its noun in the plural where it needs it."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(words: Sequence[str]) -> str:
    """Words as one says them: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


def html(title: str, style: str, body: Markup) -> str:
    """The whole document. Its policy forbids scripts and every request."""
    return (
        Markup(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'; img-src data:\">\n"
            '<link rel="icon" href="data:,">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n'
            "<body>\n{}\n</body>\n</html>\n"
        )
        .format(escape(title), Markup(style), body)
        .__str__()
    )
