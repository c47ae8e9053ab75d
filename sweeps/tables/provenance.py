"""Settings that say how they are known: stated in a report, inferred from it, or assumed; and where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mtbert.configuration import Configuration, parse, with_values
from mtbert.schema import ConfigError

Mark = Literal["stated", "inferred", "assumed"]
MARKS: tuple[Mark, ...] = get_args(Mark)
_STAGE = re.compile(r"stages\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Setting:
    """A field's value and how it is known.

    Attributes:
        lines: of the report's text, that state it, that it is inferred from, or that leave it open.
        why: what it was inferred from, or assumed for.
    """

    value: Any
    mark: Mark
    lines: tuple[int, ...]
    why: str = ""


Settings = Mapping[str, Setting]
"""By dotted field; a stage's are `stages.0.steps`."""


def read_settings(groups: Any, where: str) -> dict[str, Setting]:
    """The settings of a list of groups, `{stated: 141, set: {training.batch_size: 16}}`, or of lists of such.

    Args:
        where: names this place in messages.

    Raises:
        ConfigError: not such a group.
    """
    found: dict[str, Setting] = {}
    for group in _flat(groups, where):
        found = overlay(found, _of_group(group, where))
    return found


def overlay(base: Settings, more: Settings) -> dict[str, Setting]:
    """`base` with `more` laid over it: a field takes the place of what stood below or above it."""
    kept = {
        name: setting
        for name, setting in base.items()
        if not any(f"{other}.".startswith(f"{name}.") or f"{name}.".startswith(f"{other}.") for other in more)
    }
    return {**kept, **more}


def configuration_of(settings: Settings, where: str) -> Configuration:
    """The configuration that the settings spell out.

    Raises:
        ConfigError: one that cannot be.
    """
    plain: dict[str, Any] = {}
    stages: dict[int, dict[str, Any]] = {}
    for name, setting in settings.items():
        stage = _STAGE.fullmatch(name)
        if stage is None:
            plain[name] = setting.value
        else:
            stages.setdefault(int(stage[1]), {})[stage[2]] = setting.value
    data = with_values({}, plain)
    if sorted(stages) != list(range(len(stages))):
        raise ConfigError(f"{where}: expected stages from 0 on without a gap, got {sorted(stages)}")
    if stages:
        data["stages"] = [with_values({}, stages[index]) for index in sorted(stages)]
    try:
        return parse(data)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def lines_of(value: Any, where: str) -> tuple[int, ...]:
    """A line, or a list of lines.

    Raises:
        ConfigError: neither.
    """
    lines = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not lines or not all(isinstance(line, int) and line > 0 for line in lines):
        raise ConfigError(f"{where}: expected a line of the report or a list of lines, got {value!r}")
    return lines


def _flat(groups: Any, where: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(groups, Mapping):
        yield groups
        return
    if not isinstance(groups, (list, tuple)):
        raise ConfigError(f"{where}: expected a list of groups of settings, got {groups!r}")
    for group in groups:
        yield from _flat(group, where)


def _of_group(group: Mapping[str, Any], where: str) -> dict[str, Setting]:
    marks = [mark for mark in MARKS if mark in group]
    values = group.get("set")
    if len(marks) != 1 or not isinstance(values, Mapping) or set(group) - {*MARKS, "set", "why"}:
        raise ConfigError(
            f"{where}: expected one of stated, inferred, assumed with a line, `set` with fields, and maybe "
            f"`why`; got {dict(group)!r}"
        )
    lines = lines_of(group[marks[0]], where)
    why = str(group.get("why", ""))
    return {str(name): Setting(value, marks[0], lines, why) for name, value in values.items()}
