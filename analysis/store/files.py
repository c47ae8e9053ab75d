"""Where things lie in a results folder, and how a file is written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from analysis.store.errors import StoreError, told

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Layout:
    """The paths of a results folder. The ledger is the truth; all else can be made from it.

    RESULTS/ledger/lock                 held while a run is claimed
    RESULTS/ledger/drivers/D.lock       held by the driver D while it lives
    RESULTS/ledger/segments/D-….jsonl   records, a file per process that wrote any
    RESULTS/ledger/snapshot.jsonl       the records so far, settled, with the segments' offsets
    RESULTS/ledger/predictions/         a Parquet file per ending, named by its record
    RESULTS/ledger/examples/            a Parquet file per data fingerprint
    RESULTS/checkpoints/  RESULTS/weights/  RESULTS/tables/

    Attributes:
        uri: where the results are that these are a copy of (`remote.py`); null for a folder of this machine.
    """

    results: Path
    uri: str | None = None

    @staticmethod
    def of(results: str | Path) -> Layout:
        """The layout of a folder, which need not exist, or of this machine's copy of what is at a URI."""
        if is_uri(results):
            return Layout(_copy(str(results)), str(results))
        return Layout(Path(results).expanduser())

    @property
    def ledger(self) -> Path:
        return self.results / "ledger"

    @property
    def lock(self) -> Path:
        return self.ledger / "lock"

    @property
    def compaction_lock(self) -> Path:
        return self.ledger / "compaction.lock"

    @property
    def drivers(self) -> Path:
        return self.ledger / "drivers"

    @property
    def segments(self) -> Path:
        return self.ledger / "segments"

    @property
    def snapshot(self) -> Path:
        return self.ledger / "snapshot.jsonl"

    @property
    def predictions(self) -> Path:
        return self.ledger / "predictions"

    @property
    def examples(self) -> Path:
        return self.ledger / "examples"

    @property
    def checkpoints(self) -> Path:
        return self.results / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.results / "weights"

    @property
    def tables(self) -> Path:
        return self.results / "tables"

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders, for a writer to make."""
        inner = (self.drivers, self.segments, self.predictions, self.examples)
        return (*inner, self.checkpoints, self.weights, self.tables)


def is_uri(results: str | Path) -> bool:
    """Whether these results are at a URI, such as `s3://bucket/results`."""
    return "://" in str(results)


def whole_name(results: str | Path) -> str:
    """The name by which any process of this machine finds the results: the URI, or the whole path."""
    return str(results) if is_uri(results) else str(Layout.of(results).results.resolve())


def _copy(uri: str) -> Path:
    """Where this machine keeps its copy of the results at a URI."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
    return Path(cache).expanduser() / "mtbert" / "results" / digest


def checked_name(name: object, what: str) -> str:
    """`name`, if it can stand in a file's name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StoreError(f"{what}: expected letters, digits, dots, dashes and underscores, got {name!r}")
    return name


def write_whole(path: Path, data: bytes, *, writer: str, durable: bool) -> None:
    """Writes a file whole or not at all: beside it, then renamed over it.

    Args:
        writer: who writes, for the temporary name; two writers never share one.
        durable: on the disk before it is visible, so that not even a power cut leaves it empty.

    Raises:
        StoreError: the disk is full, read-only or gone; nothing half-written is left.
    """
    temporary = temporary_name(path, writer)
    with told(path, "write"):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


def temporary_name(path: Path, writer: str) -> Path:
    """Where `writer` prepares the file at `path`."""
    return path.with_name(f".{path.name}~{writer}.tmp")  # no name holds a ~


def sync_folder(folder: Path) -> None:
    """Makes the folder's entries (a rename) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
