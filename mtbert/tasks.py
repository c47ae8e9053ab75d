"""A task as a declaration: what its examples look like, where they lie, and how its metric enters the score.

Tasks are read from YAML, never written in code: `data/cs224n.yaml` declares those of the published reports
and shows every field that a task of one's own may have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from mtbert import plain_yaml
from mtbert.data.errors import DataError
from mtbert.schema import ConfigError, build, constrained

SPLITS = ("train", "dev", "test")
_RESERVED = (
    "all",
    "score",
    "unscaled",
    "last",
    "shared",
)  # what else a configuration can name in their place


@dataclass(frozen=True)
class Columns:
    """The names of a task's columns. Without `id`, examples are numbered; columns not named are ignored."""

    first: str
    second: str | None = None
    label: str = "label"
    id: str | None = None


@dataclass(frozen=True)
class More:
    """One more file of training examples, with columns and labels of its own where they differ."""

    file: str
    columns: Columns | None = None
    labels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Hub:
    """A dataset on the hub. `splits` maps this project's names of splits to the dataset's."""

    repository: str
    config: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "dev": "validation"})

    def __post_init__(self) -> None:
        _check_splits(self.splits, ".splits")


@dataclass(frozen=True)
class Task:
    """One task of the multitask model.

    Attributes:
        sentences: one, or a pair.
        classes: of a classification, labelled 0 to classes - 1.
        low, high: the range of a regression's labels, as the model sees them.
        metric: what dev is judged by: accuracy, or a regression's Pearson correlation.
        score: how the metric x enters the score: as it is, or as (1 + x)/2.
        columns, files, delimiter, quoted: of delimited text files, one for each split; paths are relative
            to the folder that is read. A file that never quotes fields is read with `quoted: false`.
        also: further training files, such as another task's with its labels mapped to this one's.
        hub: where the task lies on the hub, instead of files.
        labels: a class's number by the label's text, where the files hold no numbers or other ones.
        source_range: the range of a regression's labels in the files, where it is not low to high.
        unlabelled: the number that stands for "no label" in the files.
    """

    name: str
    kind: Literal["classification", "binary", "regression"]
    sentences: Literal[1, 2]
    classes: int | None = constrained(None, at_least=2)
    low: float | None = None
    high: float | None = None
    metric: Literal["accuracy", "pearson"] = "accuracy"
    score: Literal["identity", "half_up"] = "identity"
    columns: Columns | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = "\t"
    quoted: bool = True
    also: tuple[More, ...] = ()
    hub: Hub | None = None
    labels: Mapping[str, float] = field(default_factory=dict)
    source_range: tuple[float, ...] | None = None
    unlabelled: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", self.name) or self.name in _RESERVED:
            raise ConfigError(
                f".name: expected a word of letters, digits, _ and -, other than {', '.join(_RESERVED)}; "
                f"got {self.name!r}"
            )
        self._check_kind()
        self._check_labels(self.labels, ".labels")
        self._check_source()
        for index, more in enumerate(self.also):
            self._check_labels(more.labels, f".also[{index}].labels")
            self._check_columns(more.columns, f".also[{index}].columns")

    @property
    def outputs(self) -> int:
        """The width of its linear head: a logit for each class, or one logit or value."""
        return self.classes if self.classes is not None else 1

    @property
    def label_range(self) -> tuple[float, float]:
        """Lowest and highest label of a regression."""
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name}: a {self.kind} has no range")
        return self.low, self.high

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all that an evaluation says of it."""
        return ("loss", "pearson", "mse") if self.kind == "regression" else ("loss", "accuracy")

    def scored(self, metric: float) -> float:
        """The metric as it enters the score."""
        return metric if self.score == "identity" else (1 + metric) / 2

    def _check_kind(self) -> None:
        regression = self.kind == "regression"
        if (self.classes is not None) != (self.kind == "classification"):
            wanted = "the number of classes" if self.kind == "classification" else "none"
            raise ConfigError(f".classes: expected {wanted} for kind {self.kind}, got {self.classes!r}")
        if (self.metric == "pearson") != regression:
            wanted = "pearson" if regression else "accuracy"
            raise ConfigError(f".metric: expected {wanted} for kind {self.kind}, got {self.metric!r}")
        if not regression and (self.low, self.high, self.source_range) != (None, None, None):
            raise ConfigError(f".low, .high, .source_range: only a regression has a range, not {self.kind}")
        if regression and (self.low is None or self.high is None or not self.low < self.high):
            raise ConfigError(
                f".low, .high: expected the range of the labels, got {self.low!r} to {self.high!r}"
            )
        found = self.source_range
        if found is not None and (len(found) != 2 or not found[0] < found[1]):
            raise ConfigError(f".source_range: expected [lowest, highest], got {list(found)!r}")

    def _check_labels(self, labels: Mapping[str, float], where: str) -> None:
        if not labels:
            return
        if self.kind == "regression":
            raise ConfigError(f"{where}: only classes can be mapped; for another scale give source_range")
        known = range(self.classes or 2)
        for text, value in labels.items():
            if value not in known:
                raise ConfigError(f"{where}.{text}: expected a class from 0 to {known[-1]}, got {value!r}")

    def _check_source(self) -> None:
        if self.files and self.hub is not None:
            raise ConfigError(".hub: give files or hub, got both")
        if (self.files or self.hub) and self.columns is None:
            raise ConfigError(".columns: expected the names of the columns, got none")
        if self.also and not self.files:
            raise ConfigError(".also: further files need files")
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise ConfigError(f".delimiter: expected one character, got {self.delimiter!r}")
        _check_splits(self.files, ".files")
        self._check_columns(self.columns, ".columns")

    def _check_columns(self, columns: Columns | None, where: str) -> None:
        if columns is not None and (columns.second is None) != (self.sentences == 1):
            wanted = "no second column" if self.sentences == 1 else "the second sentence's column"
            raise ConfigError(
                f"{where}.second: expected {wanted} with sentences: {self.sentences}, got {columns.second!r}"
            )


def score(tasks: Mapping[str, Task], metrics: Mapping[str, float | None]) -> float | None:
    """The mean over the tasks of each one's metric as it enters the score; None where one is None."""
    found = {name: metrics[name] for name in tasks}
    return _mean([None if value is None else tasks[name].scored(value) for name, value in found.items()])


