"""Two results folders in one: the union of their ledgers, and the files that it speaks of.

Segments are copied as they are, by their names, and replay does the rest: it takes records in any order
and any number of times, so that the order of unions, and how often each is made, make no difference. Where
both folders trained a run, its standing ending in the union decides whose weights and predictions stay.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from analysis.store.compaction import example_files
from analysis.store.errors import StoreError, told
from analysis.store.facts import Facts
from analysis.store.files import Layout, write_whole
from analysis.store.ledger import Writer
from analysis.store.locks import locked
from analysis.store.pruning import check_idle
from analysis.store.reader import Reader
from analysis.store.weights import checkpoint_path, read_checkpoint, weights_path


@dataclass(frozen=True)
class United:
    """What a folder brought: its runs that were not known, segments copied or grown, other files, bytes."""

    runs: int
    segments: int
    files: int
    size: int


def unite(writer: Writer, source: str | Path) -> United:
    """Takes a results folder in; a second time, there is nothing to do.

    Files come before the records that name them, so that a death in the middle leaves a whole folder, and
    the same call goes on. What a driver of the source had in flight when it died can be claimed here.

    Raises:
        StoreError: the source cannot be read whole, is this folder, or a driver is at work over either.
    """
    layout = Layout.of(source)
    if layout.uri is not None:
        raise StoreError(f"{source}: expected a folder of this machine; copy it here with its weights first")
    with told(layout.results, "read"):
        if layout.results.samefile(writer.layout.results):
            raise StoreError(f"{source}: is the folder that it should go into")
    check_idle(layout)
    check_idle(writer.layout, writer.driver)
    reader, target = Reader(source), Reader(writer.layout.results)
    reader.refresh()
    known = target.refresh().runs
    work = _Union(writer, layout)
    for path in example_files(layout):
        work.copy(path, writer.layout.examples / path.name, replace=False)
    for run_id, theirs in reader.replay.facts.items():
        work.files_of(run_id, target.replay.facts.get(run_id, Facts()), theirs)
    files = work.files
    with locked(writer.layout.lock):  # nobody begins a run meanwhile
        check_idle(writer.layout, writer.driver)
        for name, position in sorted(reader.positions.items()):
            work.segment(name, position.offset)
    writer.refresh()
    return United(len(reader.replay.facts.keys() - known), work.files - files, files, work.size)


class _Union:
    """The files of one source on their way, counted."""

    def __init__(self, writer: Writer, source: Layout) -> None:
        self.writer = writer
        self.target = writer.layout
        self.source = source
        self.files = 0
        self.size = 0

    def files_of(self, run_id: str, mine: Facts, theirs: Facts) -> None:
        """What the run's standing ending names, if it is the source's, and what it would go on from."""
        union = Facts()
        for record in (*mine.records(), *theirs.records()):
            union.add(record)
        standing = union.standing
        if standing is not None and standing in theirs.ends.values():
            news = standing not in mine.ends.values()
            name = standing.get("predictions")
            if name:
                self.copy(self.source.predictions / name, self.target.predictions / name, replace=news)
            if standing.get("weights") and union.pruned(standing) is None:
                path = weights_path(self.target.results, run_id)
                self.copy(weights_path(self.source.results, run_id), path, replace=news)
        run = union.state()
        checkpoint = None if run is None else run.checkpoint
        if checkpoint is not None and read_checkpoint(self.target, run_id, checkpoint) is None:
            data = read_checkpoint(self.source, run_id, checkpoint)
            if data is not None:
                path = checkpoint_path(self.target, run_id, checkpoint.attempt, checkpoint.step)
                self.write(path, data)

    def segment(self, name: str, offset: int) -> None:
        """The whole records of a segment, under its own name unless another's stands there."""
        data, path = self.read(self.source.segments / name)[:offset], self.target.segments / name
        there = self.read(path) if path.is_file() else b""
        if not data.startswith(there) and not there.startswith(data):
            path = path.with_name(f"{path.stem}.{zlib.crc32(data):08x}{path.suffix}")
            there = self.read(path) if path.is_file() else b""
        if len(data) > len(there):
            self.write(path, data)

    def copy(self, source: Path, target: Path, replace: bool) -> None:
        """A file of the source, if it has it, in the place of none or of another."""
        if not source.is_file() or (target.is_file() and not replace):
            return
        data = self.read(source)
        if not target.is_file() or self.read(target) != data:
            self.write(target, data)

    def read(self, path: Path) -> bytes:
        with told(path, "read"):
            return path.read_bytes()

    def write(self, path: Path, data: bytes) -> None:
        write_whole(path, data, writer=self.writer.driver, durable=True)
        self.files += 1
        self.size += len(data)
