#!/usr/bin/env python
"""The tables of the five published reports, run anew beside their figures.

python sweeps/published.py --list
python sweeps/published.py 004/3 --settings
python sweeps/published.py 004/3 --model bert-base-uncased --data ../data --seeds 5
python sweeps/published.py 004/3 --scale 0.02
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the packages are found from any folder, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console
from rich.text import Text

from analysis.formats import save, written
from analysis.show import as_text
from analysis.store import read
from analysis.store.files import Layout
from mtbert.inputs import Inputs, parse_assignments, parse_inputs
from mtbert.schema import ConfigError
from sweeps.exits import ENDED
from sweeps.flags import PRECISIONS, Parser, add_carrying_out, add_inputs, given_inputs, settings
from sweeps.launch import Launch
from sweeps.start import command
from sweeps.tables.beside import Beside, claim_table, row_table
from sweeps.tables.measured import FROM_PREDICTIONS, Measured, from_predictions
from sweeps.tables.plan import Options, TablePlan
from sweeps.tables.provenance import MARKS
from sweeps.tables.published import Table, find, read_tables
from sweeps.tables.show import answer, listing, spans
from sweeps.tables.show import settings as settings_shown
from sweeps.tables.trained import TableMaterial, merge_rows, test_metrics

CFIMDB_FILES = ("ids-cfimdb-train.csv", "ids-cfimdb-dev.csv")


class _Part(Launch):
    """The runs of a table over one base model; the table is shown when all parts have run."""

    def answer(self) -> tuple[list[str], list[str]]:
        return [], []


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return command("sweeps/published.py", argv, _run)


def _run(given: Sequence[str], again: str, console: Console) -> int:
    args = _parser().parse_args(given)
    tables = read_tables()
    if args.list:
        chosen = [
            table for table in tables.values() if args.table in (None, table.id, table.id.split("/")[0])
        ]
        _say(console, as_text(listing(chosen)).rstrip())
        return ENDED
    if args.table is None:
        raise ConfigError("table: expected one, such as 004/3; --list shows all")
    table = find(tables, args.table)
    if args.settings:
        _say(console, as_text(settings_shown(table)).rstrip())
        return ENDED
    return _carry_out(table, args, again, console)


def _carry_out(table: Table, args: argparse.Namespace, again: str, console: Console) -> int:
    """Trains what the ledger lacks, merges what is merged, and shows the table."""
    options = Options(args.seeds, args.scale, _values(args))
    chosen = settings(args, again)
    inputs, note = inputs_of(table, given_inputs(args, ("model", "data", "holdout")))
    material = TableMaterial(inputs)
    further = None if args.pretrained is None else TableMaterial(_with_model(inputs, args.pretrained))
    plan = TablePlan(table, options, material, further)
    for line in (*_heading(plan, inputs), note, _how_to_pretrain(plan, inputs)):
        _say(console, line)
    code = ENDED
    for pretrained, of in ((False, material), (True, further)):
        sweep = plan.sweep(pretrained)
        if sweep is not None and of is not None:
            code = _Part(sweep, of, chosen, console).run() or code
    if chosen.dry_run:
        return code
    beside = _measured(plan, material, args)
    _say(console, as_text(answer(beside)).rstrip())
    _save(beside, args.results, console)
    return code


def inputs_of(table: Table, given: dict[str, Any]) -> tuple[Inputs, str]:
    """What the table's runs are fed: the flags, and CFIMDB as the report had it where the data has it.

    Returns:
        The inputs, and what is to be said of CFIMDB.

    Raises:
        ConfigError: naming a flag's value that cannot be.
    """
    inputs = parse_inputs(given)
    folder = Path(inputs.data).expanduser()
    there = inputs.data not in ("demo", "hub") and all((folder / name).is_file() for name in CFIMDB_FILES)
    if table.cfimdb == "leave":
        return inputs, ""
    if there:
        said = {"join": "CFIMDB is joined to SST, as in the report", "task": "CFIMDB is a task of its own"}
        return parse_inputs({**given, "cfimdb": table.cfimdb}), said[table.cfimdb]
    return inputs, "the report joins CFIMDB to SST; this data has none" if table.cfimdb == "join" else ""


def _measured(plan: TablePlan, material: TableMaterial, args: argparse.Namespace) -> Beside:
    """The table's rows as the ledger has them, with what is measured only now."""
    device = _device(args)
    state = read(args.results)
    beside = test_metrics(plan, state, material, args.results, device)
    merged = merge_rows(plan, state, material, args.results, device)
    if any(name.endswith(FROM_PREDICTIONS) for name in plan.table.columns):
        known = [run.run_id for run in plan.runs.values() if run.run_id in state.runs]
        for run_id, metrics in from_predictions(Layout.of(args.results).results, known).items():
            beside[run_id] = {**beside.get(run_id, {}), **metrics}
    measured = Measured(plan, read(args.results), beside, merged)
    return Beside.of(plan, measured, material.labelled("test"))


