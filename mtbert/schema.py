"""Frozen dataclasses as the schema of a configuration: built from plain data, checked field by field.

Needs the standard library alone, so that a configuration can be read wherever Python runs.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

Built = TypeVar("Built")


class ConfigError(ValueError):
    """A configuration that cannot be: names the field, what it takes and what it was given."""


def constrained(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with a default and bounds that `build` holds its value (or values) to."""
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    metadata = {name: bound for name, bound in bounds.items() if bound is not None}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def build(cls: type[Built], data: Any, where: str) -> Built:
    """An instance of the dataclass `cls` from a mapping, as YAML or JSON gives it.

    A field that holds a dataclass may be given one, read already.

    Args:
        where: the dotted name of this part, for the messages.

    Raises:
        ConfigError: an unknown key, a value of a wrong type or outside its bounds.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a mapping of {cls.__name__} fields, got {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_names(data, fields, f"{where}.")
    for name, field in fields.items():
        if name not in data and default_of(field) is dataclasses.MISSING:
            raise ConfigError(f"{where}.{name}: missing")
    values = {
        name: _convert(hints[name], data[name], f"{where}.{name}", fields[name].metadata) for name in data
    }
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None


def check_names(data: Iterable[Any], known: Iterable[str], where: str = "") -> None:
    """Raises ConfigError for a name that is none of the known ones."""
    fields = list(known)
    for name in data:
        if name not in fields:
            raise ConfigError(f"{where}{name}: no such field{_nearest(str(name), fields)}")


def plain(value: Any, defaults: bool = False) -> Any:
    """The value as JSON has it, each dataclass without the fields that stand at their defaults.

    `kind` fields stay, because they tell which of several dataclasses is meant.

    Args:
        defaults: whether to write the defaults out too.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name), defaults)
            for field in dataclasses.fields(value)
            if defaults or field.name == "kind" or getattr(value, field.name) != default_of(field)
        }
    if isinstance(value, Mapping):
        return {key: plain(value[key], defaults) for key in sorted(value)}
    if isinstance(value, (tuple, list)):
        return [plain(item, defaults) for item in value]
    return value


def difference(value: Any, base: Any) -> dict[str, Any]:
    """What, laid over the dataclass `base`, gives `value` of the same class; plain data.

    Parts are compared field by field, but one with a `kind` is given whole.
    """
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        own, other = getattr(value, field.name), getattr(base, field.name)
        if own == other:
            continue
        by_field = type(own) is type(other) and dataclasses.is_dataclass(own) and not hasattr(own, "kind")
        changed[field.name] = difference(own, other) if by_field else plain(own)
    return changed


def default_of(field: dataclasses.Field[Any]) -> Any:
    """What the field holds when nothing is given; `dataclasses.MISSING` where it must be given."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _convert(hint: Any, value: Any, where: str, bounds: Mapping[str, Any]) -> Any:
    """`value` as the type `hint` asks, or a ConfigError that says why not."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where, bounds)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: expected one of {_spoken(arguments)}, got {value!r}")
        return value
    if origin is not None and issubclass(origin, Sequence):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(
            _convert(arguments[0], item, f"{where}[{index}]", bounds) for index, item in enumerate(value)
        )
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}")
        return {
            _key(key, where): _convert(arguments[1], item, f"{where}.{key}", bounds)
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)  # type: ignore[arg-type]
    return _convert_scalar(hint, value, where, bounds)


def _convert_union(choices: tuple[Any, ...], value: Any, where: str, bounds: Mapping[str, Any]) -> Any:
    """One of several: null, a scalar, or that dataclass whose `kind` the value names, else the first."""
    if type(None) in choices and (value is None or value == "none"):
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) == 1:
        return _convert(rest[0], value, where, bounds)
    if not isinstance(value, Mapping):
        or_none = ", or none" if type(None) in choices else ""
        raise ConfigError(f"{where}: expected a mapping with a kind{or_none}, got {value!r}")
    kinds = {typing.get_args(typing.get_type_hints(choice)["kind"])[0]: choice for choice in rest}
    kind = value.get("kind", next(iter(kinds)))
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{where}.kind: expected one of {_spoken(tuple(kinds))}, got {kind!r}")
    return build(kinds[kind], value, where)


def _key(key: Any, where: str) -> str:
    """A mapping's name as text. YAML reads null, yes and no without quotes as no text."""
    if key is None or isinstance(key, bool):
        raise ConfigError(f"{where}: expected names, got {key!r}; put a name such as null or yes in quotes")
    return str(key)


def _convert_scalar(hint: Any, value: Any, where: str, bounds: Mapping[str, Any]) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-3, without a point, as text
            value = float(value)
        except ValueError:
            raise ConfigError(f"{where}: expected a number, got {value!r}") from None
    accepted = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}[hint]
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
        raise ConfigError(f"{where}: expected {names[hint]}, got {value!r}")
    if hint is float:
        value = float(value)
        if not math.isfinite(value):
            raise ConfigError(f"{where}: expected a finite number, got {value!r}")
    if hint in (int, float):
        _check_bounds(value, where, bounds)
    return value


def _check_bounds(value: float, where: str, bounds: Mapping[str, Any]) -> None:
    holds = {
        "at least": lambda bound: value >= bound,
        "above": lambda bound: value > bound,
        "at most": lambda bound: value <= bound,
        "below": lambda bound: value < bound,
    }
    for name, bound in bounds.items():
        if not holds[name](bound):
            raise ConfigError(f"{where}: expected a number {name} {bound}, got {value!r}")


def _spoken(choices: tuple[Any, ...]) -> str:
    return ", ".join(str(choice) for choice in choices)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
