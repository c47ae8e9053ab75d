"""Published tables on a terminal: a section per column, the claims, the settings with their marks, a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.console import Group, RenderableType

from analysis.show import Column, laid_out
from analysis.stats import mean_over_seeds
from sweeps.tables.beside import Beside
from sweeps.tables.counts import COLUMNS as COUNTED
from sweeps.tables.counts import MODEL, TRAINABLE, counted
from sweeps.tables.provenance import Setting
from sweeps.tables.published import Figure, Row, Table
from sweeps.tables.verdicts import NOT_RANKED, Comparison, lower_is_better, misprints

_SECONDS = ("seconds", "seconds_training")


def answer(beside: Beside) -> RenderableType:
    """All columns and claims of a table."""
    table = beside.plan.table
    parts: list[RenderableType | str] = []
    for name in table.columns:
        section = _counts(table, name) if name in COUNTED else _section(beside, beside.comparisons[name])
        parts += [section, ""]
    if beside.verdicts:
        parts += [_claims(beside), ""]
    notes = [f"not run: {row.label}: {why}" for row in table.rows if (why := beside.why_not_run(row))]
    notes += [f"fitted: {note}" for note in beside.plan.notes]
    if beside.unlabelled:
        notes.append(f"not measured, as the test sets here have no labels: {', '.join(beside.unlabelled)}")
    notes += [f"as printed: {said}" for said in misprints(table)]
    return Group(*parts, *notes)


def listing(tables: Sequence[Table]) -> RenderableType:
    """The tables by id, and those experiments of which no figure is printed."""
    columns = [
        Column("id", [table.id for table in tables]),
        Column("what", [table.title for table in tables], 1),
        Column("rows", [str(len(table.rows)) for table in tables], 2, True),
        Column("runs", [str(sum(len(row.runs) for row in table.rows)) for table in tables], 2, True),
        Column("figures", ["printed" if table.printed else "none" for table in tables], 3),
        Column("lines", [spans(range(table.lines[0], table.lines[-1] + 1)) for table in tables], 4),
    ]
    return laid_out(columns, note="runs: with one seed; figures none: only prose or a lost figure shows it")


def settings(table: Table) -> RenderableType:
    """Each setting with its mark: first what all runs have, then what each row has of its own."""
    runs = [(row, name, _all(row, name)) for row in table.rows for name in (run.name for run in row.runs)]
    first = runs[0][2]
    common = {
        name: setting for name, setting in first.items() if all(of.get(name) == setting for _, _, of in runs)
    }
    lines = [("all rows", name, setting) for name, setting in common.items()]
    for row, run, of in runs:
        label = f"{row.number} {row.label}{', ' * bool(run)}{run}"
        own = {name: setting for name, setting in of.items() if name not in common}
        lines += [(label, name, setting) for name, setting in own.items()]
    labels = [label for label, _, _ in lines]
    columns = [
        Column("row", [label if label not in labels[at - 1 : at] else "" for at, label in enumerate(labels)]),
        Column("field", [name for _, name, _ in lines]),
        Column("value", [_value(setting) for _, _, setting in lines]),
        Column("how known", [setting.mark for _, _, setting in lines]),
        Column("lines", [spans(setting.lines) for _, _, setting in lines], 1),
        Column("why", [setting.why for _, _, setting in lines], 2),
    ]
    return laid_out(columns)


def spans(numbers: Sequence[int] | range) -> str:
    """Numbers in a few words: 1-3, 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _section(beside: Beside, found: Comparison) -> RenderableType:
    rows = beside.plan.table.rows
    ranked = found.metric not in NOT_RANKED
    columns = [
        Column("#", [str(row.number) for row in rows], 2, True),
        Column("row", [row.label for row in rows]),
        Column(
            "published", [_printed(found.metric, found.published.get(row.number)) for row in rows], 0, True
        ),
        Column("here", [_here(found.metric, found.samples[row.number]) for row in rows]),
        Column("runs", [_runs(beside, row, found.samples[row.number]) for row in rows], 4),
    ]
    if ranked:
        columns += [
            Column("rank in paper", [_rank(found.paper, row) for row in rows], 1, True),
            Column("rank here", [_rank(found.here, row) for row in rows], 1, True),
            Column("beyond noise of", [_beyond(found, row) for row in rows], 3),
        ]
    lower = ", lower is better" if ranked and lower_is_better(found.metric) else ""
    return laid_out(columns, title=f"{found.metric}{lower}", note=_noise(found) if ranked else None)


