"""What a sweep's workers are given, and what those of one machine share in files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbert.configuration import parse
from mtbert.inputs import Inputs
from mtbert.records import Ended
from mtbert.run import Run
from mtbert.schema import ConfigError
from sweeps.publish import LoadedMaterial
from sweeps.session import SessionError, session

PROBE = {"training": {"steps": 4, "dropout": {"backbone": 0.0}}}


@pytest.fixture(scope="module")
def material() -> LoadedMaterial:
    return LoadedMaterial(Inputs(limit={"all": 24}))


def trained(material: LoadedMaterial, folder: Path) -> Ended:
    """A probe's ending, trained by a worker that was told of a folder."""
    trainer = material.trainer(material.parcel("cpu") | {"folder": str(folder)})
    run = Run(parse(PROBE), 0, material.data, material.model)
    trainer.admit(run, None)
    events: list[Any] = []
    while trainer.members:
        events += trainer.advance(60)
    assert isinstance(events[-1], Ended)
    return events[-1]


def test_probes_of_one_machine_share_features_in_the_sweep_s_folder(
    material: LoadedMaterial, tmp_path: Path
) -> None:
    first = trained(material, tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert {name.split(".")[0] for name in files} == {"sst", "para", "sts"}
    assert {name.rsplit(".", 1)[1] for name in files} == {"values", "filled"}
    second = trained(material, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == files
    assert second.weights == first.weights


def test_where_the_folder_is_not_there_a_worker_keeps_its_features_to_itself(
    material: LoadedMaterial, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "of another machine"
    here = tmp_path / "here"
    here.mkdir()
    assert trained(material, elsewhere).weights == trained(material, here).weights
    assert not elsewhere.exists()


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that connect to nothing."""
    connect: Callable[..., None] = lambda *_: None  # noqa: E731
    monkeypatch.setattr("sweeps.session._connect", connect)


@pytest.mark.usefixtures("no_ray")
def test_what_workers_share_ends_with_the_session() -> None:
    with session("127.0.0.1:1") as found:
        (found.shared / "features").write_bytes(b"\0")
    assert not found.folder.exists()


@pytest.mark.usefixtures("no_ray")
def test_workers_of_a_ray_of_our_own_get_their_turns_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    niceness = "RAY_worker_niceness"
    monkeypatch.delenv(niceness, raising=False)
    with session(None):
        assert os.environ[niceness] == "0"
    monkeypatch.setenv(niceness, "19")
    with session(None):
        assert os.environ[niceness] == "19"


@pytest.mark.usefixtures("no_ray")
def test_a_missing_folder_for_ray_is_made_and_what_is_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "new" / "folder"))
    with session("127.0.0.1:1") as found:
        assert found.folder.parent == tmp_path / "new" / "folder"
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    refused = pytest.raises(
        SessionError, match=r"RAY_TMPDIR: no folder can be made in '.*file' \(File exists\)"
    )
    with refused, session("127.0.0.1:1"):
        pass


def test_parameters_are_counted_over_the_tasks_that_are_trained(material: LoadedMaterial) -> None:
    hidden = material.parcel("cpu")["config"].hidden_size
    assert material.count(parse({})).trainable == 7 * (hidden + 1)
    assert material.count(parse({"training": {"tasks": ["sst"]}})).trainable == 5 * (hidden + 1)


def test_a_run_that_trains_nothing_is_refused_before_anything_starts(material: LoadedMaterial) -> None:
    heads = {"tasks": {"sts": {"kind": "relu_cosine"}}}
    lone = {"heads": heads, "pairs": {"encoding": "separate"}, "training": {"tasks": ["sts"]}}
    with pytest.raises(ConfigError, match="nothing to train"):
        material.count(parse(lone))
    assert material.count(parse({**lone, "biases": "trained"})).parts["heads"] == (0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation": {"keep": "nosuch"}},
            "evaluation.keep: 'nosuch' is none of the trained tasks, sst, para",
        ),
        ({"smart": {"weights": {"nosuch": 2}}}, "smart.weights: 'nosuch'"),
        ({"training": {"tasks": ["sst"]}, "evaluation": {"keep": "sts"}}, "evaluation.keep: 'sts'"),
    ],
)
def test_a_task_that_no_run_trains_is_refused_before_anything_starts(
    changes: dict[str, Any], message: str, material: LoadedMaterial
) -> None:
    with pytest.raises(ConfigError, match=message):
        material.count(parse(changes))
