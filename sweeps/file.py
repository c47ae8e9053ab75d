"""A sweep as a file: what its runs are fed, and its declaration, as YAML.

    name: ranks
    kind: grid                          # or list, ablation, search
    model: demo                         # and all that a file of one training says of its inputs
    base: {low_rank: {kind: lora}}      # what is fixed, or a file with it, from this file's folder
    axes: {low_rank.rank: [1, 4, 16]}   # and the other fields of that kind's declaration
    seeds: 2

The fields are those of the dataclasses in `declare`; `python -m sweeps schema` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from mtbert.configuration import merged
from mtbert.describe import Field, described
from mtbert.inputs import Inputs, parse_inputs, read_file, read_yaml
from mtbert.schema import ConfigError, build, check_names
from sweeps.declare import Ablation, Grid, RunList, Search, Sweep
from sweeps.search.space import Space, parse_space

KINDS: Mapping[str, type[Sweep]] = {each.kind: each for each in (Grid, RunList, Ablation, Search)}
USUAL_SPACE = Path(__file__).parent / "search" / "usual_space.yaml"


class Declared(NamedTuple):
    """A sweep, and what its runs are fed."""

    sweep: Sweep
    inputs: Inputs


def read_sweep(path: str | Path) -> Declared:
    """The sweep that a file declares.

    Raises:
        ConfigError: naming the file, the field, what it takes, and the value received.
    """
    inputs, declaration = read_file(path)
    try:
        return parse_sweep(inputs, declaration, Path(path).parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix('.')}") from None


def parse_sweep(inputs: Mapping[str, Any], declaration: Mapping[str, Any], folder: Path) -> Declared:
    """A sweep from plain data.

    Args:
        folder: where the path of a base begins.

    Raises:
        ConfigError: naming the field, what it takes, and the value received.
    """
    kind = KINDS.get(str(declaration.get("kind")))
    if kind is None:
        raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, got {declaration.get('kind')!r}")
    check_names(declaration, names(kind))
    given = {name: value for name, value in declaration.items() if name not in ("kind", "base")}
    own_inputs, base = _base(declaration.get("base"), folder)
    if kind is RunList:
        given["configurations"] = _over(base, given.get("configurations"))
    else:
        given["base"] = base
    if kind is Search:
        given["space"] = parse_space(given["space"]) if "space" in given else usual_space()
    sweep: Sweep = build(kind, given, "")
    return Declared(sweep, parse_inputs({**own_inputs, **inputs}))


def names(kind: type[Sweep]) -> list[str]:
    """The fields of a file that declares a sweep of this kind."""
    own = [field.name for field in fields(kind) if field.name not in ("name", "base")]
    return ["name", "kind", *(field.name for field in fields(Inputs)), "base", *own]


def described_file(kind: type[Sweep]) -> list[Field]:
    """Every field of a kind's declaration as its file has it, beside inputs, which all kinds have.

    There a base may be left out, and a search's space too, which names its parameters without more ado.
    """
    left_out = {"base": {}, "space": f"sweeps/{USUAL_SPACE.name}"}
    found = []
    for each in described(kind):
        name = each.name.replace("space.parameters.", "space.")
        if name in left_out:
            found.append(replace(each, required=False, default=left_out[name]))
        elif name != "space.parameters":
            found.append(replace(each, name=name))
    return found


def usual_space(changes: Any = None) -> Space:
    """What a search searches where it says nothing else, with changes laid over.

    Raises:
        ConfigError: naming a parameter that cannot be.
    """
    return parse_space({} if changes is None else changes, read_yaml(USUAL_SPACE))


def _base(given: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and configuration that a base gives: as it stands, or from a file."""
    if given is None:
        return {}, {}
    if isinstance(given, str):
        return read_file(folder / Path(given).expanduser())
    if not isinstance(given, dict):
        raise ConfigError(f"base: expected a configuration, or the path of a file with one, got {given!r}")
    return {}, given


def _over(base: Mapping[str, Any], configurations: Any) -> dict[str, Any]:
    """Each of the named configurations laid over the base."""
    if not isinstance(configurations, Mapping):
        raise ConfigError(
            f"configurations: expected a mapping of configurations by name, got {configurations!r}"
        )
    for name, each in configurations.items():
        if not isinstance(each, Mapping):
            raise ConfigError(f"configurations.{name}: expected a mapping of fields, got {each!r}")
    return {str(name): merged(base, each) for name, each in configurations.items()}
