"""What an ablation is around: a file, a run of the results, or the winner of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.store.state import RunState, State
from mtbert.configuration import Configuration, parse
from mtbert.inputs import read_file
from mtbert.schema import plain
from sweeps.winner import winner


@dataclass(frozen=True)
class Center:
    """A configuration as plain data, what its runs are fed, and the plain one that it is held against.

    Attributes:
        name: of it, as a sweep's name may hold it.
        said: what it is, and what the plain one is, in words.
    """

    name: str
    said: str
    inputs: Mapping[str, Any]
    configuration: dict[str, Any]
    base: Configuration


def center(text: str, results: str, state: State) -> Center:
    """What is meant by a file's path, a sweep's name, or the id of a run or enough of it.

    Of a file and a run the plain configuration is that of defaults alone, of a sweep's winner its base.

    Raises:
        ConfigError: a file that cannot be read.
        StoreError: none of the three, or a sweep without a winner.
    """
    if text in state.sweeps:
        return _of_sweep(text, results, state)
    if Path(text).is_file() or text.endswith((".yaml", ".yml")):
        inputs, configuration = read_file(text)
        said = f"the configuration of {text}, held against the defaults"
        return Center(Path(text).stem, said, inputs, configuration, parse({}))
    run = state.find(text)
    said = f"the configuration of run {run.run_id}, held against the defaults"
    return Center(run.config_id, said, *_of_run(run), parse({}))


def _of_sweep(name: str, results: str, state: State) -> Center:
    chosen = winner(results, state, name)
    base = parse(state.sweep(name).declaration.get("base") or {})
    said = f"the winner of {name}, held against the base of {name}"
    return Center(name, said, vars(chosen.inputs), plain(chosen.configuration), base)


def _of_run(run: RunState) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run was fed, and its configuration."""
    return dict(run.run.get("inputs") or {}), dict(run.run["configuration"])
