"""The declared space of a search: parameters by dotted field, some asked only where others allow it.

A point is a value for each parameter that is asked; laid over a base it gives a configuration. What is
fixed stands in the base, or is a parameter with one choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from analysis.study import distribution
from mtbert.schema import ConfigError, build

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

Point = Mapping[str, Any]
NONE = "none"
SWITCHES = ("kind", "form")
"""`low_rank.kind: none` and `parallel.form: none` leave the whole place out."""


@dataclass(frozen=True)
class Parameter:
    """What values a field may take: one of `choices`, or a number from `low` to `high`, both included.

    Attributes:
        log: whether the number is spread evenly over its logarithm.
        step: of the numbers from `low` on; not together with log.
        when: asked only where these other parameters have one of these values.
        role: compared, or nuisance: searched along, so that what is compared is judged at its best.
    """

    choices: tuple[Any, ...] | None = None
    low: Any = None
    high: Any = None
    log: bool = False
    step: Any = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    role: Literal["compared", "nuisance"] = "compared"

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        conditions = {name: tuple(map(_untexted, given)) for name, given in self.when.items()}
        object.__setattr__(self, "when", conditions)
        if self.choices is None:
            self._check_range()
            return
        object.__setattr__(self, "choices", tuple(map(_untexted, self.choices)))
        if (self.low, self.high, self.step, self.log) != (None, None, None, False):
            raise ConfigError(".choices: expected either choices or a range of numbers, got both")
        if not self.choices:
            raise ConfigError(".choices: expected at least one, got none")
        if len(set(map(_text, self.choices))) < len(self.choices):
            raise ConfigError(f".choices: expected each once, got {list(self.choices)!r}")

    def _check_range(self) -> None:
        if self.low is None or self.high is None:
            raise ConfigError(": expected choices, or low and high")
        if not self.low < self.high:
            raise ConfigError(f".high: expected a number above low ({self.low}), got {self.high}")
        if self.log and self.low <= 0:
            raise ConfigError(f".low: expected a number above 0 with log, got {self.low}")
        if self.step is not None and (self.log or self.step <= 0):
            raise ConfigError(f".step: expected a number above 0, and no log, got {self.step}")
        if self.step is not None and (self.high - self.low) / self.step < 1 - 1e-9:
            raise ConfigError(f".step: expected at most what lies between low and high, got {self.step}")

    @property
    def whole(self) -> bool:
        """Whether the numbers are whole ones, as all that is given of them is."""
        given = [each for each in (self.low, self.high, self.step) if each is not None]
        return all(isinstance(each, int) for each in given)

    @property
    def fixed(self) -> bool:
        """Whether there is one value only."""
        return self.choices is not None and len(self.choices) == 1

    @property
    def ordered(self) -> bool:
        """Whether the values have an order: numbers, in a range or as choices."""
        return self.choices is None or all(type(each) in (int, float) for each in self.choices)

    @property
    def spoken(self) -> str:
        """The values in a line, and what they hang on."""
        if self.choices is not None:
            values = ", ".join(map(_text, self.choices))
        else:
            values = f"{self.low:g} to {self.high:g}" + (", log" if self.log else "")
            values += f", by {self.step:g}" if self.step is not None else ""
        conditions = [f"{name} is {' or '.join(map(_text, given))}" for name, given in self.when.items()]
        return values + (f"; where {' and '.join(conditions)}" if conditions else "")

    def distribution(self) -> BaseDistribution:
        """As Optuna has it. Choices are told as JSON, which may be lists and mappings too."""
        return distribution(vars(self), _text)

    def told(self, value: Any) -> Any:
        """A value as its distribution has it."""
        return value if self.choices is None else _text(value)

    def holds(self, value: Any) -> bool:
        """Whether a number is in the range, and on its step."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-9)


@dataclass(frozen=True)
class Space:
    """Parameters by dotted field, in the order in which they are asked: as given, after all they hang on."""

    parameters: Mapping[str, Parameter]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ConfigError("space: expected at least one parameter, got none")
        object.__setattr__(self, "parameters", _in_order(self.parameters))

    def asked(self, name: str, point: Point) -> bool:
        """Whether the parameter is to be asked, given those before it."""
        if any(point.get(switch, "") in (None, NONE) for switch in switches(name)):
            return False
        conditions = self.parameters[name].when
        return all(
            other in point and any(same(point[other], value) for value in values)
            for other, values in conditions.items()
        )

    def compared(self, point: Point) -> dict[str, Any]:
        """The part of a point that is compared."""
        return {name: value for name, value in point.items() if self.parameters[name].role == "compared"}


