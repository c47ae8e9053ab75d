"""How to do it again: the files and commands, and what it was done with."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from markupsafe import Markup

from analysis.page.markup import Section, code, details, joined, listed, note, paragraph, table, visible
from analysis.page.subject import Subject, spoken
from analysis.store.state import RunState

_LISTED = 4
_SEARCH = ("sampler", "rungs", "budget", "top_k", "constraints", "against")


def reproduce(subject: Subject) -> Section:
    """Commands, files, and where results came from."""
    title = "How to reproduce"
    if not subject.runs:
        return Section("reproduce", title, note("Nothing has been run yet, so there is nothing to do again."))
    parts = [_sweep(subject), _best(subject), _page(subject), _provenance(subject)]
    return Section("reproduce", title, joined(parts))


def sweep_file(subject: Subject) -> dict[str, Any] | None:
    """The sweep as a file that `python -m sweeps run` takes; null where there was none.

    A grid and a search stand as they were declared. Of any other kind the ledger has the configurations,
    and the file lists them by name: the same runs by the same ids.
    """
    if subject.declared is None:
        return None
    record = subject.declaration
    head = {"name": subject.declared.name, "kind": subject.kind, **_inputs(subject.runs[0])}
    ending = {"objective": subject.objective}
    if subject.kind == "grid":
        return head | {"base": record["base"], "axes": record["axes"], "seeds": record["seeds"]} | ending
    if subject.kind == "search":
        own = {name: record[name] for name in _SEARCH if record.get(name)}
        parts = {"base": record["base"], "space": record["axes"], "seeds_at_end": record["seeds"]}
        return head | parts | own | ending
    points = subject.declared.points
    configurations: dict[str, Any] = {}
    for run in subject.runs:
        point = points.get(run.run_id) or {}
        name = spoken(next(iter(point.values()), run.config_id))
        configurations.setdefault(name, run.run["configuration"])
    seeds = 1 + max(run.seed for run in subject.runs)
    return head | {"kind": "list", "configurations": configurations, "seeds": seeds} | ending


def _sweep(subject: Subject) -> Markup:
    file = sweep_file(subject)
    if file is None:
        return paragraph("These runs were trained one by one, in no sweep.")
    command = f"python -m sweeps run sweep.yaml --results {shlex.quote(subject.results)}"
    said = Markup(
        "The sweep, with the file below as <code>sweep.yaml</code>; what the results hold is not run again:"
    )
    return joined([paragraph(said), code(command), details("sweep.yaml", code(as_yaml(file)))])


def _best(subject: Subject) -> Markup:
    if not subject.candidates:
        return Markup("")
    best = subject.candidates[0]
    run = best.runs[0]
    file = {**_inputs(run), **run.run["configuration"]}
    seeds = " ".join(str(seed) for seed in sorted(best.row.by_seed))
    command = f"for seed in {seeds}; do python -m mtbert train best.yaml --seed $seed; done"
    said = Markup("The best alone, {}, with the file below as <code>best.yaml</code>:").format(best.name)
    return joined([paragraph(said), code(command), details("best.yaml", code(as_yaml(file)))])


def _page(subject: Subject) -> Markup:
    sweep = f" --sweep {shlex.quote(subject.sweep)}" if subject.sweep else ""
    command = f"python -m analysis report {shlex.quote(subject.results)}{sweep} -o report.html"
    return joined([paragraph("This page:"), code(command)])


def _provenance(subject: Subject) -> Markup:
    runs = subject.runs
    ended = [run.ended for run in runs if run.ended]
    rows = [
        ["code", _counted(_commit(run) for run in runs)],
        ["method version", _counted(run.run.get("method_version") for run in runs)],
        ["data", _counted(_told(run, "data") for run in runs)],
        ["base model", _counted(_told(run, "model") for run in runs)],
        ["libraries", _counted(_versions(record.get("versions")) for record in ended)],
        ["devices", _counted(record.get("device") for record in ended)],
        ["hosts", _counted(record.get("host") for record in ended)],
    ]
    return table("What the runs were made with", ["what", "found (runs)"], rows, text=(0, 1))


def _counted(found: Iterable[Any]) -> str:
    """Each distinct value with how many runs have it."""
    counts = Counter(str(each) for each in found if each not in (None, ""))
    if not counts:
        return "not recorded"
    if len(counts) == 1:
        return visible(next(iter(counts)))
    shown = [f"{visible(name)} ({times})" for name, times in counts.most_common(_LISTED)]
    return listed(shown) + (f", and {len(counts) - _LISTED} more" if len(counts) > _LISTED else "")


def _commit(run: RunState) -> str | None:
    begin = run.begins.get(run.ending.attempt if run.ending else run.attempt)
    if begin is None:
        return None
    if begin.commit is None:
        return "not under git"
    return f"commit {begin.commit}" + (" with changes not committed" if begin.dirty else "")


def _told(run: RunState, name: str) -> str:
    """A fingerprint, and where it was read from."""
    place = (run.run.get("inputs") or {}).get(name)
    return f"fingerprint {run.run.get(name)}" + (f", read from {place}" if place else "")


def _versions(versions: Mapping[str, str] | None) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted((versions or {}).items()))


def _inputs(run: RunState) -> dict[str, Any]:
    """What the run was fed, without what is empty."""
    return {name: each for name, each in (run.run.get("inputs") or {}).items() if each not in (None, {}, 0)}


def as_yaml(value: Any) -> str:
    """YAML of plain data, in its order."""
    plain = json.loads(json.dumps(value))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100))
