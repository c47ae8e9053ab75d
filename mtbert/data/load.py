"""Reads whatever data was asked for, checks all of it, and says what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mtbert.data.errors import DataError
from mtbert.data.examples import Dataset, Example, fingerprint, hold_out, limited, overlapping
from mtbert.data.files import read_files
from mtbert.data.hub import read_hub
from mtbert.schema import ConfigError
from mtbert.tasks import Task, read_tasks

CFIMDB = "cfimdb"
_CS224N = Path(__file__).parent / "cs224n.yaml"
_HUB = Path(__file__).parent / "hub.yaml"
_Examples = dict[tuple[str, str], list[Example]]


def load(
    source: str,
    *,
    limit: int | Mapping[str, int] | None = None,
    holdout: float = 0.0,
    cfimdb: Literal["leave", "task", "join"] = "leave",
) -> Dataset:
    """The examples of all tasks of a source, read and checked.

    Args:
        source: `demo`, `hub`, a folder with the CS 224N files, or a YAML file that declares tasks.
        limit: training examples of each task, or by task; a fixed choice. Dev stays whole.
        holdout: the part of train that becomes the split `holdout`; taken before the limit.
        cfimdb: of a folder's CFIMDB files: leave them, read them as a task, or join their training
            examples into sst.

    Raises:
        DataError: naming file, line and field, and what was expected.
        ConfigError: a declaration or an argument that cannot be.
    """
    if not 0 <= holdout < 1:
        raise ConfigError(f"holdout: expected a part of train, at least 0 and below 1, got {holdout!r}")
    tasks, examples, notices = _read(source, cfimdb)
    limits = _limits(tasks, limit)
    for name in tasks:
        notices += _divide(name, examples, holdout, limits.get(name))
    return Dataset(tasks, examples, tuple(notices), fingerprint(tasks, examples), source)


def _divide(task: str, examples: _Examples, holdout: float, limit: int | None) -> list[str]:
    """Takes the held-out part and what is beyond the limit out of a task's train; says so, and overlaps."""
    train, dev = examples[task, "train"], examples[task, "dev"]
    notices = []
    overlap = overlapping(train, dev)
    if overlap:
        notices.append(
            f"{task}: {overlap} of {len(dev)} dev examples are in train too "
            "(case, spacing and order of a pair aside)"
        )
    if holdout:
        train, held = hold_out(task, train, holdout)
        examples[task, "holdout"] = held
        notices.append(f"{task}: {len(held)} training examples are held out")
    if limit is not None and limit < len(train):
        notices.append(f"{task}: {limit} of {len(train)} training examples are used (limit)")
        train = limited(task, train, limit)
    examples[task, "train"] = train
    return notices


def _read(source: str, cfimdb: str) -> tuple[dict[str, Task], _Examples, list[str]]:
    path = Path(source).expanduser()
    if path.is_dir() and source not in ("demo", "hub"):
        tasks = _folder_tasks(path, cfimdb)
        return tasks, *_read_tasks(tasks, path)
    if cfimdb != "leave":
        raise ConfigError(
            f"cfimdb: {cfimdb!r} is for a folder with the CS 224N files, not for {source!r}; in a YAML file "
            "declare its task, or name its training file under `also` of another"
        )
    if source == "demo":
        return _read_demo()
    if source == "hub":
        tasks = read_tasks(_HUB)
        return tasks, *_read_tasks(tasks, path)
    if path.suffix.lower() in (".yaml", ".yml"):
        tasks = read_tasks(path)
        _check_places(tasks, path)
        return tasks, *_read_tasks(tasks, path.parent)
    raise DataError(
        f"data {source!r}: no such folder; expected demo, hub, a folder with the CS 224N files, "
        "or a YAML file that declares tasks"
    )


def _limits(tasks: Mapping[str, Task], limit: int | Mapping[str, int] | None) -> dict[str, int]:
    """The limit of each task that has one."""
    limits = dict.fromkeys(tasks, limit) if isinstance(limit, int) else dict(limit or {})
    for name, value in limits.items():
        if name not in tasks:
            raise ConfigError(f"limit: the data has no task {name!r}; it has {', '.join(tasks)}")
        if value < 1:
            raise ConfigError(f"limit: expected at least 1 example of {name}, got {value!r}")
    return limits


def _folder_tasks(folder: Path, cfimdb: str) -> dict[str, Task]:
    """The CS 224N tasks as they are to be read from this folder; test files may be absent."""
    tasks = read_tasks(_CS224N)
    if cfimdb != "task":
        del tasks[CFIMDB]
    if cfimdb != "join":
        tasks = {name: replace(task, also=()) for name, task in tasks.items()}
    for name, task in tasks.items():
        here = {
            split: file for split, file in task.files.items() if split != "test" or (folder / file).exists()
        }
        tasks[name] = replace(task, files=here)
    missing = _missing(tasks, folder)
    if missing:
        raise DataError(
            f"{folder}: lacks {', '.join(missing)}. A folder holds the files of the CS 224N project under "
            "their own names; for other files declare tasks in a YAML file and give that"
        )
    return tasks


def _check_places(tasks: Mapping[str, Task], path: Path) -> None:
    for name, task in tasks.items():
        if not task.files and task.hub is None:
            raise DataError(f"{path}: task {name} has neither files nor hub; expected where its examples lie")
    missing = _missing(tasks, path.parent)
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}; paths are relative to {path.parent}/")


def _missing(tasks: Mapping[str, Task], folder: Path) -> list[str]:
    """The declared files that are not there, each with its task and split."""
    declared = [
        (file, f"{name} {split}")
        for name, task in tasks.items()
        for split, file in [*task.files.items(), *(("train", more.file) for more in task.also)]
    ]
    return [f"{file} ({use})" for file, use in declared if not (folder / Path(file).expanduser()).is_file()]


def _read_demo() -> tuple[dict[str, Task], _Examples, list[str]]:
    from mtbert.demo import generator

    tasks = {name: replace(task, also=()) for name, task in read_tasks(_CS224N).items() if name != CFIMDB}
    return tasks, dict(generator.examples()), []


def _read_tasks(tasks: Mapping[str, Task], folder: Path) -> tuple[_Examples, list[str]]:
    examples: _Examples = {}
    notices: list[str] = []
    for name, task in tasks.items():
        found = read_hub(task, task.hub) if task.hub is not None else read_files(task, folder)
        for split, collected in found.items():
            examples[name, split] = collected.examples
            notices += collected.notices
    return examples, notices