def _heading(plan: TablePlan, inputs: Inputs) -> list[str]:
    """What the table is, and in what the runs here differ from the report's."""
    table, options = plan.table, plan.options
    lines = [f"{table.id}  {table.title}  (lines {spans(range(table.lines[0], table.lines[-1] + 1))})"]
    if table.note:
        lines.append(f"note: {table.note}")
    seeds = "one seed" if options.seeds == 1 else f"{options.seeds} seeds"
    lines.append(f"here: model {inputs.model}, data {inputs.data}, {seeds}")
    if options.scale < 1:
        lines.append(
            f"shortened: every run has {options.scale:g} of its steps, and the noise is that of such runs"
        )
    if options.values:
        lines.append("set: " + ", ".join(f"{name}={value}" for name, value in options.values.items()))
    if table.examples:
        lines.append(
            f"training examples in the report: {_sizes(table.examples)}; here: {_sizes(plan.material.sizes)}"
        )
    marks = {
        (name, each.mark) for row in table.rows for run in row.runs for name, each in run.settings.items()
    }
    counts = ", ".join(f"{sum(mark == each for _, mark in marks)} {each}" for each in MARKS)
    lines.append(f"fields set: {counts}; --settings shows each, and where")
    return lines


def _how_to_pretrain(plan: TablePlan, inputs: Inputs) -> str:
    if plan.pretrained is not None or not any(row.pretrained for row in plan.table.rows):
        return ""
    model, data = shlex.quote(inputs.model), shlex.quote(inputs.data)
    return (
        "some rows start from a further pretrained model: "
        f"python -m mtbert pretrain --model {model} --data {data} --out FOLDER, then --pretrained FOLDER"
    )


def _save(beside: Beside, results: str, console: Console) -> None:
    """Writes the table and its claims as Parquet."""
    folder = Layout.of(results).results / "published"
    folder.mkdir(parents=True, exist_ok=True)
    name = beside.plan.table.id.replace("/", "-")
    for path, found in (
        (folder / f"{name}.parquet", row_table(beside)),
        (folder / f"{name}-claims.parquet", claim_table(beside)),
    ):
        save(written(found, "parquet"), path)
        _say(console, f"written: {path}")


def _values(args: argparse.Namespace) -> dict[str, Any]:
    values = parse_assignments(args.set)
    if args.precision is not None:
        values["precision"] = args.precision
    return values


def _with_model(inputs: Inputs, folder: str) -> Inputs:
    return parse_inputs({**vars(inputs), "model": folder})


def _device(args: argparse.Namespace) -> str:
    """Where trained models are looked at."""
    import torch

    return "cuda" if torch.cuda.is_available() and args.gpus_per_run != 0 else "cpu"


def _sizes(examples: Any) -> str:
    return ", ".join(f"{task} {count:,}" for task, count in examples.items())


def _say(console: Console, text: str) -> None:
    if text:
        console.print(Text(text), soft_wrap=True)


def _parser() -> Parser:
    parser = Parser("published.py", __doc__)
    add = parser.add_argument
    add("table", nargs="?", metavar="TABLE", help="such as 004/3: Table 3 of report 004")
    add("--list", action="store_true", help="show the tables, of one report where it is named, start nothing")
    add(
        "--settings",
        action="store_true",
        help="show each row's settings and how they are known, start nothing",
    )
    add("--scale", type=float, default=1.0, help="shorten every run by this factor (%(default)g)")
    add(
        "--seeds",
        type=int,
        default=1,
        help="with how many seeds each run is made (%(default)s, as the reports)",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="for every row, such as features=mean",
    )
    add("--precision", choices=PRECISIONS, help="(float32)")
    add(
        "--pretrained",
        metavar="FOLDER",
        help="the further pretrained model that some of 003's rows start from",
    )
    add_inputs(parser)
    add_carrying_out(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
