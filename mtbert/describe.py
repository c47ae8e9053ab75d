"""What a configuration, or any other dataclass that is built from plain data, takes: field by field.

Read from the dataclasses themselves, so that it is complete whatever is added to them. Needs the standard
library alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mtbert.schema import default_of, plain


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        name: dotted, `low_rank.rank`; `<name>` stands for a name of the user's own, as a task's.
        of: which alternative of its place it belongs to, "lora"; empty where there is one only.
        takes: the type, or the values, in words.
        constraint: the bounds of a number, in words.
        default: as JSON has it; meaningless where `required`.
        about: what its dataclass says of itself, at the dataclass's first field alone.
    """

    name: str
    of: str
    takes: str
    constraint: str
    default: Any
    required: bool
    about: str


def described(cls: type[Any], prefix: str = "", of: str = "") -> Iterator[Field]:
    """The fields of a dataclass in order, each followed by those of the dataclasses that it may hold."""
    hints = typing.get_type_hints(cls)
    about = _about(cls)
    for field in dataclasses.fields(cls):
        if field.name == "kind" and of:
            continue
        default = default_of(field)
        required = default is dataclasses.MISSING
        yield Field(
            prefix + field.name,
            of,
            spoken_type(hints[field.name]),
            ", ".join(f"{name} {bound:g}" for name, bound in field.metadata.items()),
            None if required else plain(default),
            required,
            about,
        )
        about = ""
        for path, inner, alternative in _inner(hints[field.name]):
            yield from described(inner, f"{prefix}{field.name}{path}.", alternative or of)


def spoken_type(hint: Any) -> str:
    """What a field takes, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [each for each in arguments if each is not type(None)]
        said = " | ".join(_kind(each) or spoken_type(each) for each in rest)
        return f"{said} | none" if len(rest) < len(arguments) else said
    if origin is Literal:
        return " | ".join(str(each) for each in arguments)
    if origin is not None and issubclass(origin, Sequence):
        return f"list of {spoken_type(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping of {spoken_type(arguments[1])} by name"
    if dataclasses.is_dataclass(hint):
        return "fields"
    names = {float: "number", int: "whole number", bool: "true | false", str: "text"}
    return names.get(hint, "anything")


def _inner(hint: Any) -> Iterator[tuple[str, type[Any], str]]:
    """The dataclasses that a field may hold: what stands between, which, and its kind if several."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        yield "", typing.cast("type[Any]", hint), ""
    elif origin in (typing.Union, types.UnionType):
        for each in arguments:
            for path, inner, _ in _inner(each):
                yield path, inner, _kind(each)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        for path, inner, kind in _inner(arguments[1]):
            yield f".<name>{path}", inner, kind


def _kind(cls: Any) -> str:
    """`lora` of LoRA, which says `kind: lora`; empty for what has no kind."""
    if not dataclasses.is_dataclass(cls):
        return ""
    hint = typing.get_type_hints(cls).get("kind")
    return str(typing.get_args(hint)[0]) if typing.get_origin(hint) is Literal else ""


def _about(cls: type[Any]) -> str:
    """The first paragraph of a dataclass's own words."""
    text = cls.__doc__ or ""
    if text.startswith(f"{cls.__name__}("):  # dataclasses write one where there is none
        return ""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def table(fields: Sequence[Field]) -> str:
    """The fields for a terminal, a line each; what a part is stands above it."""
    lines: list[str] = []
    width = max(len(field.name) for field in fields)
    for field in fields:
        if field.about:
            which = f"{field.of}: " if field.of else ""
            lines += ["", f"# {which}{field.about}"]
        default = "required" if field.required else f"= {_spoken(field.default)}"
        constraint = f", {field.constraint}" if field.constraint else ""
        lines.append(f"{field.name:<{width}}  {default}  ({field.takes}{constraint})")
    return "\n".join(lines[1:])


def _spoken(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return {None: "none", True: "true", False: "false"}[default]
    if isinstance(default, Mapping):
        return "{" + ", ".join(f"{key}: {_spoken(each)}" for key, each in default.items()) + "}"
    if isinstance(default, list):
        return "[" + ", ".join(map(_spoken, default)) + "]"
    return f"{default:g}" if isinstance(default, float) else str(default)
