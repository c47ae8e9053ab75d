"""Reading the ledger without locks: at any moment, from a read-only folder, and on from where one was."""

from __future__ import annotations

from pathlib import Path

from analysis.store.collector import uncollected
from analysis.store.errors import StoreError
from analysis.store.files import Layout
from analysis.store.records import VERSION, Entry, decode
from analysis.store.remote import remote_of
from analysis.store.replay import Replay
from analysis.store.segments import Position, read_new, segment_sizes
from analysis.store.snapshot import load_snapshot
from analysis.store.state import State


def read(results: str | Path) -> State:
    """The whole ledger as of now; an empty state where the folder holds no ledger.

    Raises:
        StoreError: a damaged line, or a ledger of a newer version.
    """
    return Reader(results).refresh()


class Reader:
    """Follows the ledger: each `refresh` reads what was added since the last."""

    def __init__(self, results: str | Path) -> None:
        self.layout = Layout.of(results)
        self._restart()

    def _restart(self) -> None:
        self.replay = Replay()
        self.positions: dict[str, Position] = {}
        self._started = False
        self._snapshot_notice: tuple[str, ...] = ()

    def refresh(self) -> State:
        """The whole ledger as of now; the same object when nothing was added."""
        if self.layout.uri is not None:
            remote_of(self.layout).follow()
        if not self._started:
            self._started = True
            with uncollected():
                self.replay, self.positions, self._snapshot_notice = load_snapshot(self.layout)
        for name, size in segment_sizes(self.layout.segments).items():
            position = self.positions.get(name, Position())
            if size < position.offset:  # somebody took lines out, as an error message advises
                self._restart()
                return self.refresh()
            if size > position.offset + position.torn or name not in self.positions:
                with uncollected():
                    self.positions[name] = read_new(self.layout.segments / name, position, self.add)
        with uncollected():
            return self.replay.state(self._notices())

    def take(self, name: str, start: int, end: int, lines: list[bytes]) -> None:
        """Takes lines that this process has just written to its segment between two offsets.

        The first, and any after an interruption in the middle of this, are read from the file instead.
        """
        position = self.positions.get(name, Position())
        if position.offset == start:
            for line in lines:
                self.add(decode(line))
            self.positions[name] = Position(end)
        else:
            self.positions[name] = read_new(self.layout.segments / name, position, self.add)

    def add(self, entry: Entry) -> None:
        """Takes a record, unless it heads a segment: that is read for its version alone."""
        if isinstance(entry, dict) and entry["kind"] == "segment":
            if entry["version"] > VERSION:
                raise StoreError(
                    f"{self.layout.ledger}: written in format {entry['version']}, this program reads up to "
                    f"{VERSION}: use the program that wrote it, or a newer one"
                )
            return
        self.replay.add(entry)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each segment as last read, torn ends included."""
        return {name: position.offset + position.torn for name, position in self.positions.items()}

    def _notices(self) -> tuple[str, ...]:
        torn = [name for name, position in sorted(self.positions.items()) if position.torn]
        notices = list(self._snapshot_notice)
        if torn:
            notices.append(f"{len(torn)} segment(s) end in a torn line, passed over: {', '.join(torn)}")
        return tuple(notices)
