"""Small data files and declarations of tasks, written as a user would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

Row = Sequence[object]

REVIEWS: dict[str, Any] = {
    "name": "reviews",
    "kind": "classification",
    "sentences": 1,
    "classes": 3,
    "columns": {"id": "key", "first": "text", "label": "stars"},
    "files": {"train": "train.tsv", "dev": "dev.tsv"},
}
HEADER = "key\ttext\tstars\n"


def rows(count: int, first: int = 0) -> str:
    """Rows of the task REVIEWS, each with a text and an id of its own."""
    return "".join(f"k{at}\ttext number {at}\t{at % 3}\n" for at in range(first, first + count))


def reviews(
    folder: Path, train: str | bytes | None = None, dev: str | bytes | None = None, **changes: Any
) -> Path:
    """A YAML file that declares REVIEWS with `changes`, its two files beside it; whole ones unless given."""
    for name, content in (("train.tsv", train), ("dev.tsv", dev)):
        if content is None:
            content = HEADER + (rows(10) if name == "train.tsv" else rows(5, 1000))
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return declare(folder, {**REVIEWS, **changes})


def declare(folder: Path, *tasks: dict[str, Any]) -> Path:
    """A YAML file that declares these tasks."""
    path = folder / "tasks.yaml"
    path.write_text(yaml.safe_dump({"tasks": list(tasks)}, sort_keys=False), encoding="utf-8")
    return path


def cs224n_folder(folder: Path, *, cfimdb: bool = True) -> Path:
    """A folder with all files of the CS 224N project, in little, with their unnamed columns."""
    _table(
        folder / "ids-sst-train.csv", ("sentence", "sentiment"), [(f"film {at}", at % 5) for at in range(20)]
    )
    _table(folder / "ids-sst-dev.csv", ("sentence", "sentiment"), [(f"show {at}", at % 5) for at in range(6)])
    text = "0\t\tid\tsentence\n" + "".join(f"{at}\t{at}.0\ttest{at}\t unseen {at}\n" for at in range(1, 4))
    (folder / "ids-sst-test-student.csv").write_text(text, encoding="utf-8")
    pair = ("sentence1", "sentence2")
    for name, label, scale in (("quora", "is_duplicate", 2), ("sts", "similarity", 6)):
        for split, count in (("train", 12), ("dev", 5)):
            found = [(f"{split} one {at}", f"{split} two {at}", float(at % scale)) for at in range(count)]
            _table(folder / f"{name}-{split}.csv", (*pair, label), found)
        _table(folder / f"{name}-test-student.csv", pair, [("a b", "c d"), ("e f", "g h")])
    if cfimdb:
        for split, count in (("train", 8), ("dev", 4)):
            reviewed = [(f"{split} review {at}", at % 2) for at in range(count)]
            _table(folder / f"ids-cfimdb-{split}.csv", ("sentence", "sentiment"), reviewed)
    return folder


def _table(path: Path, columns: Sequence[str], found: Sequence[Row]) -> None:
    lines = ["\t".join(("", "id", *columns))]
    lines += ["\t".join((str(at), f"{path.stem}{at}", *map(str, row))) for at, row in enumerate(found)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
