"""A results folder and its writer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.store import Writer


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def writer(results: Path) -> Iterator[Writer]:
    with Writer(results, "first") as made:
        yield made
