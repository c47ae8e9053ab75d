"""Room made by deleting weights and checkpoints, never rows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pyarrow as pa

from analysis.commands.common import Answer, Commands, add_answer, count, opened
from analysis.retention import kept_runs
from analysis.show import plain_table
from analysis.store import Writer
from analysis.store.pruning import Prunable, prunable
from analysis.store.pruning import prune as delete


def add(commands: Commands) -> None:
    parser = add_answer(
        commands,
        "prune",
        prune,
        "the weights of ended runs and the checkpoints of stopped ones that could be deleted; --delete does "
        "it, and no row is lost",
    )
    parser.add_argument(
        "--keep-best", type=count, metavar="N", help="keep the runs of each sweep's N best configurations"
    )
    parser.add_argument(
        "--keep-tag", action="append", default=[], metavar="TAG", help="keep the runs that have this tag"
    )
    parser.add_argument("--delete", action="store_true", help="delete them; without it they are only listed")


def prune(arguments: argparse.Namespace) -> Answer:
    state = opened(arguments).state
    kept = kept_runs(state, arguments.keep_best, arguments.keep_tag)
    found = prunable(arguments.results, state, kept, arguments.sweep)
    if arguments.delete and found:
        with Writer(arguments.results) as writer:
            delete(writer, found)
            writer.compact()
    files = f"{len(found)} file(s), {sum(each.size for each in found):,} bytes"
    title = f"freed: {files}" if arguments.delete else f"could be freed: {files} (--delete frees them)"
    return _table(found), lambda: plain_table(_table(found), title=title)


def _table(found: Sequence[Prunable]) -> pa.Table:
    names = ("run_id", "status", "what", "size")
    kinds = (pa.string(), pa.string(), pa.string(), pa.int64())
    return pa.table(
        {
            name: pa.array([getattr(each, name) for each in found], type=kind)
            for name, kind in zip(names, kinds, strict=True)
        }
    )
