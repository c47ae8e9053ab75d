"""What a training is fed: which base model, which data, and how much of it. A file may hold it all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mtbert.schema import ConfigError, build, constrained

if TYPE_CHECKING:
    from mtbert.data.examples import Dataset

ALL_TASKS = "all"


@dataclass(frozen=True)
class Inputs:
    """Where base model and data come from. Their contents' fingerprints, not these names, enter a run's id.

    `limit`: training examples by task, or under `all` for every task. `holdout`: the part of train
    that nothing trains or selects on.
    """

    model: str = "demo"
    data: str = "demo"
    limit: Mapping[str, int] = constrained({}, at_least=1)
    holdout: float = constrained(0.0, at_least=0, below=1)
    cfimdb: Literal["leave", "task", "join"] = "leave"

    def dataset(self) -> Dataset:
        """The examples, read and checked.

        Raises:
            DataError: a file that is missing or broken.
        """
        from mtbert.data.load import load

        limit = self.limit[ALL_TASKS] if set(self.limit) == {ALL_TASKS} else (self.limit or None)
        return load(self.data, limit=limit, holdout=self.holdout, cfimdb=self.cfimdb)


def parse_inputs(data: Mapping[str, Any]) -> Inputs:
    """Inputs from plain data.

    Raises:
        ConfigError: naming the field.
    """
    inputs = build(Inputs, data, "inputs")
    if ALL_TASKS in inputs.limit and len(inputs.limit) > 1:
        raise ConfigError(f"inputs.limit: expected {ALL_TASKS!r} or names of tasks, got both")
    return inputs


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A YAML file's fields as plain data: those of the inputs, and the others.

    Raises:
        ConfigError: the file is missing, or not a YAML mapping.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of fields, got {type(data).__name__}")
    names = {field.name for field in fields(Inputs)}
    inputs = {key: value for key, value in data.items() if key in names}
    return inputs, {key: value for key, value in data.items() if key not in names}


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds; an empty one is an empty mapping.

    Raises:
        ConfigError: the file is missing, or not YAML.
    """
    import yaml

    from mtbert import plain_yaml

    try:
        data = plain_yaml.load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return {} if data is None else data


def parse_limit(text: str) -> dict[str, int]:
    """`1000` for every task, or `sst=1000,para=500`.

    Raises:
        ConfigError: neither.
    """
    limits: dict[str, int] = {}
    for part in text.split(","):
        task, _, number = part.rpartition("=")
        if not number.strip().isdigit() or ("," in text and not task):
            raise ConfigError(f"--limit: expected a number or task=number,…, got {text!r}")
        limits[task.strip() or ALL_TASKS] = int(number)
    return limits


def parse_assignments(texts: Iterable[str], flag: str = "--set") -> dict[str, Any]:
    """`low_rank.rank=4` as a value by dotted field, read as YAML reads it.

    Args:
        flag: that gave them.

    Raises:
        ConfigError: no such assignment.
    """
    import yaml

    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{flag}: expected field=value, got {text!r}")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"{flag}: expected {name}=value as YAML has it, got {text!r}") from None
    return values
