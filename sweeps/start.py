"""Where every sweep starts: from a declaration to its launch, and what its commands have in common."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from analysis.store.remote import push_all
from sweeps.ablated import AblationLaunch
from sweeps.declare import Ablation, Search, Sweep
from sweeps.exits import reported
from sweeps.file import Declared
from sweeps.launch import Launch
from sweeps.publish import LoadedMaterial, Material
from sweeps.search.cells import cells
from sweeps.search.launch import SearchLaunch
from sweeps.settings import Settings


def launch(sweep: Sweep, material: Material, settings: Settings, console: Console) -> Launch:
    """The launch of a sweep of any kind; checks everything and starts nothing."""
    if isinstance(sweep, Search):
        return SearchLaunch(sweep, material, settings, console)
    if isinstance(sweep, Ablation):
        return AblationLaunch(sweep, material, settings, console)
    return Launch(sweep, material, settings, console)


def start(declared: Declared, settings: Settings, console: Console) -> int:
    """Trains what the sweep wants and shows what it came to; the command's exit code."""
    sweep = declared.sweep
    for each in [inner for _, inner in cells(sweep)] if isinstance(sweep, Search) else [sweep]:
        each.runs("", "")  # what cannot be is told before the data is read
    return launch(sweep, LoadedMaterial(declared.inputs), settings, console).run()


def command(
    script: str, argv: Sequence[str] | None, body: Callable[[Sequence[str], str, Console], int]
) -> int:
    """Runs a command of a sweep; its exit code, as `sweeps/exits.py` has them.

    Args:
        script: what Python is to run, as one types it: `sweeps/lora_grid.py`, or `-m sweeps`.
        argv: its arguments; the process's own where null, which then says where the script lies.
        body: called with the arguments, the whole command to type again, and where to say what happens.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    typed = [sys.argv[0]] if argv is None and not script.startswith("-m ") else script.split()
    again = shlex.join(["python", *typed, *given])
    console = Console(highlight=False)

    def whole() -> int:
        code = body(given, again, console)
        push_all()
        return code

    return reported(whole, again, console)