def unscaled(tasks: Mapping[str, Task], metrics: Mapping[str, float | None]) -> float | None:
    """The mean over the tasks of their metrics as they are; None where one is None."""
    return _mean([metrics[name] for name in tasks])


def read_tasks(path: Path) -> dict[str, Task]:
    """The tasks that a YAML file declares under `tasks`, by name, in its order.

    Raises:
        DataError: the file is missing, or not YAML of that form.
        ConfigError: naming the field of a task that cannot be.
    """
    try:
        data = plain_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not YAML: {error}") from None
    if not isinstance(data, dict) or set(data) != {"tasks"} or not isinstance(data["tasks"], list):
        raise DataError(f"{path}: expected a list of declarations under 'tasks:', and nothing beside it")
    if not data["tasks"]:
        raise DataError(f"{path}: declares no task")
    tasks: dict[str, Task] = {}
    for index, declaration in enumerate(data["tasks"]):
        task = _build_task(declaration, f"{path}: tasks[{index}]")
        if task.name in tasks:
            raise DataError(f"{path}: tasks[{index}].name: {task.name!r} is declared twice")
        tasks[task.name] = task
    return tasks


def _build_task(declaration: Any, where: str) -> Task:
    if isinstance(declaration, dict):
        _check_labels_read(declaration, where)
        also = declaration.get("also")
        for index, more in enumerate(also if isinstance(also, list) else ()):
            if isinstance(more, dict):
                _check_labels_read(more, f"{where}.also[{index}]")
    return build(Task, declaration, where)


def _check_labels_read(declaration: Mapping[str, Any], where: str) -> None:
    labels = declaration.get("labels")
    for key in labels if isinstance(labels, dict) else ():
        if isinstance(key, bool):  # read from an unquoted yes, no, on or off
            raise ConfigError(f"{where}.labels: YAML reads {key!r} here; put that label in quotation marks")


def _check_splits(splits: Mapping[str, str], where: str) -> None:
    for name in splits:
        if name not in SPLITS:
            raise ConfigError(f"{where}.{name}: expected one of {', '.join(SPLITS)}")
    missing = [name for name in ("train", "dev") if name not in splits]
    if splits and missing:
        raise ConfigError(f"{where}: lacks {' and '.join(missing)}")


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
