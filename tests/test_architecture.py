"""Who may import whom, and that importing a module does nothing."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mtbert", "sweeps", "analysis")
FORBIDDEN = {
    "mtbert": {"ray", "optuna", "pyarrow", "duckdb", "pandas", "sweeps", "analysis"},
    "analysis": {"torch", "ray", "transformers", "sweeps", "mtbert"},
    "sweeps": set(),
}
COMMANDS = re.compile(r"(mtbert|analysis)/(__main__|commands/\w+)\.py")
"""Where commands are put together: no library, and nothing may import it. The model's write to the ledger."""
DISTRIBUTIONS = {"mlflow": "mlflow-skinny", "tensorboardX": "tensorboardx", "yaml": "pyyaml"}
"""Where a module is not called as what one installs."""
BROUGHT = {"triton"}
"""What torch's builds for CUDA bring, and what is not imported without them."""
STANDARD_LIBRARY_ALONE = ("techniques.py", "schema.py", "configuration.py", "run.py", "records.py")
HEAVY = (
    "ray",
    "optuna",
    "pyarrow",
    "duckdb",
    "pandas",
    "transformers",
    "peft",
    "datasets",
    "matplotlib",
    "triton",
)


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may_know(package: str) -> None:
    assert files(package)
    for path in files(package):
        tops = {name.partition(".")[0] for name in imported(path)}
        allowed = {"analysis"} if COMMANDS.fullmatch(named(path)) else set()
        assert not tops & (FORBIDDEN[package] - allowed), named(path)


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_but_commands_imports_the_commands(package: str) -> None:
    for path in files(package):
        if not COMMANDS.fullmatch(named(path)):
            commands = ("mtbert.commands", "analysis.commands")
            assert not {name for name in imported(path) if name.startswith(commands)}, named(path)


def declared() -> set[str]:
    """What installing the package brings, extras for users included, those of tests and peers not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for name, of in project["optional-dependencies"].items() if name != "test" for one in of]
    names = (re.match(r"[\w.-]+", one) for one in [*project["dependencies"], *extras])
    return {name[0].lower() for name in names if name}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_imports_is_declared(package: str) -> None:
    for path in files(package):
        for name in imported(path):
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in PACKAGES and top not in BROUGHT:
                assert DISTRIBUTIONS.get(top, top) in declared(), f"{named(path)} imports {top}"


def test_what_defines_a_run_needs_the_standard_library_alone() -> None:
    known = {f"mtbert.{name.removesuffix('.py')}" for name in STANDARD_LIBRARY_ALONE}
    for name in STANDARD_LIBRARY_ALONE:
        for found in imported(ROOT / "mtbert" / name):
            own = any(found == module or found.startswith(f"{module}.") for module in known)
            assert own or found.partition(".")[0] in sys.stdlib_module_names, (name, found)


def is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


DEFINITIONS = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
)


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_hold_definitions_alone(package: str) -> None:
    """No calls, loops or conditions at a module's top but the guard of a script's own start."""
    for path in files(package):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            allowed = isinstance(node, DEFINITIONS) or text or is_main_guard(node) or is_type_checking(node)
            assert allowed, f"{named(path)}:{node.lineno}: {ast.unparse(node).splitlines()[0]}"


def modules(package: str) -> list[str]:
    """Every module's name, without those that are run rather than imported."""
    names = []
    for path in files(package):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


PROBE = """
import importlib, json, os, sys, threading
environment, path, directory = dict(os.environ), list(sys.path), os.getcwd()
before = set(threading.enumerate())
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
changed = [
    what
    for what, same in {
        "environment": dict(os.environ) == environment,
        "path": sys.path == path,
        "working directory": os.getcwd() == directory,
        "threads": set(threading.enumerate()) == before,
    }.items()
    if not same
]
print(json.dumps({"modules": sorted({name.partition(".")[0] for name in sys.modules}), "changed": changed}))
"""


def import_all(names: list[str], folder: Path) -> tuple[set[str], list[str]]:
    """In a process of its own in an empty folder: what got imported, and what else changed."""
    process = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(names)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert len(process.stdout.splitlines()) == 1, "an import printed something"
    found = json.loads(process.stdout)
    return set(found["modules"]), found["changed"]


def test_importing_every_module_of_the_model_does_nothing_and_loads_nothing_heavy(tmp_path: Path) -> None:
    without_kernels = [name for name in modules("mtbert") if not name.startswith("mtbert.kernels.")]
    loaded, changed = import_all(without_kernels, tmp_path)
    assert "torch" in loaded
    assert not loaded & set(HEAVY)
    assert not loaded & {"sweeps", "analysis"}
    assert changed == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_can_be_read_where_there_is_no_torch(tmp_path: Path) -> None:
    names = [f"mtbert.{name.removesuffix('.py')}" for name in STANDARD_LIBRARY_ALONE]
    loaded, changed = import_all(names, tmp_path)
    assert not loaded & {"torch", "numpy", "yaml", "safetensors", "tokenizers"}
    assert changed == []


def test_importing_every_module_of_the_analysis_loads_no_model_and_no_cluster(tmp_path: Path) -> None:
    loaded, changed = import_all(modules("analysis"), tmp_path)
    assert not loaded & {"torch", "ray", "transformers", "sweeps", "mtbert", "optuna"}
    assert changed == []
    assert list(tmp_path.iterdir()) == []
