"""What a configuration has that a plain one has not, as changes that each put one thing back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from mtbert.configuration import Configuration, parse, with_values
from mtbert.schema import ConfigError, plain

Change = Mapping[str, Any]
"""Values by dotted field, to lay over the configuration."""

FRAME = ("training.steps", "training.epochs", "training.steps_per_epoch", "evaluation", "merge")
"""How long a run is and how it is measured, which must be alike where parts are compared."""


def put_back(own: Configuration, base: Configuration) -> tuple[dict[str, Change], dict[str, str]]:
    """Each single thing in which a configuration differs from the base, put back to the base's value.

    A place that only one of them has is one change; of one that both have, of whatever kinds, each field is.

    Returns:
        The changes by name, and by name why others cannot stand alone.
    """
    possible: dict[str, Change] = {}
    impossible: dict[str, str] = {}
    for name, change in _differences("", own, base):
        try:
            found = parse(with_values(plain(own), change))
        except ConfigError as error:
            impossible[name] = str(error)
            continue
        if found != own:
            possible[name] = change
    return possible, impossible


def _differences(where: str, own: Any, base: Any) -> Iterator[tuple[str, Change]]:
    """The changes by name, whether or not they can stand alone."""
    if where in FRAME or own == base:
        return
    if base is None:
        yield f"without {where}", {where: None}
    elif own is None and is_dataclass(base):
        yield f"with {where}", {where: plain(base)}
    elif is_dataclass(own) and is_dataclass(base):
        known = {field.name for field in fields(own)}
        shared = [field.name for field in fields(base) if field.name in known]
        if type(own) is not type(base):
            shared.remove("kind")
            kept = {name: plain(getattr(own, name)) for name in shared}
            kind = plain(base)
            yield _back(f"{where}.kind", kind["kind"]), {where: {**kind, **kept}}
        for name in shared:
            inner = f"{where}.{name}" if where else name
            yield from _differences(inner, getattr(own, name), getattr(base, name))
    else:
        yield _back(where, base), {where: plain(base)}


def _back(where: str, value: Any) -> str:
    if isinstance(value, (tuple, list)):
        told = ", ".join(map(str, value)) or "none"
    else:
        told = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{where} back to {told}"