def _counts(table: Table, name: str) -> RenderableType:
    """Printed and counted numbers of parameters."""
    printed = [row.figures.get(name) for row in table.rows]
    own = [counted(row, name) for row in table.rows]
    columns = [
        Column("#", [str(row.number) for row in table.rows], 2, True),
        Column("row", [row.label for row in table.rows]),
        Column(
            "published", ["-" if each is None else _number(each.value, name) for each in printed], 0, True
        ),
        Column(f"counted at {MODEL}", [_number(value, name) for value in own], 0, True),
        Column("why they differ", [row.count_differs for row in table.rows], 3),
    ]
    return laid_out(
        columns, title="trainable parameters" if name == TRAINABLE else "share of parameters updated"
    )


def _number(value: float, name: str) -> str:
    return f"{value:,.0f}" if name == TRAINABLE else f"{value:.2f}%"


def _claims(beside: Beside) -> RenderableType:
    verdicts = beside.verdicts
    said = [
        each.why
        or ("" if each.difference is None else _difference(each.difference.value, each.difference.half_width))
        for each in verdicts
    ]
    columns = [
        Column("holds here", [each.answer for each in verdicts]),
        Column("claim", [each.claim.says for each in verdicts]),
        Column("of", [each.claim.metric or "all" for each in verdicts], 2),
        Column("better by", said, 1),
        Column("lines", [spans(each.claim.lines) for each in verdicts], 3),
    ]
    return laid_out(columns, title="what the text claims, at 95%")


def _noise(found: Comparison) -> str:
    if found.noise is None:
        measured = any(found.samples.values())
        return "one seed says nothing of chance: --seeds 2 or more" if measured else "not measured"
    noise, (exceeding, of) = found.noise, found.pairs
    text = f"noise: one run deviates by {noise.deviation:.4f} ({noise.freedom} degrees of freedom)"
    if of:
        least = f"two runs by up to {noise.between_runs():.4f} by chance"
        text += f", {least}; {exceeding} of {of} published differences are larger"
    return text


def _runs(beside: Beside, row: Row, values: Sequence[float]) -> str:
    statuses = beside.measured.statuses(row)
    others = [f"{count} {status}" for status, count in statuses.items() if status != "completed" and count]
    return f"{len(values)} ({', '.join(others)})" if others else str(len(values))


def _here(metric: str, values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean, found = fmean(values), mean_over_seeds(values)
    width = None if found is None else found.half_width
    if metric in _SECONDS:
        return f"{mean:.1f} s" + ("" if width is None else f" ± {width:.1f}")
    return f"{mean:.4f}" + ("" if width is None else f" ± {width:.4f}")


def _printed(metric: str, figure: Figure | None) -> str:
    if figure is None:
        return "-"
    if metric in _SECONDS:
        minutes, seconds = divmod(round(figure.value), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    return f"{figure.value:.3f}" + ("" if figure.deviation is None else f" (sd {figure.deviation:g})")


def _rank(ranks: Mapping[int, int], row: Row) -> str:
    return str(ranks.get(row.number, "-"))


def _beyond(found: Comparison, row: Row) -> str:
    if row.number not in found.beyond:
        return "-"
    return spans(found.beyond[row.number]) or "none"


def _difference(value: float, width: float) -> str:
    digits = 4 if abs(value) < 100 else 1
    return f"{value:+.{digits}f} ± {width:.{digits}f}"


def _all(row: Row, name: str) -> dict[str, Setting]:
    """The settings of one of a row's runs, and of what is merged from them."""
    (run,) = [each for each in row.runs if each.name == name]
    return {**run.settings, **{f"merge.{field}": each for field, each in row.merge.items()}}


def _value(setting: Setting) -> str:
    value = setting.value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return str(value)
