"""Single runs, and those that failed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

from analysis.commands.common import Answer, Commands, add_answer, count, opened
from analysis.query import Sources, quoted
from analysis.show import errors_shown, is_loss, plain_table, shortened
from analysis.store.errors import StoreError
from analysis.store.spread import differing, identity
from analysis.store.state import Status

STATUSES = ("waiting", *get_args(Status), "interrupted")


def add(commands: Commands) -> None:
    parser = add_answer(commands, "runs", runs, "single runs, ended or not, with filters")
    parser.add_argument(
        "--where", action="append", default=[], metavar="SQL", help="a condition, e.g. 'low_rank.rank=4'"
    )
    parser.add_argument(
        "--tag", action="append", default=[], help="that have this tag, or whose sweep has it"
    )
    parser.add_argument("--status", help="e.g. failed, or completed,diverged")
    parser.add_argument(
        "--sort", default="score", metavar="COLUMN", help="with asc or desc after it, if wanted"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="the first N")
    parser.add_argument("--columns", metavar="A,B,…", help="these columns alone")
    add_answer(commands, "errors", errors, "the runs that failed, each with its traceback")


def runs(arguments: argparse.Namespace) -> Answer:
    sources = opened(arguments)
    known = sources.table("runs").schema.names
    conditions = [f"({quoted(condition, known)})" for condition in arguments.where]
    if arguments.status:
        conditions.append(f"status in ({', '.join(map(_text, _statuses(arguments.status)))})")
    conditions += [f"list_contains(tags, {_text(label)})" for label in arguments.tag]
    fields = _fields(sources)
    columns = _usual(sources, known, fields) if arguments.format == "table" else known
    if arguments.columns:
        columns = list(dict.fromkeys(name.strip() for name in arguments.columns.split(",")))
    missing = [name for name in columns if name not in known]
    if missing:
        raise StoreError(f"--columns: no column {', '.join(missing)} in runs; known are {', '.join(known)}")
    statement = "select " + ", ".join(f'"{name}"' for name in columns) + " from runs"
    statement += f" where {' and '.join(conditions)}" if conditions else ""
    statement += f" order by {_order(arguments.sort, known)}, run_id"
    statement += f" limit {arguments.limit}" if arguments.limit is not None else ""
    table = sources.ask(statement)
    short = dict(
        zip(fields, shortened(fields, [name for name in columns if name not in fields]), strict=True)
    )
    return table, lambda: plain_table(table.rename_columns([short.get(name, name) for name in columns]))


def errors(arguments: argparse.Namespace) -> Answer:
    sources = opened(arguments)
    fields = _fields(sources)
    names = ["run_id", "error_kind", "error_message", "error_traceback", *fields]
    columns = ", ".join(f'"{name}"' for name in names)
    table = sources.ask(f"select {columns} from runs where status = 'failed' order by run_id")
    return table, lambda: errors_shown(table, fields)


def _fields(sources: Sources) -> list[str]:
    """The configuration's fields in which the runs differ."""
    runs = sources.state.runs_of(sources.sweep)
    return differing({run.config_id: identity(run.run, run.settings) for run in runs}.values())


def _usual(sources: Sources, known: Sequence[str], fields: Sequence[str]) -> list[str]:
    """The columns that a person wants first."""
    runs = sources.state.runs_of(sources.sweep)
    found = sorted({name for run in runs for name in (run.ended or {}).get("metrics") or ()})
    metrics = sorted(found, key=is_loss)
    names = ["run_id", "status", "score", "steps", *fields, *metrics]
    names += ["tags"] if any(run.run_id in sources.state.labels for run in runs) else []
    names += ["trainable", "seconds_training", "device", "error_kind", "error_message"]
    return [name for name in dict.fromkeys(names) if name in known]


def _statuses(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in STATUSES:
            raise StoreError(f"--status: expected some of {', '.join(STATUSES)}, got {name!r}")
    return names


def _text(value: str) -> str:
    """The value as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def _order(sort: str, known: Sequence[str]) -> str:
    """`score` or `low_rank.rank desc` as SQL, nulls last; a score's best first unless it says otherwise."""
    name, _, direction = sort.partition(" ")
    if name not in known or direction.strip().lower() not in ("", "asc", "desc"):
        raise StoreError(f"--sort: expected a column of runs, with asc or desc after it, got {sort!r}")
    return f'"{name}" {direction.strip() or ("desc" if name == "score" else "asc")} nulls last'