def parse_space(data: Any, usual: Mapping[str, Any] | None = None) -> Space:
    """A space from plain data, laid over a usual one: its parameters fixed, narrowed, widened, or left out.

    Args:
        data: by dotted field a parameter, a value (fixed), or null (left out: as the base has it).

    Raises:
        ConfigError: naming the parameter, what it takes, and the value received.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"space: expected a mapping of parameters by dotted field, got {data!r}")
    merged = {**(usual or {}), **data}
    parameters = {
        str(name): build(Parameter, given, f"space.{name}")
        if isinstance(given, Mapping)
        else Parameter(choices=(given,))
        for name, given in merged.items()
        if given is not None
    }
    return Space(parameters)


def suggest(space: Space, trial: Trial) -> dict[str, Any]:
    """A point: each parameter asked of the trial in order, but those that the ones before rule out."""
    point: dict[str, Any] = {}
    for name, parameter in space.parameters.items():
        if not space.asked(name, point):
            continue
        if parameter.choices is not None:
            choices = [_text(choice) for choice in parameter.choices]
            point[name] = json.loads(trial.suggest_categorical(name, choices))
        elif parameter.whole:
            point[name] = trial.suggest_int(
                name, parameter.low, parameter.high, step=parameter.step or 1, log=parameter.log
            )
        else:
            point[name] = trial.suggest_float(
                name, parameter.low, parameter.high, step=parameter.step, log=parameter.log
            )
    return point


def distributions(space: Space, point: Point) -> dict[str, BaseDistribution]:
    """The distributions of a point's parameters."""
    return {name: space.parameters[name].distribution() for name in point}


def told(space: Space, point: Point) -> dict[str, Any]:
    """The point as Optuna has it."""
    return {name: space.parameters[name].told(value) for name, value in point.items()}


def spoken(point: Point) -> str:
    """A point in a line, each field by the end of its name that no other shares: "rank 4, alpha 8"."""
    values = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in point.items()}
    return ", ".join(f"{_ending(name, point)} {value}" for name, value in values.items())


def same(one: Any, other: Any) -> bool:
    """Whether two values of plain data say the same: 8 and 8.0 do, 1 and true do not."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _ending(name: str, names: Iterable[str]) -> str:
    """`rank` of `low_rank.rank`, but `schedule.kind` where there is another `kind`."""
    parts = name.split(".")
    endings = (".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
    others = [other for other in names if other != name]
    return next(
        (each for each in endings if not any(f".{other}".endswith(f".{each}") for other in others)), name
    )


def places(name: str) -> list[str]:
    """`low_rank.tasks.sst` stands in `low_rank` and in `low_rank.tasks`."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def switches(name: str) -> list[str]:
    """The fields that may leave a field out, as `low_rank` and `low_rank.kind` do with `low_rank.rank`."""
    found = [each for place in places(name) for each in (place, *(f"{place}.{last}" for last in SWITCHES))]
    return [each for each in found if each != name]


def _in_order(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The parameters as they are given, but each after those that say whether it is asked."""
    hanging = {
        name: {*each.when, *(switch for switch in switches(name) if switch in parameters)}
        for name, each in parameters.items()
    }
    for name, others in hanging.items():
        for other in others:
            if other not in parameters:
                raise ConfigError(
                    f"space.{name}.when.{other}: expected another parameter of the space, got none"
                )
    placed: dict[str, Parameter] = {}
    while len(placed) < len(parameters):
        left = (name for name in parameters if name not in placed)
        free = next((name for name in left if hanging[name] <= placed.keys()), None)
        if free is None:
            circle = ", ".join(name for name in parameters if name not in placed)
            raise ConfigError(f"space: expected some of these to hang on no other by `when`, got {circle}")
        placed[free] = parameters[free]
    return placed


def _number(name: str, value: Any) -> int | float | None:
    """A bound, which is a finite number if it is given."""
    value = _untexted(value)
    if value is None:
        return None
    if isinstance(value, str):
        raise ConfigError(f".{name}: expected a number, got {value!r}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f".{name}: expected a finite number, got {value!r}")
    return value


def _untexted(value: Any) -> Any:
    """A value as the configuration has it: YAML reads 1e-3, without a point, as text."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
