"""Which code wrote a record."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path


@cache
def commit() -> tuple[str | None, bool | None]:
    """The git commit of this source tree, and whether tracked files differ from it.

    (None, None) where the tree is not under git: an installed package inside some other repository
    is not a part of that repository.
    """
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        revision = _git(here.parent, "rev-parse", "HEAD")
        return revision, bool(_git(here.parent, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return None, None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
