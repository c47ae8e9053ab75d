"""The runs in another tool."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from analysis.commands.common import Commands, add_command, add_sweep, say
from analysis.mirror.content import Content, Mirror, copy
from analysis.mirror.mlflow import MLflow
from analysis.mirror.tensorboard import TensorBoard
from analysis.mirror.wandb import Wandb
from analysis.query import checked_folder
from analysis.store import Reader
from analysis.store.errors import told
from analysis.store.files import Layout
from analysis.store.locks import sighted_drivers
from analysis.watch import drivers_at_work

SECONDS = 2.0
"""Between two looks at a sweep that is followed."""

MIRRORS: dict[str, Callable[[str], Mirror]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow}


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "mirror",
        mirror,
        "shows the runs in TensorBoard, Weights & Biases or MLflow; a second time, what they do not have yet",
    )
    add_sweep(parser)
    parser.add_argument("--to", required=True, choices=tuple(MIRRORS))
    parser.add_argument(
        "--at",
        metavar="PLACE",
        help="a folder (tensorboard, wandb) or a tracking URI (mlflow); RESULTS/mirror/… for none",
    )
    parser.add_argument("--follow", action="store_true", help="go on until nobody is at work there any more")


def mirror(arguments: argparse.Namespace) -> int:
    """What the ledger holds; with --follow, what comes too, until the sweep's end or Ctrl-C."""
    checked_folder(arguments.results)
    place = arguments.at or _place(arguments.results, arguments.to)
    tool, reader = MIRRORS[arguments.to](place), Reader(arguments.results)
    before: dict[str, Content] = {}
    try:
        while True:
            sighted, state = sighted_drivers(arguments.results), reader.refresh()
            at_work = drivers_at_work(sighted, state, time.time()).values()
            going_on = bool(at_work) if arguments.sweep is None else arguments.sweep in at_work
            runs, values = copy(state, arguments.sweep, tool, before)
            if runs or not arguments.follow:
                say(f"{place}: {values:,} value(s) of {runs:,} run(s) are new there")
            if not (arguments.follow and going_on):
                return 0
            time.sleep(SECONDS)
    except KeyboardInterrupt:
        return 0


def _place(results: str, tool: str) -> str:
    folder = Layout.of(results).results.resolve() / "mirror"
    if tool != "mlflow":
        return str(folder / tool)
    with told(folder, "create"):
        folder.mkdir(exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"
