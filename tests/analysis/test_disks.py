"""Disks that are full, read-only or gone: told with the path and the way out, and nothing half-written."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.query import query
from analysis.store import Fenced, StoreError, Writer, read, weights_path
from tests.analysis.ledgers import ending, evaluation, predictions, run_json, train


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB of its own, which takes root to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (4096, 1):
            with pytest.raises(OSError, match="No space left"):
                write_on(file, b"x" * size)
    return filler


def write_on(file: io.FileIO, data: bytes) -> None:
    while True:
        file.write(data)


def evaluate(writer: Writer, attempt: int, steps: range) -> None:
    for step in steps:
        writer.evaluation("c1-1", attempt, evaluation(step))


def test_a_full_disk_is_told_and_costs_nothing_that_was_stored(small_disk: Path) -> None:
    results = small_disk / "results"
    with Writer(results, "first") as writer:
        train(writer, run_json(), ending())
        attempt = writer.begin(run_json(seed=1)).attempt
        assert attempt is not None
        filler = fill(small_disk)
        with pytest.raises(StoreError, match=r"cannot write .*segments.*the disk is full"):
            evaluate(writer, attempt, range(1, 200))  # the last page of the segment has room for some
        for write in (
            lambda: writer.checkpoint("c1-1", attempt, 500, b"x" * 9000),
            lambda: writer.end("c1-1", attempt, ending(), predictions(), b"x" * 9000),
            lambda: writer.compact(),
            lambda: Writer(results, "second"),
        ):
            with pytest.raises(StoreError, match="the disk is full: free some space"):
                write()
        state = read(results)
        assert state.notices == ()  # not even a torn line
        assert (state.runs["c1-0"].status, state.runs["c1-1"].status) == ("completed", "running")
        assert not weights_path(results, "c1-1").exists()
        filler.unlink()
        writer.end("c1-1", attempt, ending(), predictions(), b"weights of c1-1")
        writer.compact()
        assert list(results.rglob("*.tmp")) == []
    assert {run.status for run in read(results).runs.values()} == {"completed"}


def test_a_read_only_folder_is_read_and_asked_but_not_written(small_disk: Path) -> None:
    results = small_disk / "results"
    with Writer(results, "first") as writer:
        train(writer, run_json(), ending())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert read(results).runs["c1-0"].status == "completed"
    answer = query(results, "select run_id, status from runs")
    assert answer.to_pylist() == [{"run_id": "c1-0", "status": "completed"}]
    with pytest.raises(StoreError, match=r"first.*read-only|read-only"):
        Writer(results, "first")


def test_a_folder_removed_while_in_use_is_told(results: Path) -> None:
    writer = Writer(results, "first")
    train(writer, run_json(), ending())
    os.rename(results, results.with_name("elsewhere"))
    with pytest.raises(StoreError, match=r"ledger/lock: no such file or folder: it was removed while in use"):
        writer.begin(run_json(seed=1))
    with pytest.raises(Fenced):
        writer.evaluation("c1-0", 1, evaluation(200))
    writer.close()
