"""Checkpoints while a run trains, and the best weights once it has ended: safetensors, written whole."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from pathlib import Path

from analysis.store.errors import StoreError, told
from analysis.store.files import Layout, write_whole
from analysis.store.remote import remote_of
from analysis.store.state import Checkpoint, RunState

_SUFFIX = ".safetensors"


def weights_path(results: str | Path, run_id: str) -> Path:
    """Where the best weights of a run lie, if it has any."""
    return Layout.of(results).weights / f"{run_id}{_SUFFIX}"


def read_weights(results: str | Path, run: RunState) -> bytes:
    """The best weights of an ended run.

    Raises:
        StoreError: it has none, or they were pruned.
    """
    layout, path = Layout.of(results), weights_path(results, run.run_id)
    if layout.uri is not None and not path.is_file():
        remote_of(layout).fetch(path)
    with told(path, "read"):
        if path.is_file():
            return path.read_bytes()
    if run.ending is not None and run.ending.pruned is not None:
        when = datetime.fromtimestamp(run.ending.pruned, UTC).strftime("%Y-%m-%d %H:%M UTC")
        raise StoreError(
            f"run {run.run_id}: its weights were pruned on {when} (python -m analysis prune); its rows are "
            "all there, and training it again, into another results folder, gives it weights"
        )
    raise StoreError(f"run {run.run_id} has no weights at {path} (it is {run.status or 'waiting'})")


def checkpoint_path(layout: Layout, run_id: str, attempt: int, step: int) -> Path:
    """A file per step and attempt: the old one stays whole until the new one is in the ledger.

    No run id holds an `@`.
    """
    return layout.checkpoints / f"{run_id}@{step}.{attempt}{_SUFFIX}"


def write_checkpoint(
    layout: Layout, run_id: str, attempt: int, step: int, data: bytes, writer: str
) -> Checkpoint:
    """Stores a checkpoint, to be named in the ledger next.

    Not forced to the disk, which would cost more than it saves: after a power cut its checksum tells a
    damaged one, and the run starts again.
    """
    path = checkpoint_path(layout, run_id, attempt, step)
    write_whole(path, data, writer=writer, durable=False)
    return Checkpoint(attempt, step, len(data), zlib.crc32(data))


def read_checkpoint(layout: Layout, run_id: str, checkpoint: Checkpoint) -> bytes | None:
    """The checkpoint's bytes; None where the file is gone or is not the one that was written."""
    path = checkpoint_path(layout, run_id, checkpoint.attempt, checkpoint.step)
    with told(path, "read"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    return data if (len(data), zlib.crc32(data)) == (checkpoint.size, checkpoint.crc) else None


def remove_checkpoints(layout: Layout, run_id: str, keep: Checkpoint | None = None) -> None:
    """Deletes the checkpoints of a run, all but `keep`."""
    kept = None if keep is None else checkpoint_path(layout, run_id, keep.attempt, keep.step)
    with told(layout.checkpoints, "delete from"):
        for path in checkpoint_files(layout, run_id):
            if path != kept:
                path.unlink(missing_ok=True)


def checkpoint_files(layout: Layout, run_id: str) -> list[Path]:
    """The checkpoints that lie there of a run."""
    return sorted(layout.checkpoints.glob(f"{run_id}@*{_SUFFIX}"))
