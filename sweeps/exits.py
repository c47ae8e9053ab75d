"""How a sweep's command ends: its exit codes, and what it says of bad input and Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from analysis.store import StoreError
from mtbert.data.errors import DataError
from mtbert.schema import ConfigError
from mtbert.weights import ModelError
from sweeps.placement import PlacementError
from sweeps.session import SessionError

ENDED = 0
BAD_INPUT = 2
"""What was asked for cannot be, or the results cannot be written."""
FAILED = 3
"""Runs failed, or Tune came back again and again without progress."""
OVER = 4
"""A budget is used up."""
STOPPED = 5
"""The sweep, or one of its runs, was stopped from another terminal."""
LOST_RAY = 6
"""The Ray that it was connected to went away (`watchdog.py`)."""
INTERRUPTED = 130
"""Ctrl-C."""


def reported(body: Callable[[], int], command: str, console: Console) -> int:
    """The exit code of a command, bad input and Ctrl-C told in a line instead of a traceback."""
    try:
        return body()
    except (ConfigError, DataError, ModelError, PlacementError, SessionError, StoreError) as error:
        complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        console.print(Text(f"Interrupted. What has ended is kept; to go on:\n  {command}"), soft_wrap=True)
        return INTERRUPTED


def complain(message: str) -> None:
    """One line on stderr; a message of several is joined."""
    joined = " ".join(message.split())
    sys.stderr.write(f"error: {joined}\n")
    sys.stderr.flush()
