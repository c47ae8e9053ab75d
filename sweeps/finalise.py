#!/usr/bin/env python
"""From a finished sweep to the final model: its winner trained with more seeds, looked at once, in hand.

python sweeps/finalise.py auto-search --results results --seeds 5 --to peft FOLDER
python sweeps/finalise.py lora-grid --holdout 0.1 --to transformers FOLDER
    which trains on the rest of train, and looks once at the part that was held out
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # the packages are found from any folder, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console, RenderableType
from rich.text import Text

from analysis.query import checked_folder
from analysis.show import Column, as_text, laid_out
from analysis.standing import Measure
from analysis.store import read
from analysis.store.files import Layout
from mtbert.export.forms import FORMS, Form
from mtbert.run import Run
from mtbert.schema import ConfigError
from sweeps.declare import RunList
from sweeps.exits import ENDED
from sweeps.final_model import FinalMaterial, FinalModel, check_place, spoken
from sweeps.final_record import FinalRecord
from sweeps.flags import Parser, add_carrying_out, add_inputs, given_inputs, positive, settings
from sweeps.start import command, launch
from sweeps.winner import winner

SEEDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return command("sweeps/finalise.py", argv, _run)


def _run(given: Sequence[str], again: str, console: Console) -> int:
    args = _parser().parse_args(given)
    from mtbert.devices import check_device

    check_device(args.device)
    checked_folder(args.results)
    chosen = winner(args.results, read(args.results), args.sweep)
    _say(console, f"The winner of {args.sweep} by {chosen.objective}: {spoken(chosen.configuration)}")
    if chosen.open:
        _say(console, f"{chosen.open} of its runs have not ended, so that another may still win")
    material = FinalMaterial(chosen.over(given_inputs(args, ("model", "data", "holdout"))))
    config_id = Run(chosen.configuration, 0, material.data, material.model).config_id
    to = export_to(args.to)
    if to is not None:  # before hours of training, not after
        material.check_form(to[0], chosen.configuration)
        check_place(*to, config_id)
    seeds = RunList(f"{args.sweep}-final", {"winner": chosen.configuration}, args.seeds, chosen.objective)
    code = launch(seeds, material, settings(args, again), console).run()
    if code != ENDED or args.dry_run:
        return code
    folder = Layout.of(args.results).results / "finals" / args.sweep
    folder.mkdir(parents=True, exist_ok=True)
    state, record = read(args.results), FinalRecord(folder)
    _finish(
        FinalModel(args.results, state, config_id, chosen.objective, material, record, args.device),
        to,
        console,
    )
    return ENDED


def _finish(final: FinalModel, to: tuple[Form, Path] | None, console: Console) -> None:
    """Looks once at what is unseen, exports, predicts, and says so."""
    for notice in final.already_looked_at():
        _say(console, notice)
    for split in final.splits:
        if not final.is_looked_at(split):
            _say(console, f"Looking at {split}, once with each seed")
    if not final.splits:
        _say(console, "Nothing with labels is unseen: give --holdout, or test files with labels")
    looked, run_id = final.looked(), final.best.run_id
    if to is None:
        results = shlex.quote(final.results)
        model = f"python -m mtbert export {run_id} --results {results} --to FORM FOLDER"
    else:
        model = f"{to[1]}" + ("" if final.export(*to, looked) else " (there already)")
    paths = [*final.predictions(), final.record.path]
    _say(console, f"\nThe final model is run {run_id}, the best of its seeds on dev by {final.objective}")
    _say(console, as_text(table([*final.dev(), *looked], run_id)).rstrip())
    _say(console, f"Model: {model}")
    for path in paths:
        _say(console, f"       {path}")


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def table(measures: Sequence[Measure], run_id: str) -> RenderableType:
    """A line for each metric of each split: the run's own, and over its configuration's seeds."""
    return laid_out(
        [
            Column("split", [each.split for each in measures]),
            Column("metric", [each.name for each in measures]),
            Column(f"run {run_id}", ["-" if each.own is None else f"{each.own:.4f}" for each in measures]),
            Column("mean ± 95% interval", [_over(each) for each in measures]),
            Column("seeds", [", ".join(map(str, each.seeds)) for each in measures]),
        ],
        note="dev chose the configuration, the step and the run: its figures flatter; the others do not",
    )


def export_to(given: Sequence[str] | None) -> tuple[Form, Path] | None:
    """What `--to` asks for.

    Raises:
        ConfigError: a form that there is not.
    """
    if given is None:
        return None
    if given[0] not in FORMS:
        raise ConfigError(f"--to: expected one of {', '.join(FORMS)} and a folder, got {given[0]!r}")
    return given[0], Path(given[1]).expanduser()


def _over(each: Measure) -> str:
    if each.mean is None:
        return "-"
    return f"{each.mean:.4f}" + ("" if each.half_width is None else f" ± {each.half_width:.4f}")


def _parser() -> Parser:
    parser = Parser("finalise.py", __doc__)
    add = parser.add_argument
    add("sweep", metavar="SWEEP", help="a sweep of the results folder, whose winner is wanted")
    add_inputs(parser)
    add("--seeds", type=positive, default=SEEDS, help="that the winner is trained with (%(default)s)")
    add("--to", nargs=2, metavar=("FORM", "DIR"), help="export as peft, transformers or safetensors")
    add("--device", default="cpu", help="that unseen examples are looked at with (%(default)s)")
    add_carrying_out(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
