"""Results at a URI: on stores of objects, from several machines, each with a copy of its own."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.store import StoreError, Writer, read, read_weights, remote, weights_path
from analysis.store.files import Layout, is_uri, whole_name
from analysis.store.remote import FRESH_SECONDS, Remote, remote_of
from tests.analysis.ledgers import ending, evaluation, run_json, train
from tests.conftest import S3_KEYS

Machine = Callable[[str], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Goes to a machine of some name, with a copy of its own, where nobody has read anything yet."""
    monkeypatch.setattr(remote, "PULL_SECONDS", 0.0)

    def go(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        monkeypatch.setattr(socket, "gethostname", lambda: name)

    go("head")
    return go


@pytest.fixture(params=["s3", "gs"])
def uri(request: pytest.FixtureRequest, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: ARG001 - first a machine
    for name, value in S3_KEYS.items():
        monkeypatch.setenv(name, value)
    place: Callable[[], str] = request.getfixturevalue(request.param)
    return place()


def there(uri: str) -> set[str]:
    return set(Remote(Layout.of(uri))._there())


def test_what_one_machine_has_written_another_reads(
    uri: str, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    with Writer(uri) as writer:
        train(writer, run_json("c1"), ending(score=0.7))
        train(writer, run_json("c2"), ending(score=0.6))
        writer.compact()
    written = read(uri)
    machine("laptop")
    found = read(uri)
    assert found.runs == written.runs
    assert not weights_path(uri, "c1-0").exists()
    assert read_weights(uri, found.runs["c1-0"]) == b"weights of c1-0"
    assert main(["best", uri, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["config_id"] for row in rows] == ["c1", "c2"]
    assert main(["sql", uri, "select count(*) as n from predictions"]) == 0
    assert "4" in capsys.readouterr().out


def test_a_sweep_is_followed_while_it_runs(uri: str, machine: Machine) -> None:
    with Writer(uri) as writer:
        attempt = writer.begin(run_json("c1")).attempt
        assert attempt is not None
        for step in (10, 20):
            writer.evaluation("c1-0", attempt, evaluation(step))
            writer.checkpoint("c1-0", attempt, step, b"at %d" % step)
            remote_of(writer.layout).push()
            machine("laptop")
            run = read(uri).runs["c1-0"]
            assert run.status == "running"
            assert run.checkpoint_step == step
            assert [each["step"] for each in run.evaluations] == list(range(10, step + 1, 10))
            machine("head")
        assert {name for name in there(uri) if name.startswith("checkpoints/")} == {
            "checkpoints/c1-0@20.1.safetensors"
        }
        writer.end("c1-0", attempt, ending(), {}, b"")
    assert not any(name.startswith(("checkpoints/", "ledger/drivers/")) for name in there(uri))


def test_another_machine_goes_on_where_one_was_lost(
    uri: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Writer(uri, "lost")
    attempt = lost.begin(run_json("c1")).attempt
    assert attempt == 1
    lost.checkpoint("c1-0", 1, 50, b"half of it")
    remote_of(lost.layout).push()
    machine("other")
    with pytest.raises(StoreError, match=r"driver lost of host head writes there, last seen \d+ s ago"):
        Writer(uri)
    later = time.time() + FRESH_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    with Writer(uri) as writer:
        assert writer.begin(run_json("c1")).attempt == 2
        assert writer.load_checkpoint("c1-0") == (50, b"half of it")
        writer.end("c1-0", 2, ending(), {}, b"")
    assert read(uri).runs["c1-0"].status == "completed"
    machine("head")
    lost.close()
    assert read(uri).runs["c1-0"].status == "completed"


def test_what_a_killed_driver_had_not_sent_goes_with_the_next(uri: str, machine: Machine) -> None:
    with Writer(uri) as writer:
        train(writer, run_json("c1"), ending())
    with Writer(Layout.of(uri).results) as unsent:
        train(unsent, run_json("c2"), ending())
    with Writer(uri) as writer:
        assert writer.begin(run_json("c2")).refused == "ended"
    machine("laptop")
    assert set(read(uri).runs) == {"c1-0", "c2-0"}


def test_a_place_that_cannot_be_reached_is_told_and_what_was_written_is_kept(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = re.sub(r"bucket[-\d]*", "no-such-bucket", uri)
    with pytest.raises(StoreError, match=rf"cannot write {re.escape(elsewhere)}.*check the address and the"):
        Writer(elsewhere)
    with pytest.raises(StoreError, match="cannot read nonsense://x: Unrecognized filesystem type"):
        read("nonsense://x")
    writer = Writer(uri)
    train(writer, run_json("c1"), ending())

    def refused(*_: object) -> None:
        raise OSError("the network is gone")

    with monkeypatch.context() as cut:
        cut.setattr(Remote, "_send", refused)
        with pytest.raises(StoreError, match=rf"cannot write {re.escape(uri)}.*the network is gone.*copy is"):
            writer.close()
    assert set(read(Layout.of(uri).results).runs) == {"c1-0"}
    with Writer(uri):
        pass
    assert any(name.startswith("ledger/segments/") for name in there(uri))


def test_a_folder_and_a_uri_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_uri("results")
    assert whole_name("results") == str(tmp_path / "results")
    assert whole_name("s3://bucket/results") == "s3://bucket/results"
