"""Points and configurations: a point laid over a base, and where in a space a configuration stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mtbert.configuration import Configuration, parse, with_values
from mtbert.schema import ConfigError, plain
from sweeps.search.space import NONE, SWITCHES, Parameter, Point, Space, places, same, spoken


def configuration_at(base: Mapping[str, Any], point: Point) -> Configuration:
    """The point laid over the base.

    Raises:
        ConfigError: a configuration that cannot be; names the point.
    """
    left_out = {name for name, value in point.items() if _leaves_out(name, value)}
    values = {name: value for name, value in point.items() if name not in left_out}
    values |= {name.rpartition(".")[0]: None for name in left_out}
    try:
        return parse(with_values(base, values))
    except ConfigError as error:
        raise ConfigError(f"the space's point ({spoken(point)}) cannot be: {error}") from None


def point_of(space: Space, base: Mapping[str, Any], configuration: Configuration) -> dict[str, Any] | None:
    """Where a configuration stands in the space; None outside it, or where the fixed part differs."""
    settings = plain(configuration, defaults=True)
    for point in _readings(space, base, settings, list(space.parameters), {}):
        try:
            if configuration_at(base, point) == configuration:
                return point
        except ConfigError:
            continue
    return None


def check_found_again(
    space: Space, base: Mapping[str, Any], point: Point, configuration: Configuration
) -> None:
    """Raises ConfigError for a point that its own configuration does not lead back to.

    A configuration drops what says nothing in it, as the heads of a PAL that has none; the search would take
    the run for another's and propose the like for ever.
    """
    if point_of(space, base, configuration) is not None:
        return
    settings = plain(configuration, defaults=True)
    lost = [
        name
        for name, value in point.items()
        if value not in _read(space.parameters[name], name, settings, base)
    ]
    told = ", ".join(f"{name} {_at(settings, name)!r}" for name in lost) or "other values"
    raise ConfigError(
        f"space: the point ({spoken(point)}) comes to a configuration that has {told}: let a parameter be "
        "asked only `when` it says something"
    )


def _readings(
    space: Space,
    base: Mapping[str, Any],
    settings: Mapping[str, Any],
    names: list[str],
    point: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """The points that settings agree with: several, where choices give different fields of one part."""
    if not names:
        yield point
    elif not space.asked(names[0], point):
        yield from _readings(space, base, settings, names[1:], point)
    else:
        for value in _read(space.parameters[names[0]], names[0], settings, base):
            yield from _readings(space, base, settings, names[1:], {**point, names[0]: value})


def _read(
    parameter: Parameter, name: str, settings: Mapping[str, Any], base: Mapping[str, Any]
) -> Iterator[Any]:
    """The parameter's values that the settings agree with."""
    found = _at(settings, name)
    if parameter.choices is None:
        if parameter.holds(found):
            yield int(found) if parameter.whole else float(found)
        return
    left_out = any(_at(settings, place) is None for place in places(name))
    for choice in parameter.choices:
        if _leaves_out(name, choice):
            agrees = left_out
        elif choice in (None, NONE):
            agrees = found in (None, NONE) and not left_out
        else:
            agrees = not left_out and _agrees(choice, found, base, name)
        if agrees:
            yield choice


def _agrees(choice: Any, found: Any, base: Mapping[str, Any], name: str) -> bool:
    """Whether settings are those of a choice, which may be a mapping of some of a part's fields alone."""
    if not isinstance(choice, (list, tuple, Mapping)):
        return same(choice, found)
    try:  # settings spell `all_linear` as the layers' names
        settled = _at(plain(parse(with_values(base, {name: choice})), defaults=True), name)
    except ConfigError:  # it needs other values beside it: most are spelt as they are
        settled = choice
    if isinstance(choice, Mapping) and isinstance(found, Mapping) and isinstance(settled, Mapping):
        return all(key in found and same(settled.get(key), found[key]) for key in choice)
    return same(settled, found)


def _leaves_out(name: str, value: Any) -> bool:
    place, _, last = name.rpartition(".")
    return bool(place) and last in SWITCHES and value in (None, NONE)


def _at(settings: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(settings, Mapping) or part not in settings:
            return None
        settings = settings[part]
    return settings
