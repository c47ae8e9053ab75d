"""The hub reader against a stand-in, in a process of its own: the client reads HF_ENDPOINT only once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mtbert.data.errors import DataError
from mtbert.data.load import load
from tests.mtbert.data.files import declare
from tests.mtbert.data.hub_stand_in import repositories, serving

needs_library = pytest.mark.skipif(find_spec("datasets") is None, reason="datasets (extra hub) is missing")

QUESTIONS = {
    split: {
        "question1": [f"{split} one {at}" for at in range(200)],
        "question2": [f"{split} two {at}" if at != 7 else "" for at in range(200)],
        "label": [-1 if split == "test" else at % 2 for at in range(200)],
    }
    for split in ("train", "validation", "test")
}
SIMILAR = {
    split: {
        "sentence1": [f"{split} a", f"{split} b", f"{split} c"],
        "sentence2": ["x", "y", "z"],
        "label": [-1.0] * 3 if split == "test" else [4.6, 0.0, 5.0],
    }
    for split in ("train", "validation", "test")
}
FILMS = {
    split: [{"text": f"{split} {at}", "label": at, "label_text": "words"} for at in range(5)]
    for split in ("train", "validation", "test")
}
PROGRAM = """
import json, sys
from mtbert.data.errors import DataError
from mtbert.data.load import load
found = {}
for source in sys.argv[1:]:
    try:
        dataset = load(source)
    except DataError as error:
        found[source] = str(error)
        continue
    found[source] = {
        "notices": dataset.notices,
        **{
            f"{task} {split}": [[each.example_id, each.first, each.second, each.label] for each in examples]
            for (task, split), examples in dataset.examples.items()
        },
    }
print(json.dumps(found))
"""
BROKEN: dict[str, dict[str, Any]] = {
    "dataset": {"hub": {"repository": "nobody/nothing"}},
    "config": {"hub": {"repository": "nyu-mll/glue", "config": "nonesuch"}},
    "split": {"hub": {"repository": "SetFit/sst5", "splits": {"train": "train", "dev": "held"}}},
    "column": {"hub": {"repository": "SetFit/sst5"}, "columns": {"first": "sentence"}},
    "label": {"hub": {"repository": "SetFit/sst5"}, "classes": 4},
    "text": {"hub": {"repository": "SetFit/sst5"}, "columns": {"first": "label"}},
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What loading `hub`, and each broken declaration, gave."""
    folder = tmp_path_factory.mktemp("hub")
    sources = {"hub": "hub"}
    for name, changes in BROKEN.items():
        (folder / name).mkdir()
        task = {"name": "films", "kind": "classification", "sentences": 1, "classes": 5}
        sources[name] = str(declare(folder / name, task | {"columns": {"first": "text"}} | changes))
    with serving(repositories(QUESTIONS, SIMILAR, FILMS)) as address:
        environment = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HOME": str(folder / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(Path(__file__).parents[3]),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *sources.values()],
            env={name: value for name, value in environment.items() if name != "HF_HUB_OFFLINE"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[source] for name, source in sources.items()}


@needs_library
def test_sentiment_has_its_five_classes_and_numbered_examples(answers: dict[str, Any]) -> None:
    for split, theirs in (("train", "train"), ("dev", "validation"), ("test", "test")):
        assert answers["hub"][f"sst {split}"] == [
            [f"{split}-{at + 1}", f"{theirs} {at}", None, float(at)] for at in range(5)
        ]


@needs_library
def test_similarities_are_on_their_published_scale_without_float32_remains(answers: dict[str, Any]) -> None:
    assert [each[3] for each in answers["hub"]["sts dev"]] == [4.6, 0.0, 5.0]
    assert answers["hub"]["sts train"][0] == ["0", "train a", "x", 4.6]


@needs_library
def test_hidden_test_labels_are_none_rather_than_minus_one(answers: dict[str, Any]) -> None:
    for task, count in (("para", 200 - 1), ("sts", 3)):
        assert [each[3] for each in answers["hub"][f"{task} test"]] == [None] * count


@needs_library
def test_questions_are_pairs_and_an_incomplete_one_is_told_by_its_row(answers: dict[str, Any]) -> None:
    found = answers["hub"]["para dev"]
    assert len(found) == 199
    assert found[7] == ["8", "validation one 8", "validation two 8", 0.0]
    said = "hub nyu-mll/glue/qqp validation: 1 of 200 rows lack a sentence or a label and are skipped: row 7"
    assert f"{said} (no question2)" in answers["hub"]["notices"]


@needs_library
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("dataset", "hub nobody/nothing: not read"),
        ("config", "hub nyu-mll/glue/nonesuch: not read"),
        ("split", "hub SetFit/sst5: expected a split 'held', got train, validation, test"),
        ("column", "hub SetFit/sst5 train: expected a column 'sentence', got 'text', 'label', 'label_text'"),
        ("label", "hub SetFit/sst5 train, row 4, column 'label': expected a whole number from 0 to 3, got 4"),
        ("text", "hub SetFit/sst5 train, row 0, column 'label': expected text, got 0"),
    ],
)
def test_what_the_hub_lacks_is_said(broken: str, said: str, answers: dict[str, Any]) -> None:
    assert str(answers[broken]).startswith(said)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'mtbert\[hub\]'"):
        load("hub")
