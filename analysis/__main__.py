"""`python -m analysis best|runs|errors|compare|sql|study RESULTS`: what the runs have come to."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
from rich.console import RenderableType

from analysis.compare import compared
from analysis.formats import save, written
from analysis.query import Sources, query, quoted
from analysis.ranking import ranked
from analysis.show import (
    as_text,
    effects_rows,
    effects_table,
    errors_shown,
    is_loss,
    plain_table,
    ranking_rows,
    ranking_table,
    shortened,
    terminal_width,
)
from analysis.store.errors import StoreError
from analysis.store.spread import differing, identity
from analysis.study import store_study

Answer = tuple[pa.Table, Callable[[], RenderableType]]
"""What a command found, for machines, and how a terminal shows it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; 0, or 2 after an error, which standard error tells in a line."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.format == "parquet" and arguments.output is None:
            raise StoreError("--format parquet needs --output FILE")
        table, shown = arguments.command(arguments)
        if arguments.format == "table":
            data = as_text(shown(), terminal_width()).encode()
        else:
            data = written(table, arguments.format)
        if arguments.output is not None:
            save(data, arguments.output)
        else:
            sys.stdout.write(data.decode())
            sys.stdout.flush()
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _best(arguments: argparse.Namespace) -> Answer:
    state = _opened(arguments).state
    rows = ranked(state, arguments.sweep, arguments.by, arguments.lowest_first)[: arguments.limit]
    title = f"{rows[0].by}: mean ± standard deviation over seeds" if rows else None
    return ranking_rows(rows), lambda: ranking_table(rows, title=title)


def _compare(arguments: argparse.Namespace) -> Answer:
    state = _opened(arguments).state
    effects = compared(state, arguments.sweep, arguments.by, arguments.configurations)
    title = "mean ± standard deviation; difference: paired by seed, all other fields equal"
    title = title if effects else "nothing differs between the completed runs"
    return effects_rows(effects), lambda: effects_table(effects, title=title)


def _sql(arguments: argparse.Namespace) -> Answer:
    table = query(arguments.results, arguments.statement, arguments.sweep)
    return table, lambda: plain_table(table)


def _study(arguments: argparse.Namespace) -> Answer:
    state = _opened(arguments).state
    if arguments.sweep is None:
        raise StoreError(f"--sweep: expected one of {', '.join(sorted(state.sweeps))}, got none")
    counts = store_study(arguments.results, state, arguments.sweep, arguments.storage)
    table = pa.table({"state": list(counts), "trials": list(counts.values())})
    return table, lambda: plain_table(table)


def _runs(arguments: argparse.Namespace) -> Answer:
    sources = _opened(arguments)
    known = sources.table("runs").schema.names
    conditions = [f"({quoted(condition, known)})" for condition in arguments.where]
    if arguments.status:
        statuses = ", ".join("'" + status.replace("'", "''") + "'" for status in arguments.status.split(","))
        conditions.append(f"status in ({statuses})")
    fields = _fields(sources)
    columns = _usual(sources, known, fields) if arguments.format == "table" else known
    if arguments.columns:
        columns = arguments.columns.split(",")
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


def _errors(arguments: argparse.Namespace) -> Answer:
    sources = _opened(arguments)
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
    names += ["trainable", "seconds_training", "device", "error_kind", "error_message"]
    return [name for name in dict.fromkeys(names) if name in known]


def _order(sort: str, known: Sequence[str]) -> str:
    """`score` or `low_rank.rank desc` as SQL, nulls last; a score's best first unless it says otherwise."""
    name, _, direction = sort.partition(" ")
    if name not in known or direction.strip().lower() not in ("", "asc", "desc"):
        raise StoreError(f"--sort: expected a column of runs, with asc or desc after it, got {sort!r}")
    return f'"{name}" {direction.strip() or ("desc" if name == "score" else "asc")} nulls last'


def _opened(arguments: argparse.Namespace) -> Sources:
    """The results, which must hold runs; what was passed over in reading is told on standard error."""
    sources = Sources(arguments.results, arguments.sweep)
    if arguments.sweep is not None:
        sources.state.sweep(arguments.sweep)
    if not sources.state.runs:
        raise StoreError(f"{arguments.results}: no runs in these results yet")
    for notice in sources.state.notices:
        print(f"notice: {notice}", file=sys.stderr)
    return sources


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    best = _command(commands, "best", _best, "configurations by their mean over seeds, best first")
    _add_metric(best)
    best.add_argument("--lowest-first", action="store_true", help="the smallest value is the best")
    best.add_argument("--limit", type=_count, metavar="N", help="the first N")
    runs = _command(commands, "runs", _runs, "single runs, ended or not, with filters")
    runs.add_argument(
        "--where", action="append", default=[], metavar="SQL", help="a condition, e.g. 'low_rank.rank=4'"
    )
    runs.add_argument("--status", help="e.g. failed, or completed,diverged")
    runs.add_argument(
        "--sort", default="score", metavar="COLUMN", help="with asc or desc after it, if wanted"
    )
    runs.add_argument("--limit", type=_count, metavar="N", help="the first N")
    runs.add_argument("--columns", metavar="A,B,…", help="these columns alone")
    _command(commands, "errors", _errors, "the runs that failed, each with its traceback")
    compare = _command(commands, "compare", _compare, "what differs, and what it did, paired by seeds")
    compare.add_argument("configurations", nargs="*", metavar="ID", help="configurations; all for none")
    _add_metric(compare)
    sql = _command(
        commands, "sql", _sql, "SQL (DuckDB) over runs, sweeps, evaluations, predictions and examples"
    )
    sql.add_argument("statement", metavar="SQL", help="e.g. 'select run_id, \"low_rank.rank\" from runs'")
    study = _command(commands, "study", _study, "writes a sweep as a study that optuna-dashboard opens")
    study.add_argument("--storage", required=True, metavar="URL", help="e.g. sqlite:///study.db")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[argparse.Namespace], Answer],
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="the results folder of sweeps")
    parser.add_argument("--sweep", metavar="NAME", help="only the runs of this sweep")
    parser.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to the terminal")
    parser.set_defaults(command=command)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _add_metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by", metavar="METRIC", help="e.g. sst.accuracy; the sweep's objective, or score, for none"
    )


if __name__ == "__main__":
    sys.exit(main())
