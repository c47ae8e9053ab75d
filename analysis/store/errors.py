"""What can go wrong with a results folder, each with one message that names the path and the way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAYS_OUT = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again, it goes on from here",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EROFS: "the file system is read-only: copy the folder to where it can be written, or remount it",
    errno.EACCES: "permission denied: give this user the right to it, or choose another results folder",
    errno.EPERM: "not permitted: give this user the right to it, or choose another results folder",
    errno.ENOENT: "no such file or folder: it was removed while in use, or the path is misspelt",
    errno.ENOTDIR: "a part of the path is a file: choose another results folder",
    errno.EEXIST: "a file stands where a folder is needed: choose another results folder",
    errno.ENOLCK: "this file system cannot lock: choose a results folder on a local disk",
    errno.EIO: "the disk reports an error: check it, and go on from a copy of the folder",
}


class StoreError(ValueError):
    """A results folder that cannot be read or written; says which path, why, and the way out."""


class Superseded(StoreError):  # noqa: N818 - the field's own word, and what the caller asks
    """A write by an attempt at a run that no longer holds the run: stop that attempt."""


class Fenced(StoreError):  # noqa: N818 - the field's own word, and what the caller asks
    """A write by a driver that has lost its lock: others may have taken its runs over."""


@contextmanager
def told(path: str | Path, action: str) -> Iterator[None]:
    """Errors of the operating system, told as a StoreError: what was tried, on which path, the way out."""
    try:
        yield
    except OSError as error:
        reason = _WAYS_OUT.get(error.errno or 0, error.strerror or str(error))
        raise StoreError(f"cannot {action} {error.filename or path}: {reason}") from error
